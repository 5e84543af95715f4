"""A local web page that plays a clip while a model generates it."""

from typing import TYPE_CHECKING

from rvq_jax import lazy
from rvq_jax.serve.requests import Limits

if TYPE_CHECKING:
    from rvq_jax.serve.server import make_app, serve

__all__ = ["Limits", "make_app", "serve"]
__getattr__, __dir__ = lazy.names(
    __name__, {"make_app": "rvq_jax.serve.server", "serve": "rvq_jax.serve.server"}
)
