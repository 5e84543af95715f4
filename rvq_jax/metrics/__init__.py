"""Pure functions of audio and codes: how near, how used, how distributed."""

from rvq_jax.metrics.align import aligned, delay
from rvq_jax.metrics.audio import mel_distance, si_sdr, stft_distance
from rvq_jax.metrics.codes import code_counts, code_use, count_use
from rvq_jax.metrics.frechet import frechet_distance, frechet_features
from rvq_jax.metrics.information import between_lags, between_levels, mutual_information
from rvq_jax.metrics.speech import dnsmos, pesq, stoi
from rvq_jax.metrics.visqol import visqol

__all__ = [
    "aligned",
    "between_lags",
    "between_levels",
    "code_counts",
    "code_use",
    "count_use",
    "delay",
    "dnsmos",
    "frechet_distance",
    "frechet_features",
    "mel_distance",
    "mutual_information",
    "pesq",
    "si_sdr",
    "stft_distance",
    "stoi",
    "visqol",
]
