"""How near a set of signals is to another set: the Fréchet distance of their features."""

from collections.abc import Callable

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
    a, b = (
        centred.T @ centred / len(centred) for centred in (x - x.mean(0) for x in (real, other))
    )
    return float(frechet_of_gaussians(real.mean(0), a, other.mean(0), b))


def frechet_of_gaussians(
    mean_a: Array, covariance_a: Array, mean_b: Array, covariance_b: Array
) -> np.ndarray:
    """The Fréchet distance of Gaussians that are known, over any batch axes.

    Args:
      mean_a: `[..., D]` float64.
      covariance_a: `[..., D, D]`, symmetric.
      mean_b: as mean_a, of the other.
      covariance_b: as covariance_a.

    Returns:
      Distances `[...]`, at least 0.
    """
    mean = ((mean_a - mean_b) ** 2).sum(-1)
    values, vectors = np.linalg.eigh(covariance_a)
    scaled = vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]
    root = scaled @ np.swapaxes(vectors, -1, -2)
    # (A B)^½ has the trace of (A^½ B A^½)^½, which is symmetric.
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance_b @ root), 0.0)).sum(-1)
    traces = np.trace(covariance_a + covariance_b, axis1=-2, axis2=-1)
    return np.maximum(0.0, mean + traces - 2.0 * cross)


def reduction(real_MD: Array, dims: int) -> Callable[[Array], np.ndarray]:
    """A function from features `[M, D]` to at most `dims` of them.

    Covariances of more features than vectors can carry are singular, and a distance between them
    is that of chance. Kept are the first principal components of real audio, and as the last
    feature how far a vector lies from what they span: what is nowhere in real audio, a hum in an
    empty band, would be unheard without it.

    Args:
      real_MD: features of real audio.
      dims: features to keep, at least 1; where there are no more it changes nothing.
    """
    real = np.asarray(real_MD, np.float64)
    if real.shape[1] <= dims:
        return lambda features_MD: np.asarray(features_MD, np.float64)
    mean = real.mean(0)
    axes = np.linalg.svd(real - mean, full_matrices=False)[2][: dims - 1]

    def reduce(features_MD: Array) -> np.ndarray:
        centred = np.asarray(features_MD, np.float64) - mean
        kept = centred @ axes.T
        beside = np.linalg.norm(centred - kept @ axes, axis=1, keepdims=True)
        return np.concatenate([kept, beside], axis=1)

    return reduce
