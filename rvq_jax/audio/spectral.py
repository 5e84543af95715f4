"""Short-time Fourier transform and mel spectrograms, differentiable, over any batch axes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from rvq_jax.typing import Array


def frame(audio: Array, window: int, hop: int) -> Array:
    """Cuts `[..., S]` into overlapping windows `[..., frames, window]`, zero-padded at both ends.

    Frame i is centred on sample i · hop; there are S // hop + 1 frames.
    """
    right = max(0, audio.shape[-1] // hop * hop + window - audio.shape[-1] - window // 2)
    return slide(_pad(audio, window // 2, right), window, hop)


def slide(audio: Array, window: int, hop: int) -> Array:
    """Cuts `[..., S]` into the overlapping windows `[..., frames, window]` that lie inside of it.

    Frame i begins at sample i · hop; there are (S - window) // hop + 1 frames.
    """
    frames, parts = (audio.shape[-1] - window) // hop + 1, -(-window // hop)
    total = (frames + parts - 1) * hop
    blocks = _pad(audio, 0, max(0, total - audio.shape[-1]))[..., :total]
    blocks = blocks.reshape(*audio.shape[:-1], -1, hop)
    # Shifted blocks side by side, not a gather: its gradient would be a slow scatter.
    shifted = [blocks[..., i : i + frames, :] for i in range(parts)]
    return jnp.concatenate(shifted, axis=-1)[..., :window]


def reflect(audio: Array, size: int) -> Array:
    """`[..., S]` with its mirror image at both ends, each `size` samples long."""
    return jnp.pad(audio, [(0, 0)] * (audio.ndim - 1) + [(size, size)], mode="reflect")


def stft(audio: Array, window: int, hop: int) -> Array:
    """Complex spectrum `[..., frames, window // 2 + 1]` of `[..., S]` under a Hann window."""
    return spectrum(frame(audio, window, hop))


def spectrum(frames: Array, window: int | None = None) -> Array:
    """Complex spectrum `[..., frames, size // 2 + 1]` of windows `[..., frames, size]`.

    The Hann window in their middle is `window` samples long, `size` by default.
    """
    size = frames.shape[-1]
    window = size if window is None else window
    left = (size - window) // 2
    shape = np.pad(hann(window), (left, size - window - left))
    return jnp.fft.rfft(frames * shape.reshape((1,) * (frames.ndim - 1) + (size,)), axis=-1)


def hann(window: int) -> np.ndarray:
    """The periodic Hann window `[window]`, float32."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)


def magnitude(spectrum: Array) -> Array:
    """Absolute values, with a gradient of 0 where they are 0."""
    power = spectrum.real**2 + spectrum.imag**2
    heard = power > 0
    return jnp.where(heard, jnp.sqrt(jnp.where(heard, power, 1.0)), 0.0)


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
    mel = np.linspace(_to_mel(low), _to_mel(rate / 2), bands + 2)
    edges = _from_mel(mel) * window / rate
    filters = _triangles(edges, window // 2 + 1)
    nearest = np.clip(np.round(edges[1:-1]).astype(int), 0, window // 2)
    columns = np.arange(bands)
    filters[nearest, columns] = np.where(filters.sum(0) > 0, filters[nearest, columns], 1.0)
    return _shared(filters)


@functools.lru_cache(maxsize=64)
def htk_filters(rate: int, window: int, bands: int, low: float = 0.0) -> np.ndarray:
    """Filters as of `mel_filters`, but triangles between two bins stay empty, as in torchaudio."""
    mel = np.linspace(_to_mel(low), _to_mel(rate / 2), bands + 2)
    return _shared(_triangles(_from_mel(mel) * window / rate, window // 2 + 1))


@functools.lru_cache(maxsize=64)
def slaney_filters(rate: int, window: int, bands: int, low: float = 0.0) -> np.ndarray:
    """Filters as of `mel_filters`, but triangles of one area, some of them empty, as in librosa.

    The scale is linear up to 1 kHz and logarithmic above (Slaney 1998, Auditory Toolbox).
    """
    step = np.log(6.4) / 27.0  # of the logarithmic part, of which 27 lead from 1 to 6.4 kHz
    ends = [f * 0.015 if f < 1000 else 15 + np.log(f / 1000) / step for f in (low, rate / 2)]
    mel = np.linspace(*ends, bands + 2)
    hertz = np.where(mel < 15, mel / 0.015, 1000.0 * np.exp(step * (mel - 15)))
    areas = 2.0 / (hertz[2:] - hertz[:-2])
    return _shared(_triangles(hertz * window / rate, window // 2 + 1) * areas)


@functools.partial(jax.jit, static_argnames=("rate", "window", "hop", "bands"))
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
    scaled = stft(audio, window, hop) * (4.0 / window)
    # The square root has an infinite slope at 0: silence must not give NaN gradients.
    amplitude = jnp.sqrt(jnp.maximum(scaled.real**2 + scaled.imag**2, 1e-10))
    mel = amplitude @ mel_filters(rate, window, bands)
    return jnp.log(jnp.maximum(mel, 1e-3))


def mel_place(hertz: float, rate: int, bands: int) -> float:
    """Where a frequency lies in a picture of mel bands, one above the other.

    Args:
      hertz: the frequency.
      rate: sampling rate in hertz; the highest band ends at half of it.
      bands: number of bands, as of `mel_filters`.

    Returns:
      0 at the foot of the lowest band, 1 at the top of the highest; a band's centre is at the
      middle of its row.
    """
    centre = _to_mel(hertz) / _to_mel(rate / 2) * (bands + 1) - 1
    return (centre + 0.5) / bands


def _pad(audio: Array, left: int, right: int) -> Array:
    return jnp.pad(audio, [(0, 0)] * (audio.ndim - 1) + [(left, right)])


def _triangles(edges: np.ndarray, bins: int) -> np.ndarray:
    """`[bins, bands]`: band i rises from edge i to 1 at edge i + 1 and falls to edge i + 2."""
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    k = np.arange(bins)[:, None]
    rising = (k - left) / np.maximum(centre - left, 1e-9)
    falling = (right - k) / np.maximum(right - centre, 1e-9)
    return np.maximum(0.0, np.minimum(rising, falling))


def _shared(filters: np.ndarray) -> np.ndarray:
    filters = filters.astype(np.float32)
    filters.setflags(write=False)  # all callers share it
    return filters


def _to_mel(hertz: float) -> float:
    return 2595.0 * np.log10(1.0 + hertz / 700.0)


def _from_mel(mel: np.ndarray) -> np.ndarray:
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
