"""Audio files, through soundfile: wav, flac, ogg, mp3 and their kin."""

import contextlib
import io as memory
import os
import stat
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from rvq_jax import files
from rvq_jax.audio.decode import decoded
from rvq_jax.audio.sources import sources
from rvq_jax.errors import UserError, reading
from rvq_jax.typing import Array

BLOCK = 1 << 16  # samples written at once
WRITTEN = (".wav", ".flac", ".ogg", ".mp3")
SUFFIXES = (*WRITTEN, ".wave", ".oga", ".opus", ".mp2", ".aiff", ".aif", ".aifc", ".au", ".snd")
SUFFIXES += (".w64", ".rf64", ".caf", ".voc")
# Audio that libsndfile does not read: passed over in silence, it would be missed.
UNREAD = (".m4a", ".mp4", ".m4b", ".aac", ".alac", ".wma", ".webm", ".mka", ".ape", ".wv", ".mpc")
UNREAD += (".tta", ".amr", ".3gp", ".ac3", ".dts", ".dsf", ".dff", ".ra", ".spx", ".shn")
LOWEST = 100  # hertz; below it lie damaged headers, and resampling would make a flood of samples
WAV_BYTES = 2**32 - 2**16  # that a wav of numbers of 32 bits has room for


def read(path: str | Path, seconds: float | None = None) -> tuple[np.ndarray, int]:
    """Reads an audio file whole, by what is in it and not by what its header promises.

    mp3: the samples of every MPEG frame, also of files joined and of those whose header counts too
    few, without the delay and the padding that a LAME or FFmpeg header states: as many as `ffmpeg`
    gives (see `mpeg.stream_of`), but that a frame behind a tag or junk within is kept. flac, wav
    and au of unknown length are read to their end, and of an ogg all streams that follow one
    another. Memory is that of the samples which are there.

    Args:
      path: file of any of `SUFFIXES`; its content says its format.
      seconds: that each of its streams has at most; any for None.

    Returns:
      Samples `[S, C]` float32 in [-1, 1], and the rate in hertz.

    Raises:
      UserError: when the file is not there, is not audio, is cut short, is empty, is longer than it
        may be, has a rate below that of sound, or holds NaN or infinite samples. An ogg that ends
        between two pages cannot be told from a whole one.
    """
    _check_file(path)
    with reading(path, "audio", "remove or replace it"), open(path, "rb", buffering=0) as raw:
        parts = [decoded(source, path, seconds) for source in sources(raw, path)]
        if len({(audio_SC.shape[1], rate) for audio_SC, rate in parts}) > 1:
            raise UserError(f"{path} changes its rate or channels; convert its parts apart")
        audio_SC, rate = parts[0]
        if len(parts) > 1:
            audio_SC = np.concatenate([audio_SC for audio_SC, _ in parts])
        if len(audio_SC) == 0:
            size = raw.seek(0, os.SEEK_END)
            raise UserError(f"{path} has no samples by its header, in {size} bytes; remove it")
    if rate < LOWEST:
        raise UserError(
            f"{path} has a rate of {rate} Hz, which is no audio's; set its header right"
        )
    return audio_SC, rate


def _check_file(path: str | Path) -> None:
    """Raises UserError for what is no file that ends: a pipe would keep its reader waiting."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        link = " (a link that leads nowhere)" if os.path.islink(path) else ""
        raise UserError(f"{path} is not there{link}; check the name") from None
    if stat.S_ISDIR(mode):
        raise UserError(f"{path} is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is a pipe or a device; give a file")
    if os.fspath(path).lower().endswith(UNREAD):
        raise UserError(f"{path} is of a format that cannot be read; convert it to .flac")


def write(path: str | Path, audio_SC: Array, rate: int) -> None:
    """Writes `[S, C]`, clipped to [-1, 1], in the format of the suffix, whole or not at all.

    A .wav of more than 4 GiB is an RF64, the wav of numbers of 64 bits. Raises UserError for an
    unknown suffix or a place that cannot be written to.
    """
    audio_SC = np.asarray(audio_SC)
    samples, channels = audio_SC.shape
    with writing(path, rate, channels, samples) as add:
        add(audio_SC)


@contextlib.contextmanager
def writing(
    path: str | Path, rate: int, channels: int, samples: int = 0
) -> Iterator[Callable[[Array], None]]:
    """A function that adds `[S, C]` to a file, which is there, whole, when the block ends.

    If it ends with an error there is none. Clips and raises UserError as `write`.

    Args:
      path: the file; its suffix says its format.
      rate: samples per second.
      channels: C.
      samples: how many will be added, for a .wav that may need an RF64's header; 0 for fewer than
        4 GiB hold, beyond which a .wav is then refused.
    """
    import soundfile

    path = Path(path)
    if path.suffix.lower() not in WRITTEN:
        raise UserError(f"{path}: cannot write {path.suffix or 'no suffix'}; use .wav, .flac, .ogg")
    is_wav, width = path.suffix.lower() == ".wav", 2 * channels
    is_long = is_wav and width * samples > WAV_BYTES
    kind = {"format": "RF64", "subtype": "PCM_16"} if is_long else {}
    with files.writing(path) as target:
        try:
            with soundfile.SoundFile(os.fsencode(target), "w", rate, channels, **kind) as file:
                added = 0

                def add(audio_SC: Array) -> None:
                    nonlocal added
                    added += len(audio_SC)
                    if is_wav and not is_long and width * added > WAV_BYTES:
                        raise UserError(f"{path} passes the 4 GiB of a wav; use .flac")
                    # The encoder of ogg takes its whole input on its stack.
                    for first in range(0, len(audio_SC), BLOCK):
                        block_SC = np.asarray(audio_SC[first : first + BLOCK])
                        file.write(np.clip(block_SC, -1.0, 1.0))

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
