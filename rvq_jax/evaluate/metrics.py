"""How near audio is to audio, and how codes are used."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from rvq_jax.audio import spectral
from rvq_jax.typing import Array

MEL_WINDOWS = (256, 512, 1024, 2048)
BANDS = 24  # of the Fréchet features


def si_sdr(reference: Array, estimate: Array) -> Array:
    """Scale-invariant signal-to-distortion ratio in dB, `[...]` of signals `[..., S]`.

    Means are removed first. Silence gives a large finite value either way, never NaN.
    Le Roux et al. 2019.
    """
    reference = reference - reference.mean(-1, keepdims=True)
    estimate = estimate - estimate.mean(-1, keepdims=True)
    tiny = 1e-9
    scale = (reference * estimate).sum(-1, keepdims=True) / (
        (reference**2).sum(-1, keepdims=True) + tiny
    )
    target = scale * reference
    noise = estimate - target
    return 10.0 * jnp.log10(((target**2).sum(-1) + tiny) / ((noise**2).sum(-1) + tiny))


def mel_distance(reference: Array, estimate: Array, rate: int) -> Array:
    """Mean absolute difference of log-mel spectra, `[...]` of signals `[..., S]`, over window
    lengths of 256 to 2048 samples; 0 for equal signals."""
    total = 0.0
    for window in MEL_WINDOWS:
        bands = min(64, window // 8)
        mels = (
            spectral.log_mel(x, rate, window, window // 4, bands) for x in (reference, estimate)
        )
        total = total + jnp.abs(jnp.subtract(*mels)).mean((-2, -1))
    return total / len(MEL_WINDOWS)


def frechet_features(audio_S: Array, rate: int) -> np.ndarray:
    """Features `[M, 2 · 24]` of a signal: mean and standard deviation of 24 log-mel bands over
    half-second windows, half overlapping; a shorter signal is one window.

    No learned weights: distances compare runs of this library, not published Fréchet audio
    distances, which use VGGish or CLAP.
    """
    mel_FB = np.asarray(spectral.log_mel(np.asarray(audio_S), rate, 512, 256, BANDS))
    size = max(1, round(0.5 * rate / 256))
    starts = range(0, max(1, len(mel_FB) - size + 1), max(1, size // 2))
    windows = [mel_FB[start : start + size] for start in starts]
    return np.stack([np.concatenate([w.mean(0), w.std(0)]) for w in windows])


def frechet_distance(real_MD: Array, other_MD: Array) -> float:
    """Fréchet distance between the Gaussians of two sets of features `[M, D]`.

    |mean difference|² + trace(A + B - 2 (A B)^½), in float64 by symmetric eigenvalues.
    Dowson & Landau 1982; Kilgour et al. 2019 (Fréchet audio distance).
    """
    real, other = (np.asarray(x, np.float64) for x in (real_MD, other_MD))
    mean = ((real.mean(0) - other.mean(0)) ** 2).sum()
    a, b = (np.cov(x, rowvar=False, bias=True) for x in (real, other))
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    # (A B)^½ has the trace of (A^½ B A^½)^½, which is symmetric.
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b @ root), 0.0)).sum()
    return float(mean + np.trace(a) + np.trace(b) - 2.0 * cross)


def code_counts(codes: Sequence[Array], size: int) -> np.ndarray:
    """How often each code occurs, `[K, N]`, over records of codes `[K, F]`."""
    levels = codes[0].shape[0]
    every = np.concatenate([np.asarray(x) for x in codes], axis=1)
    return np.stack([np.bincount(every[k], minlength=size) for k in range(levels)])


def code_use(codes: Sequence[Array], size: int) -> list[dict]:
    """Per level: share of codes used, entropy in bits, perplexity (the effective number)."""
    rows = []
    for counts in code_counts(codes, size):
        share = counts / counts.sum()
        entropy = float(-(share[share > 0] * np.log2(share[share > 0])).sum())
        use = float((counts > 0).mean())
        rows.append({"use": use, "entropy_bits": entropy, "perplexity": 2.0**entropy})
    return rows
