"""Audio files as arrays that codecs take, and back: the two calls of a notebook."""

from pathlib import Path

import numpy as np

from rvq_jax.audio import io, resample
from rvq_jax.errors import UserError
from rvq_jax.typing import Array

MARGIN = 1.0  # seconds beyond a cut that the resampler still sees; it hears a few hundredths


def load_audio(
    path: str | Path,
    rate: int | None = None,
    channels: int | None = None,
    seconds: float | None = None,
) -> tuple[np.ndarray, int]:
    """Reads an audio file: wav, flac, ogg, mp3 and their kin.

    Args:
      path: the file.
      rate: samples per second that it is resampled to; its own for None.
      channels: that it is mixed to, one or, from one, any; its own for None.
      seconds: of its beginning, at most; all for None.

    Returns:
      Samples `[S, C]` float32 in [-1, 1], and their rate.

    Raises:
      UserError: what is not there, is no audio, or cannot be mixed.
      ValueError: a rate, channels or seconds below what there can be.
    """
    for name, value in (("rate", rate), ("channels", channels), ("seconds", seconds)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")
    audio_SC, own = io.read(path)
    rate, channels = rate or own, channels or audio_SC.shape[1]
    if seconds is not None:
        audio_SC = audio_SC[: round((seconds + MARGIN) * own)]
    try:
        audio_SC = resample.fitted(audio_SC, own, rate, channels)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return audio_SC if seconds is None else audio_SC[: max(1, round(seconds * rate))], rate


def save_audio(path: str | Path, audio: Array, rate: int) -> None:
    """Writes audio `[S, C]`, or `[S]`, or `[1, S, C]` of a batch, whole or not at all.

    It is clipped to [-1, 1], in 16 bits where the format has them. Raises UserError for a suffix
    other than .wav, .flac, .ogg and .mp3 or a place that cannot be written to, ValueError for other
    shapes.
    """
    given = np.asarray(audio)
    audio = given[:, None] if given.ndim == 1 else given
    audio = audio[0] if audio.ndim == 3 and len(audio) == 1 else audio
    if audio.ndim != 2:
        raise ValueError(f"audio must be [S, C], [S] or [1, S, C], got shape {given.shape}")
    io.write(path, audio, rate)
