"""Generated audio, to files or a pipe: prompts in batches, audio written as it is generated."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from rvq_jax import files, progress
from rvq_jax.audio import io
from rvq_jax.errors import UserError
from rvq_jax.lm import decode
from rvq_jax.offline import encode_file
from rvq_jax.offline.encode_file import PIPE
from rvq_jax.systems.generators import Generator, continued
from rvq_jax.systems.soundstorm import SoundStorm
from rvq_jax.typing import Array, Audio, Key

WHOLE = 2.0  # seconds up to which audio is made by one program; beyond, piece by piece
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} s [{elapsed}<{remaining}]"

Captions = Sequence[str] | dict[str, np.ndarray]


def generate_files(
    model: Generator,
    captions: Captions,
    targets: Sequence[str | Path],
    seconds: float,
    key: Key,
    *,
    batch: int = 8,
    stream: bool = False,
    **options,
) -> int:
    """Generates audio from captions and writes each to its file.

    Args:
      model: token model with a codec.
      captions: as `read_captions` gives them.
      targets: audio files, one per caption, each of which appears whole or not at all; or one `-`
        for .wav on standard output.
      seconds: length of the audio of each caption.
      key: one key, from which every caption's is folded, or one key for each.
      batch: captions sampled together, which does not change the result.
      stream: write audio as it is generated, also to a pipe.
      options: of the model's `generate`: how it samples, a prompt `[1, S, C]` that every clip
        continues, a melody `[1, S, C]` that it follows; the model's own for those left out.

    Returns:
      Number of samples of the audio of each caption.

    Raises:
      UserError: when a target cannot be written to.
      ValueError: when `seconds` or an option does not fit the model.
    """
    rows, samples = len(targets), samples_of(model, seconds)
    keys, size = decode.row_keys(key, rows), min(batch, rows)
    begins = range(0, rows, size)
    bar = progress.bar(total=len(begins) * seconds, desc="generate", bar_format=BAR, delay=2)
    with bar:
        for begin in begins:
            # What fills the last batch is a copy: it costs nothing to compile.
            at = np.minimum(np.arange(begin, begin + size), rows - 1)
            pieces = _pieces(model, _rows(captions, at), seconds, keys[at], stream, options)
            with contextlib.ExitStack() as stack:
                opened = [
                    stack.enter_context(_opened(target, model, samples, stream))
                    for target in targets[begin : begin + size]
                ]
                for audio in _compiled(pieces, model):
                    for add, audio_SC in zip(opened, audio, strict=False):
                        add(audio_SC)
                    bar.update(audio.shape[1] / model.codec.config.rate)
    return samples


def read_captions(model: Generator, prompts: Sequence[str]) -> tuple[Captions, list[str]]:
    """Prompts as the model's own text encoder takes them, and a line for each that is cut."""
    if model.text is None:
        limit, lines = caption_bytes(model), []
        for i, prompt in enumerate(prompts):
            if len(prompt.encode()) > limit:
                size = f"{len(prompt.encode())} bytes and is cut to {limit}"
                lines.append(f"prompt {i} ({prompt[:40]!r}...) has {size}")
        return prompts, lines
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ids, mask = model.text.tokens(prompts)
    return {"input_ids": ids, "attention_mask": mask}, [f"{w.message}" for w in caught]


def caption_bytes(model: Generator) -> int:
    """Longest caption that a model without a text encoder reads."""
    return model.caption_bytes if isinstance(model, SoundStorm) else model.config.caption_bytes


def samples_of(model: Generator, seconds: float) -> int:
    """How long audio of so many seconds is: whole frames."""
    return int(model.frames(seconds)) * model.codec.config.hop


def read_prompt(model: Generator, path: str | Path, seconds: float) -> np.ndarray:
    """Audio `[1, S, C]` of a file that is to be continued, in whole frames; raises UserError."""
    audio_SC = encode_file.read_audio(model.codec, path, model.channels)
    try:
        return continued(model, audio_SC, seconds)
    except ValueError as error:
        raise UserError(f"{path} {error}".replace("the seconds", "--seconds")) from error


def _pieces(
    model: Generator, captions: Captions, seconds: float, keys: Key, stream: bool, options: dict
) -> Iterator[Audio]:
    """The audio in turn; in one piece where that is all there can be, or is soon there."""
    if model.codec.config.segment or (seconds <= WHOLE and not stream):
        yield model.generate(captions, seconds, keys, **options)
        return
    yield from model.stream(captions, seconds, keys, **options)


def _compiled(pieces: Iterator[Audio], model: Generator) -> Iterator[Audio]:
    with progress.compiling("the first batch", repr(model)):
        first = next(pieces, None)
    if first is not None:
        yield first
    yield from pieces


def _rows(captions: Captions, at: np.ndarray) -> Captions:
    if isinstance(captions, dict):
        return {name: array[at] for name, array in captions.items()}
    return [captions[i] for i in at]


@contextlib.contextmanager
def _opened(
    target: str | Path, model: Generator, samples: int, stream: bool
) -> Iterator[Callable[[Array], None]]:
    """A function that adds `[S, C]` to what is written."""
    rate = model.codec.config.rate
    if str(target) != PIPE:
        with io.writing(target, rate, model.channels, samples) as add:
            yield add
    elif stream:
        encode_file.to_pipe(io.wav_header(rate, model.channels, samples))
        yield lambda audio_SC: encode_file.to_pipe(io.pcm16(audio_SC))
    else:
        with files.temporary() as folder:
            with io.writing(folder / "out.wav", rate, model.channels, samples) as add:
                yield add
            encode_file.to_pipe((folder / "out.wav").read_bytes())
