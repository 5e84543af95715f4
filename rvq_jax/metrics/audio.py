"""How near audio is to audio."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from rvq_jax.audio import spectral
from rvq_jax.typing import Array

MEL_WINDOWS = (256, 512, 1024, 2048)  # samples, at rates near 24 kHz and below
STFT_WINDOWS = (512, 2048)  # samples, at any rate
QUIET = 1e-10  # power of a bin, -100 dB of a sine of amplitude 1
SILENCE = 1e-14  # mean square, -140 dB of full scale
LIMIT = 1e-10  # SI-SDR stays within ±100 dB


@jax.jit
def si_sdr(reference: Array, estimate: Array, mask: Array | None = None) -> Array:
    """Scale-invariant signal-to-distortion ratio in dB, `[...]` of signals `[..., S]`.

    mask: bool `[..., S]`, true where samples count. Means are removed first. Values lie within
    ±100 dB: 100 for equal signals and for silence kept silent, -100 if only one of the two is
    silent (below -140 dB of full scale). Le Roux et al. 2019.
    """
    mask = jnp.ones(reference.shape, jnp.float32) if mask is None else mask.astype(jnp.float32)
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


@functools.partial(jax.jit, static_argnames="rate")
def mel_distance(reference: Array, estimate: Array, rate: int, mask: Array | None = None) -> Array:
    """Measures the mean absolute difference of natural-log mel magnitudes.

    Averaged over four window lengths, 256 to 2048 samples near 24 kHz and below and twice that near
    48 kHz, hops of a quarter, at most 64 bands; 0 for equal signals, and it does hear the scale.

    Args:
      reference: `[..., S]`.
      estimate: `[..., S]`, the signals to compare with it.
      rate: sampling rate in hertz.
      mask: bool `[..., S]`, True up to each signal's length. None for all S samples.

    Returns:
      Distances `[...]`, one for each signal.
    """
    if mask is not None:
        reference, estimate = (jnp.where(mask, x, 0.0) for x in (reference, estimate))
    factor = max(1, 2 ** round(np.log2(rate / 24000)))
    total = 0.0
    for window in MEL_WINDOWS:
        window, hop = factor * window, factor * window // 4
        bands = min(64, window // 8)
        mels = [spectral.log_mel(x, rate, window, hop, bands) for x in (reference, estimate)]
        total = total + _mean_difference(*mels, hop, mask)
    return total / len(MEL_WINDOWS)


@jax.jit
def stft_distance(reference: Array, estimate: Array, rate: int, mask: Array | None = None) -> Array:
    """Measures the mean absolute difference of natural-log magnitudes of short-time spectra.

    Averaged over Hann windows of 512 and 2048 samples, hops of a quarter, all bins alike, floored
    at -100 dB of a sine of amplitude 1. It is what the mel distance is, without bands: the higher
    half of the spectrum is half of it. The windows and the logarithm are those of the multi-scale
    STFT loss with which DAC is evaluated (Kumar et al. 2023), without its term of plain magnitudes
    and its sum: one of its windows counts the log10 of power, 0.87 times this.

    Args:
      reference: `[..., S]`.
      estimate: `[..., S]`, the signals to compare with it.
      rate: sampling rate in hertz, which changes nothing: windows are counted in samples.
      mask: bool `[..., S]`, True up to each signal's length. None for all S samples.

    Returns:
      Distances `[...]`, one for each signal; exactly 0 for equal ones. 0.115 is 1 dB.
    """
    if mask is not None:
        reference, estimate = (jnp.where(mask, x, 0.0) for x in (reference, estimate))
    total = 0.0
    for window in STFT_WINDOWS:
        hop = window // 4
        logs = [_log_magnitude(x, window, hop) for x in (reference, estimate)]
        total = total + _mean_difference(*logs, hop, mask)
    return total / len(STFT_WINDOWS)


def _log_magnitude(audio: Array, window: int, hop: int) -> Array:
    """`[..., frames, window // 2 + 1]`, natural logs; of silence with gradients of 0, not NaN."""
    spectrum = spectral.stft(audio, window, hop) * (4.0 / window)
    return 0.5 * jnp.log(jnp.maximum(spectrum.real**2 + spectrum.imag**2, QUIET))


def _mean_difference(a: Array, b: Array, hop: int, mask: Array | None) -> Array:
    """Mean absolute difference `[...]` of two spectrograms `[..., frames, bins]`, over the frames
    of signals that end where the mask of samples does."""
    difference = jnp.abs(a - b).mean(-1)
    if mask is None:
        return difference.mean(-1)
    # A signal of S samples has the frames whose sample before the centre is inside it.
    centres = np.maximum(np.arange(difference.shape[-1]) * hop - 1, 0)
    valid = mask[..., centres].astype(jnp.float32)
    return (difference * valid).sum(-1) / jnp.maximum(valid.sum(-1), 1.0)
