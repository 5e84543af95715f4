"""Short-time Fourier transform and mel spectrograms, differentiable, over any batch axes."""

import functools

import jax.numpy as jnp
import numpy as np

from rvq_jax.typing import Array


def frame(audio: Array, window: int, hop: int) -> Array:
    """Cuts `[..., S]` into overlapping windows `[..., frames, window]`, zero-padded at both ends.

    Frame i is centred on sample i · hop; there are S // hop + 1 frames.
    """
    samples = audio.shape[-1]
    total = samples // hop * hop + window
    right = max(0, total - samples - window // 2)
    padding = [(0, 0)] * (audio.ndim - 1) + [(window // 2, right)]
    return slide(jnp.pad(audio, padding)[..., :total], window, hop)


def slide(audio: Array, window: int, hop: int) -> Array:
    """Cuts `[..., S]` into the overlapping windows `[..., frames, window]` that lie inside of it.

    Frame i begins at sample i · hop; there are (S - window) // hop + 1 frames.
    """
    frames, parts = (audio.shape[-1] - window) // hop + 1, -(-window // hop)
    total = (frames + parts - 1) * hop
    padding = [(0, 0)] * (audio.ndim - 1) + [(0, max(0, total - audio.shape[-1]))]
    blocks = jnp.pad(audio, padding)[..., :total].reshape(*audio.shape[:-1], -1, hop)
    # Shifted blocks side by side, not a gather: its gradient would be a slow scatter.
    shifted = [blocks[..., i : i + frames, :] for i in range(parts)]
    return jnp.concatenate(shifted, axis=-1)[..., :window]


def stft(audio: Array, window: int, hop: int) -> Array:
    """Complex spectrum `[..., frames, window // 2 + 1]` of `[..., S]` under a Hann window."""
    frames = frame(audio, window, hop)
    return jnp.fft.rfft(frames * hann(window).reshape((1,) * (frames.ndim - 1) + (-1,)), axis=-1)


def hann(window: int) -> np.ndarray:
    """The periodic Hann window `[window]`, float32."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)


@functools.lru_cache(maxsize=64)
def mel_filters(rate: int, window: int, bands: int, low: float = 0.0) -> np.ndarray:
    """Makes triangular mel filters, each of unit peak.

    The mel scale is 2595 · log10(1 + f / 700) (O'Shaughnessy 1987). A triangle narrower than a bin
    would be empty, so each band keeps at least the bin nearest to its centre.

    Args:
      rate: sampling rate in hertz; the highest band ends at half of it.
      window: samples of the Fourier transform.
      bands: number of filters.
      low: where the lowest band begins, in hertz.

    Returns:
      Filters `[window // 2 + 1, bands]`, float32.
    """
    bins = window // 2 + 1
    mel = np.linspace(_to_mel(low), _to_mel(rate / 2), bands + 2)
    edges = 700.0 * (10.0 ** (mel / 2595.0) - 1.0) * window / rate  # in bins
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    k = np.arange(bins)[:, None]
    rising = (k - left) / np.maximum(centre - left, 1e-9)
    falling = (right - k) / np.maximum(right - centre, 1e-9)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    nearest = np.clip(np.round(centre).astype(int), 0, bins - 1)
    columns = np.arange(bands)
    filters[nearest, columns] = np.where(filters.sum(0) > 0, filters[nearest, columns], 1.0)
    filters = filters.astype(np.float32)
    filters.setflags(write=False)  # all callers share it
    return filters


def log_mel(audio: Array, rate: int, window: int = 512, hop: int = 128, bands: int = 64) -> Array:
    """Computes the natural log of mel amplitudes, floored at -60 dB.

    A sine of amplitude 1 at a band's centre has amplitude 1 there, whatever the window.

    Args:
      audio: `[..., S]`.
      rate: sampling rate in hertz.
      window: samples of each Hann window.
      hop: samples from one frame to the next.
      bands: number of mel bands, from 0 Hz to half the rate.

    Returns:
      `[..., frames, bands]`, with S // hop + 1 frames.
    """
    spectrum = stft(audio, window, hop) * (4.0 / window)
    # The square root has an infinite slope at 0: silence must not give NaN gradients.
    magnitude = jnp.sqrt(jnp.maximum(spectrum.real**2 + spectrum.imag**2, 1e-10))
    mel = magnitude @ mel_filters(rate, window, bands)
    return jnp.log(jnp.maximum(mel, 1e-3))


def _to_mel(hertz: float) -> float:
    return 2595.0 * np.log10(1.0 + hertz / 700.0)
