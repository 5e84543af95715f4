"""Audio files, through soundfile: wav, flac, ogg, mp3."""

import contextlib
import io as memory
import re
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from rvq_jax import files
from rvq_jax.errors import UserError
from rvq_jax.typing import Array

BLOCK = 1 << 16  # samples written at once
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
# What wav headers promise when their writer did not know the length (a pipe): not a promise.
UNKNOWN_BYTES = 2**31 - 2**16


def read(path: str | Path) -> tuple[np.ndarray, int]:
    """Samples `[S, C]` float32 in [-1, 1] of a file, and its rate in hertz.

    Raises UserError if it is not there, is not audio, is cut short, is empty, or holds NaN or
    infinite samples. An ogg that ends between two pages cannot be told from a whole one.
    """
    import soundfile

    if not Path(path).is_file():
        raise UserError(f"{path} is not there; check the name")
    try:
        with soundfile.SoundFile(path) as file:
            promised, rate, log = file.frames, file.samplerate, file.extra_info
            audio_SC = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        reason = str(error).rsplit(":", 1)[-1].strip().rstrip(".")
        raise UserError(f"{path} cannot be read as audio ({reason}); remove or replace it") from (
            error
        )
    # A flac that ends early is read without complaint up to where it ends.
    if 0 < promised < 2**62 and len(audio_SC) < promised:
        raise UserError(
            f"{path} is truncated: {len(audio_SC)} of {promised} samples; remove or replace it"
        )
    if _ends_early(log):
        raise UserError(f"{path} is truncated: its header promises more; remove or replace it")
    if len(audio_SC) == 0:
        raise UserError(f"{path} has no samples; remove it")
    if not np.isfinite(audio_SC).all():
        where = int(np.argwhere(~np.isfinite(audio_SC))[0, 0])
        raise UserError(f"{path} has a NaN or infinite sample at {where}; remove or replace it")
    return audio_SC, rate


def write(path: str | Path, audio_SC: Array, rate: int) -> None:
    """Writes `[S, C]`, clipped to [-1, 1], in the format of the suffix, whole or not at all.

    Raises UserError for an unknown suffix or a place that cannot be written to.
    """
    audio_SC = np.asarray(audio_SC)
    with writing(path, rate, audio_SC.shape[1]) as add:
        add(audio_SC)


@contextlib.contextmanager
def writing(path: str | Path, rate: int, channels: int) -> Iterator[Callable[[Array], None]]:
    """A function that adds `[S, C]` to a file, which is there, whole, when the block ends.

    If it ends with an error there is none. Clips and raises UserError as `write`.
    """
    import soundfile

    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: cannot write {path.suffix or 'no suffix'}; use .wav, .flac, .ogg")
    with files.writing(path) as target:
        try:
            with soundfile.SoundFile(target, "w", rate, channels) as file:

                def add(audio_SC: Array) -> None:
                    audio_SC = np.clip(np.asarray(audio_SC), -1.0, 1.0)
                    # The encoder of ogg takes its whole input on its stack.
                    for first in range(0, len(audio_SC), BLOCK):
                        file.write(audio_SC[first : first + BLOCK])

                yield add
        except soundfile.SoundFileError as error:
            raise OSError(f"{error}") from error


def wav_header(rate: int, channels: int, samples: int) -> bytes:
    """What begins a wav of 16 bits that is sent on before it is whole; `pcm16` gives the rest."""
    # Its numbers have 32 bits; a length beyond them is as good as unknown.
    samples = min(samples, (2**32 - 1 - 36) // (2 * channels))
    buffer = memory.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((channels, 2, rate, samples, "NONE", ""))
        file.writeframesraw(b"")
        # Closing it would write the length of what was written.
        return buffer.getvalue()


def pcm16(audio_SC: Array) -> bytes:
    """`[S, C]`, clipped to [-1, 1], as a wav of 16 bits holds it."""
    scaled_SC = np.clip(np.asarray(audio_SC, np.float32), -1.0, 1.0) * 32767
    return np.round(scaled_SC).astype("<i2").tobytes()


def _ends_early(log: str) -> bool:
    """Whether libsndfile noted an end before the promised one; wav and ogg are read without it."""
    data = re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if data:
        promised, present = map(int, data.groups())
        return present < promised < UNKNOWN_BYTES
    return "Junk after the last page" in log
