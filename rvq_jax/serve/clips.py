"""What a model makes of a request, with the audio files that came with it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rvq_jax.audio import io, resample
from rvq_jax.errors import UserError, reason_of
from rvq_jax.serve.requests import Request
from rvq_jax.systems.generators import continued, speaks
from rvq_jax.systems.soundstorm import SoundStorm
from rvq_jax.systems.speech import Voice
from rvq_jax.systems.valle import VALLE
from rvq_jax.typing import Audio, Key

CHUNK = 1.0  # seconds that are sent at once


def clip(model, request: Request, key: Key, most: float) -> tuple[Iterator[Audio], dict]:
    """A clip that a request asks for.

    Args:
      model: that is served.
      request: whose fields it takes.
      key: of the draw.
      most: seconds at most, of an audio file and of what is said.

    Returns:
      Audio `[1, s, C]` as it is generated, and of speech whether it `ended` by itself.

    Raises:
      UserError: what does not fit the model; the iterator too.
    """
    if speaks(model):
        audio_SC, ended = said(model, request, key, most)
        return pieces(audio_SC, model.codec.config.rate), {"ended": ended}
    return generated(model, request, key, most), {}


def generated(model, request: Request, key: Key, most: float) -> Iterator[Audio]:
    """The audio of a model that does not speak; arguments and errors as of `clip`."""
    options, files = request.options, request.files
    if "melody" in files:
        channels = model.codec.config.channels
        options["melody"] = read(model, "melody", files["melody"], channels, most)[None]
    if "continue" in files:
        audio_SC = read(model, "continue", files["continue"], model.channels, most)
        try:
            options["prompt"] = continued(model, audio_SC, request.seconds)
        except ValueError as error:
            raise UserError(f"the audio to continue {error}") from error
    try:
        yield from model.stream([request.prompt], request.seconds, key, **options)
    except ValueError as error:
        raise UserError(f"{error}") from error


def said(
    model: VALLE | SoundStorm, request: Request, key: Key, most: float
) -> tuple[np.ndarray, bool]:
    """Audio `[S, C]` of a model that speaks, and whether it ended by itself; arguments and errors
    as of `clip`."""
    options = request.options
    if options.pop("guidance_scale", 1.0) != 1.0:
        raise UserError("this model speaks without guidance; leave guidance_scale at 1")
    for name in ("top_k", "top_p"):
        options[name] = options.get(name) or None  # 0 for all
    voices, config = None, model.codec.config
    window = model.longest
    room = np.inf if window is None else window / config.frame_rate
    if "voice" in request.files:
        audio_SC = read(model, "voice", request.files["voice"], model.channels, most)
        voices = [Voice(audio_SC, request.voice_text)]
        room -= len(audio_SC) / config.rate
    # As long as the model was trained on, if that is no more than a request may have.
    seconds = most if request.seconds is None and room > most else request.seconds
    try:
        found = model.speak([request.prompt], key, voices=voices, seconds=seconds, **options)
    except ValueError as error:
        raise UserError(f"{error}") from error
    return found.audio[0, : found.samples[0]], bool(found.ended[0])


def read(model, name: str, data: bytes, channels: int, most: float) -> Audio:
    """Audio of a file's bytes as a model takes it.

    Args:
      model: whose codec has the rate.
      name: the field that the file came in.
      data: the file.
      channels: that are wanted.
      most: seconds at most.

    Returns:
      Audio `[S, C]`.

    Raises:
      UserError: it is not audio, has other channels, or is longer.
    """
    called = {"continue": "audio to continue"}.get(name, name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        try:
            audio_SC, rate = io.read(path, most)
        except UserError as error:
            raise UserError(f"the {called}: {reason_of(error, path)}") from None
    try:
        return resample.fitted(audio_SC, rate, model.codec.config.rate, channels)
    except ValueError as error:
        raise UserError(f"the {called}: {error}") from None


def pieces(audio_SC: Audio, rate: int) -> Iterator[Audio]:
    """Audio `[1, s, C]` of a second each."""
    size = round(CHUNK * rate)
    for begin in range(0, len(audio_SC), size):
        yield audio_SC[None, begin : begin + size]
