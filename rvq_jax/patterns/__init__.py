"""Codes ↔ sequences: interleaving patterns as static index maps.

pattern = delay(levels=4, frames=1500); tokens = pattern.interleave(codes, fill=special).
"""

from rvq_jax.patterns.analyse import Analysis, analyse
from rvq_jax.patterns.builders import (
    BUCKET,
    NAMES,
    canonical,
    coarse_first,
    custom,
    delay,
    flatten,
    musiclm,
    named,
    padded_pattern,
    parallel,
    partial_delay,
    partial_flatten,
    stereo_delay,
    stereo_partial_delay,
)
from rvq_jax.patterns.pattern import Pattern

__all__ = [
    "BUCKET",
    "NAMES",
    "Analysis",
    "Pattern",
    "analyse",
    "canonical",
    "coarse_first",
    "custom",
    "delay",
    "flatten",
    "musiclm",
    "named",
    "padded_pattern",
    "parallel",
    "partial_delay",
    "partial_flatten",
    "stereo_delay",
    "stereo_partial_delay",
]
