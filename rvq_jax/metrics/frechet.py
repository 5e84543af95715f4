"""How near a set of signals is to another set: the Fréchet distance of their features."""

import numpy as np

from rvq_jax.audio import spectral
from rvq_jax.typing import Array

BANDS = 24  # of the features


def frechet_features(audio_S: Array, rate: int) -> np.ndarray:
    """Features `[M, 48]` of a signal: mean and standard deviation of 24 log-mel bands over
    half-second windows, half overlapping; a signal shorter than that is one window.

    rate: hertz. There are no learned weights in it: it hears timbre and loudness, not music, and
    its distances are not those of published Fréchet audio distances (VGGish, CLAP).
    """
    window = 2 ** round(np.log2(0.032 * rate))
    hop = window // 2
    mel_FB = np.asarray(spectral.log_mel(np.asarray(audio_S), rate, window, hop, BANDS))
    size = max(1, round(0.5 * rate / hop))
    starts = range(0, max(1, len(mel_FB) - size + 1), max(1, size // 2))
    windows = [mel_FB[start : start + size] for start in starts]
    return np.stack([np.concatenate([w.mean(0), w.std(0)]) for w in windows])


def frechet_distance(real_MD: Array, other_MD: Array) -> float:
    """Fréchet distance, at least 0, between the Gaussians of two sets of features `[M, D]`.

    |mean difference|² + trace(A + B - 2 (A B)^½), in float64 by symmetric eigenvalues, with
    covariances over M. Few vectors raise it: compare sets of equal size. Raises ValueError if
    either set is empty or they differ in D. Dowson & Landau 1982; Kilgour et al. 2019.
    """
    real, other = (np.asarray(x, np.float64) for x in (real_MD, other_MD))
    if len(real) == 0 or len(other) == 0 or real.shape[1:] != other.shape[1:]:
        raise ValueError(f"need two sets of features [M, D], got {real.shape} and {other.shape}")
    mean = ((real.mean(0) - other.mean(0)) ** 2).sum()
    a, b = (
        centred.T @ centred / len(centred) for centred in (x - x.mean(0) for x in (real, other))
    )
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    # (A B)^½ has the trace of (A^½ B A^½)^½, which is symmetric.
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b @ root), 0.0)).sum()
    return float(max(0.0, mean + np.trace(a) + np.trace(b) - 2.0 * cross))
