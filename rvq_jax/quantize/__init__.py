"""Latents ↔ codes: residual vector quantization as pure functions on a pytree.

state = init(key, levels=8, size=1024, dim=128); encode, decode, quantize, start: all are one
`jax.lax.scan` over the level axis, so compile time does not grow with the number of levels.
"""

from rvq_jax.quantize.learn import start
from rvq_jax.quantize.rvq import Quantized, decode, encode, quantize
from rvq_jax.quantize.search import nearest
from rvq_jax.quantize.state import Codebooks, init
from rvq_jax.quantize.stats import LevelStats, level_stats

__all__ = [
    "Codebooks",
    "LevelStats",
    "Quantized",
    "decode",
    "encode",
    "init",
    "level_stats",
    "nearest",
    "quantize",
    "start",
]
