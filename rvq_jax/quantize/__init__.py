"""Latents ↔ codes: residual vector quantization as pure functions on a pytree.

A quantizer is a choice of *lookup* (how a level finds a codeword), of *arrangement* of levels, of
*learning* and of *estimator* (how the gradient passes). They compose: encode, decode and quantize
are one `jax.lax.scan` over the levels for all, so compile time does not grow with their number.
"""

from rvq_jax.quantize.arrangements import (
    Bottleneck,
    Grouped,
    Split,
    State,
    Strided,
    random_projection,
)
from rvq_jax.quantize.dropout import Dropout, bandwidths, multiples
from rvq_jax.quantize.estimate import rotation, straight_through
from rvq_jax.quantize.fit import fit, refine
from rvq_jax.quantize.implicit import QINCo
from rvq_jax.quantize.learn import EMA, Frozen, Gradient
from rvq_jax.quantize.lookups import Projected, Shared, SimVQ
from rvq_jax.quantize.quantizer import beam_tables, decode, encode, quantize, start
from rvq_jax.quantize.rvq import Quantized
from rvq_jax.quantize.scalar import FSQ, LFQ
from rvq_jax.quantize.search import nearest
from rvq_jax.quantize.state import Codebooks, Cosine, init
from rvq_jax.quantize.stats import LevelStats, level_stats

__all__ = [
    "EMA",
    "FSQ",
    "LFQ",
    "Bottleneck",
    "Codebooks",
    "Cosine",
    "Dropout",
    "Frozen",
    "Gradient",
    "Grouped",
    "LevelStats",
    "Projected",
    "QINCo",
    "Quantized",
    "Shared",
    "SimVQ",
    "Split",
    "State",
    "Strided",
    "bandwidths",
    "beam_tables",
    "decode",
    "encode",
    "fit",
    "init",
    "level_stats",
    "multiples",
    "nearest",
    "quantize",
    "random_projection",
    "refine",
    "rotation",
    "start",
    "straight_through",
]
