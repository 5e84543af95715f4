"""Chromagrams: which pitch class is strongest in each frame, the melody MusicGen is given."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from rvq_jax.audio import spectral
from rvq_jax.typing import Array, Audio

WINDOW = 16_384
HOP = WINDOW // 4


def chroma(audio: Audio, rate: int, bins: int = 12) -> Array:
    """The strongest pitch class of each frame, one-hot `[B, P, bins]` float32, C first.

    Audio `[B, S, C]` is averaged over its channels; P = S // 4096 + 1 at any rate, and 5 for audio
    shorter than a window of 16,384 samples. Silent frames count as C. Raises ValueError if audio is
    empty or not `[B, S, C]`. The condition of MusicGen-melody, at 32 kHz (Copet et al. 2023).
    """
    if audio.ndim != 3 or 0 in audio.shape:
        raise ValueError(f"audio must be [B, S, C] and not empty, it is {list(audio.shape)}")
    audio_BS = jnp.asarray(audio, jnp.float32).mean(axis=-1)
    short = max(0, WINDOW - audio_BS.shape[1])
    audio_BS = jnp.pad(audio_BS, [(0, 0), (short // 2, short - short // 2)])
    audio_BS = jnp.pad(audio_BS, [(0, 0), (WINDOW // 2, WINDOW // 2)], mode="reflect")
    # Frames centred in the reflections, two hops at each end, are not of the audio.
    spectrum = spectral.stft(audio_BS, WINDOW, HOP)[:, 2:-2]
    power = spectrum.real**2 + spectrum.imag**2
    # MusicGen also divides by the window's energy, one constant, and each frame's classes by their
    # largest. Neither moves the argmax.
    strength = jnp.matmul(power, chroma_filters(rate, WINDOW, bins).T, precision="highest")
    return jax.nn.one_hot(strength.argmax(axis=-1), bins)


def fit(chroma_BPN: Array, frames: int = 235) -> Array:
    """Exactly `frames` frames `[B, frames, bins]`: cut, or repeated from the start.

    235 are the 30 seconds MusicGen-melody was trained on. Raises ValueError for no frames.
    """
    if chroma_BPN.shape[1] == 0:
        raise ValueError("there are no frames to repeat")
    return chroma_BPN[:, np.arange(frames) % chroma_BPN.shape[1]]


@functools.lru_cache(maxsize=8)
def chroma_filters(rate: int, n_fft: int, bins: int = 12) -> np.ndarray:
    """Weights `[bins, n_fft // 2 + 1]`, float32, of frequencies in pitch classes; A is 440 Hz.

    A Gaussian around each class, two deviations a class wide or one frequency where those are
    further apart; each column of unit norm, then weighted by a Gaussian of two octaves around
    880 Hz. The same as librosa's `filters.chroma` (Ellis 2007, "Chroma feature analysis and
    synthesis").
    """
    octave = np.log2(np.arange(1, n_fft // 2 + 2) * (rate / n_fft) / 27.5)
    # 0 Hz has no pitch: by convention an octave and a half below the first frequency.
    octave = np.concatenate([octave[:1] - 1.5, octave])
    width = np.maximum(bins * np.diff(octave), 1.0)
    octave = octave[:-1]
    away = bins * octave[None] - np.arange(bins)[:, None]
    away = (away + bins / 2) % bins - bins / 2  # by the shorter way round the circle
    filters = np.exp(-2.0 * (away / width[None]) ** 2)
    filters /= np.sqrt((filters**2).sum(axis=0, keepdims=True))
    filters *= np.exp(-0.5 * ((octave - 5.0) / 2.0) ** 2)[None]
    filters = np.roll(filters, -3 * (bins // 12), axis=0).astype(np.float32)  # from A to C
    filters.setflags(write=False)
    return filters
