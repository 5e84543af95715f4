"""How near audio is to audio, and how codes are used."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from rvq_jax.audio import spectral
from rvq_jax.typing import Array

MEL_WINDOWS = (256, 512, 1024, 2048)  # samples, at rates near 24 kHz and below
BANDS = 24  # of the Fréchet features
SILENCE = 1e-14  # mean square, -140 dB of full scale
LIMIT = 1e-10  # SI-SDR stays within ±100 dB


def si_sdr(reference: Array, estimate: Array, mask: Array | None = None) -> Array:
    """Scale-invariant signal-to-distortion ratio in dB, `[...]` of signals `[..., S]`.

    mask: bool `[..., S]`, true where samples count. Means are removed first. Values lie within
    ±100 dB: 100 for equal signals and for silence kept silent, -100 if only one of the two is
    silent (below -140 dB of full scale). Le Roux et al. 2019.
    """
    mask = jnp.ones(reference.shape) if mask is None else mask.astype(jnp.float32)
    target, target_silent = _normalized(reference, mask)
    other, other_silent = _normalized(estimate, mask)
    cosine = (target * other).sum(-1, keepdims=True)
    # Not 1 - cosine²: in float32 that ends at 70 dB.
    noise = ((other - cosine * target) ** 2).sum(-1)
    ratio_dB = 10.0 * jnp.log10((cosine[..., 0] ** 2 + LIMIT) / (noise + LIMIT))
    silent_dB = jnp.where(target_silent & other_silent, 100.0, -100.0)
    return jnp.where(target_silent | other_silent, silent_dB, jnp.clip(ratio_dB, -100.0, 100.0))


def _normalized(signal: Array, mask: Array) -> tuple[Array, Array]:
    """A signal without mean and of unit energy, and whether it is silent `[...]`."""
    count = jnp.maximum(mask.sum(-1, keepdims=True), 1.0)
    # Selecting, not multiplying: padding may hold NaN.
    signal = jnp.where(mask > 0, signal, 0.0)
    centred = (signal - signal.sum(-1, keepdims=True) / count) * mask
    power = (centred**2).sum(-1, keepdims=True) / count
    unit = centred / jnp.sqrt(jnp.maximum(power, SILENCE) * count)
    return unit, power[..., 0] < SILENCE


def mel_distance(reference: Array, estimate: Array, rate: int, mask: Array | None = None) -> Array:
    """Mean absolute difference of natural-log mel magnitudes, `[...]` of signals `[..., S]`.

    Averaged over four window lengths, 256 to 2048 samples near 24 kHz and below and twice that
    near 48 kHz, hops of a quarter, at most 64 bands; 0 for equal signals, and it does hear the
    scale. rate: hertz. mask: bool `[..., S]`, true up to each signal's length.
    """
    if mask is not None:
        reference, estimate = (jnp.where(mask, x, 0.0) for x in (reference, estimate))
    factor = max(1, 2 ** round(np.log2(rate / 24000)))
    total = 0.0
    for window in MEL_WINDOWS:
        window, hop = factor * window, factor * window // 4
        bands = min(64, window // 8)
        mels = [spectral.log_mel(x, rate, window, hop, bands) for x in (reference, estimate)]
        difference = jnp.abs(mels[0] - mels[1]).mean(-1)
        if mask is None:
            total = total + difference.mean(-1)
        else:
            # A signal of S samples has the frames whose sample before the centre is inside it.
            centres = np.maximum(np.arange(difference.shape[-1]) * hop - 1, 0)
            valid = mask[..., centres].astype(jnp.float32)
            total = total + (difference * valid).sum(-1) / jnp.maximum(valid.sum(-1), 1.0)
    return total / len(MEL_WINDOWS)


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


def code_counts(
    codes: Array | Sequence[Array], size: int, mask: Array | Sequence[Array] | None = None
) -> np.ndarray:
    """How often each code occurs, `[K, N]`, in codes `[..., K, F]` or records of `[K, F]`.

    mask: bool `[..., F]`, or one `[F]` per record; true where frames count. Raises ValueError if
    a code that counts is not in [0, N).
    """
    every = joined(codes, mask)
    if every.size and not 0 <= every.min() <= every.max() < size:
        raise ValueError(f"codes must be in [0, {size}), got {every.min()}..{every.max()}")
    return np.stack([np.bincount(row, minlength=size) for row in every])


def code_use(
    codes: Array | Sequence[Array], size: int, mask: Array | Sequence[Array] | None = None
) -> list[dict]:
    """Per level: `use`, the share of its N codes that occur; `entropy_bits`, of how often each
    does; `perplexity`, 2 to that power, the effective number of codes. As `code_counts`."""
    rows = []
    for counts in code_counts(codes, size, mask):
        share = counts[counts > 0] / max(1, counts.sum())
        entropy = float(-(share * np.log2(share)).sum()) + 0.0  # never -0.0
        use = float((counts > 0).mean())
        rows.append({"use": use, "entropy_bits": entropy, "perplexity": 2.0**entropy})
    return rows


def joined(
    codes: Array | Sequence[Array], mask: Array | Sequence[Array] | None = None
) -> np.ndarray:
    """All frames that count, one record after another, `[K, M]`; arguments of `code_counts`."""
    if hasattr(codes, "ndim"):
        codes = np.asarray(codes).reshape(-1, *codes.shape[-2:])
        mask = None if mask is None else np.asarray(mask).reshape(-1, codes.shape[-1])
    records = [np.asarray(record) for record in codes]
    if mask is not None:
        records = [x[:, np.asarray(m, bool)] for x, m in zip(records, mask, strict=True)]
    return np.concatenate(records, axis=1)
