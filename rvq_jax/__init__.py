"""Residual vector quantization in JAX: quantizers, codecs, patterns and token models.

    import rvq_jax as rj

This is the public face; everything else may change. Importing it computes nothing, and a name is
imported when it is first asked for.
"""

from typing import TYPE_CHECKING

from rvq_jax import lazy

if TYPE_CHECKING:
    from rvq_jax import patterns, quantize
    from rvq_jax.codec.config import CodecConfig
    from rvq_jax.errors import UserError
    from rvq_jax.evaluate.codecs import evaluate_codec
    from rvq_jax.lm.model import LMConfig
    from rvq_jax.systems.codec import Codec, Coded
    from rvq_jax.systems.musicgen import MusicGen

__version__ = "0.1.0"
__all__ = [
    "Codec",
    "CodecConfig",
    "Coded",
    "LMConfig",
    "MusicGen",
    "UserError",
    "__version__",
    "evaluate_codec",
    "patterns",
    "quantize",
]
__getattr__, __dir__ = lazy.names(
    __name__,
    {
        "Codec": "rvq_jax.systems.codec",
        "CodecConfig": "rvq_jax.codec.config",
        "Coded": "rvq_jax.systems.codec",
        "LMConfig": "rvq_jax.lm.model",
        "MusicGen": "rvq_jax.systems.musicgen",
        "UserError": "rvq_jax.errors",
        "evaluate_codec": "rvq_jax.evaluate.codecs",
        "patterns": "rvq_jax.patterns",
        "quantize": "rvq_jax.quantize",
    },
)
