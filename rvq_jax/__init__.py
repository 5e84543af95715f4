"""Residual vector quantization in JAX: quantizers, codecs, patterns and token models.

    import rvq_jax as rj

This is the public face; everything else may change. Importing it computes nothing.
"""

from rvq_jax import patterns, quantize
from rvq_jax.codec.config import CodecConfig
from rvq_jax.errors import UserError
from rvq_jax.evaluate.codecs import evaluate_codec
from rvq_jax.lm.model import LMConfig
from rvq_jax.systems.codec import Codec, Coded
from rvq_jax.systems.musicgen import MusicGen

__all__ = [
    "Codec",
    "CodecConfig",
    "Coded",
    "LMConfig",
    "MusicGen",
    "UserError",
    "evaluate_codec",
    "patterns",
    "quantize",
]
