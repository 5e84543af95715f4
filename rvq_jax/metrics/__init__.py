"""Pure functions of audio and codes: how near, how used, how distributed."""

from rvq_jax.metrics.audio import mel_distance, si_sdr
from rvq_jax.metrics.codes import code_counts, code_use
from rvq_jax.metrics.frechet import frechet_distance, frechet_features
from rvq_jax.metrics.information import between_lags, between_levels, mutual_information

__all__ = [
    "between_lags",
    "between_levels",
    "code_counts",
    "code_use",
    "frechet_distance",
    "frechet_features",
    "mel_distance",
    "mutual_information",
    "si_sdr",
]
