"""What a model says for a request, in the voice of an audio file that came with it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rvq_jax.audio import io, resample
from rvq_jax.errors import UserError, reason_of
from rvq_jax.serve.requests import Request
from rvq_jax.systems.soundstorm import SoundStorm
from rvq_jax.systems.speech import Voice
from rvq_jax.systems.valle import VALLE
from rvq_jax.typing import Audio, Key

CHUNK = 1.0  # seconds that are sent at once


def said(
    model: VALLE | SoundStorm, request: Request, key: Key, most: float
) -> tuple[np.ndarray, bool]:
    """Says a request's text.

    Args:
      model: that speaks.
      request: with a voice or without.
      key: of the draw.
      most: seconds at most, of a voice and of what is said.

    Returns:
      Audio `[S, C]`, and whether it ended by itself.

    Raises:
      UserError: a text or a voice that the model cannot read, and guidance, which it has none of.
    """
    options = request.sampling
    if options.pop("guidance_scale", 1.0) != 1.0:
        raise UserError("this model speaks without guidance; leave guidance_scale at 1")
    for name in ("top_k", "top_p"):
        options[name] = options.get(name) or None  # 0 for all
    voices, config = None, model.codec.config
    window = model.longest
    room = np.inf if window is None else window / config.frame_rate
    if request.voice is not None:
        voices = [Voice(read(model, request.voice, most), request.voice_text)]
        room -= len(voices[0].audio) / config.rate
    # As long as the model was trained on, if that is no more than a request may have.
    seconds = most if request.seconds is None and room > most else request.seconds
    try:
        found = model.speak([request.prompt], key, voices=voices, seconds=seconds, **options)
    except ValueError as error:
        raise UserError(f"{error}") from error
    return found.audio[0, : found.samples[0]], bool(found.ended[0])


def read(model: VALLE | SoundStorm, data: bytes, most: float) -> Audio:
    """Audio `[S, C]` of a file's bytes as the model takes it.

    Raises UserError if it is not audio, has other channels, or is longer than so many seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "voice"
        path.write_bytes(data)
        try:
            audio_SC, rate = io.read(path, most)
        except UserError as error:
            raise UserError(f"the voice: {reason_of(error, path)}") from None
    try:
        return resample.fitted(audio_SC, rate, model.codec.config.rate, model.channels)
    except ValueError as error:
        raise UserError(f"the voice: {error}") from None


def pieces(audio_SC: Audio, rate: int) -> Iterator[Audio]:
    """Audio `[1, s, C]` of a second each."""
    size = round(CHUNK * rate)
    for begin in range(0, len(audio_SC), size):
        yield audio_SC[None, begin : begin + size]
