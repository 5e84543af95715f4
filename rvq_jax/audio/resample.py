"""Changing rate and channels, so that a dataset has one of each."""

import numpy as np

from rvq_jax.typing import Array


def to_rate(audio_SC: Array, rate: int, new_rate: int) -> np.ndarray:
    """`[S, C]` at another rate, by soxr's high-quality band-limited resampler."""
    if rate == new_rate:
        return np.asarray(audio_SC, np.float32)
    import soxr

    return soxr.resample(np.asarray(audio_SC, np.float32), rate, new_rate)


def to_channels(audio_SC: Array, channels: int) -> np.ndarray:
    """`[S, C]` with another number of channels: their mean to mono, repeated from mono.

    Raises ValueError for other changes, which have no one right answer.
    """
    have = audio_SC.shape[1]
    if have == channels:
        return np.asarray(audio_SC)
    mono_S1 = np.mean(audio_SC, axis=1, keepdims=True)
    if channels == 1 or have == 1:
        return np.repeat(mono_S1, channels, axis=1)
    raise ValueError(f"cannot mix {have} channels to {channels}")


def fitted(audio_SC: Array, rate: int, new_rate: int, channels: int) -> np.ndarray:
    """Audio of a file as a model takes it.

    Args:
      audio_SC: `[S, C]`.
      rate: of it, in hertz.
      new_rate: of the model.
      channels: of the model.

    Returns:
      `[S, C]` of that rate and so many channels; at least one sample.

    Raises:
      ValueError: channels that cannot be mixed to these (see `to_channels`).
    """
    audio_SC = to_channels(audio_SC, channels)
    resampled_SC = to_rate(audio_SC, rate, new_rate)
    # Too short for the resampler to give anything.
    return resampled_SC if len(resampled_SC) else audio_SC[:1]
