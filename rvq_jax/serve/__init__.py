"""A local web page that plays a clip while a model generates it."""

from rvq_jax.serve.requests import Limits
from rvq_jax.serve.server import make_app, serve

__all__ = ["Limits", "make_app", "serve"]
