"""Audio files ↔ files of codes, one by one or streamed through standard input and output."""

import io as memory
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rvq_jax import files, progress
from rvq_jax.audio import io, resample
from rvq_jax.convert import dac_file
from rvq_jax.errors import UserError, reading
from rvq_jax.offline import dac_chunks, read_write
from rvq_jax.systems.codec import Codec, Coded

PIPE = "-"
CODES = (".rvq", ".ecdc", ".dac")
LONG = 30.0  # seconds from which on audio is coded in steps
CHUNK = 10.0  # seconds of such a step
START = 1 << 20  # bytes of a pipe that tell audio from what is none
LONGEST = 1 << 32  # bytes of audio from a pipe: what a wav can state
UNRECOGNISED = 1  # libsndfile's code for no audio


def encode_file(
    codec: Codec,
    source: str | Path,
    target: str | Path,
    *,
    levels: int | None = None,
    kbps: float | None = None,
    entropy: bool = True,
    chunk: float = CHUNK,
) -> Coded:
    """Encodes an audio file of any rate and channels to an .rvq file, whole or not at all.

    Args:
      codec: codec to encode with.
      source: the audio file; `-` for standard input.
      target: the .rvq file; `-` for standard output.
      levels: number of first levels to encode; None for all, or to go by `kbps`.
      kbps: bandwidth in kilobits per second, which takes as many levels as fit into it; None to go
        by `levels`. Only one of the two may be given.
      entropy: whether codes are entropy coded, or only packed.
      chunk: seconds per step of long audio.

    Returns:
      The codes that were written.

    Raises:
      UserError: when `source` is no audio, the codec does not offer such levels or kbps, or
        `target` has another suffix than .rvq or cannot be written to.
    """
    levels = levels_of(codec, levels, kbps)
    check_target(target, (".rvq",))
    coded = encode(codec, read_audio(codec, source), levels, chunk)
    save(codec, coded, target, codec.fingerprint(), entropy)
    return coded


def decode_file(
    codec: Codec,
    source: str | Path,
    target: str | Path,
    *,
    levels: int | None = None,
    chunk: float = CHUNK,
) -> tuple[int, int]:
    """Decodes an .rvq, .ecdc or .dac file to audio of exactly the length that was encoded.

    Args:
      codec: codec that made the file.
      source: the file of codes; `-` for .rvq from standard input.
      target: the audio file, whose suffix says its format; `-` for .wav to standard output.
      levels: number of first levels to decode; None for all that the file has.
      chunk: seconds per step of long audio.

    Returns:
      Number of samples, and rate in samples per second, of the audio.

    Raises:
      UserError: when `source` is damaged, of another codec, or has fewer levels than asked for, or
        `target` has a suffix that is no audio's or cannot be written to.
    """
    check_target(target, io.WRITTEN)
    check_source(source)
    audio_SC, rate = decode(codec, source, codec.fingerprint(), levels, chunk)
    write_audio(target, audio_SC, rate)
    return len(audio_SC), rate


def levels_of(codec: Codec, levels: int | None, kbps: float | None) -> int:
    """As `Codec.levels_of`, with UserError."""
    try:
        return codec.levels_of(levels, kbps)
    except ValueError as error:
        raise UserError(f"{error}") from error


def check_target(target: str | Path, suffixes: tuple[str, ...]) -> None:
    """Raises UserError if no file with one of the suffixes can be there."""
    if str(target) == PIPE:
        if sys.stdout is None:
            raise UserError("standard output is closed; name a file")
        return
    if Path(target).suffix.lower() not in suffixes and not Path(target).is_dir():
        said = Path(target).suffix or "no suffix"
        raise UserError(f"{target}: cannot write {said}; use {', '.join(suffixes)}")
    files.check_file(target)


def check_source(source: str | Path) -> None:
    """Raises UserError if it is no file of codes by its name."""
    if str(source) != PIPE and Path(source).suffix.lower() not in CODES:
        said = Path(source).suffix or "no suffix"
        raise UserError(f"{source}: cannot decode {said}; codes are {', '.join(CODES)} files")


def read_audio(codec: Codec, source: str | Path, channels: int | None = None) -> np.ndarray:
    """Audio `[S, C]` of a file at the codec's rate and channels, or others; raises UserError."""
    if str(source) == PIPE:
        audio_SC, rate = _audio_of_pipe(from_pipe())
    else:
        audio_SC, rate = io.read(source)
    channels = channels or codec.config.channels
    try:
        return resample.fitted(audio_SC, rate, codec.config.rate, channels)
    except ValueError as error:
        raise UserError(f"{source}: {error}; give a file of 1 or {channels}") from error


def encode(codec: Codec, audio_SC: np.ndarray, levels: int, chunk: float = CHUNK) -> Coded:
    """Encodes one item, in steps if it is longer than `LONG` seconds.

    Args:
      codec: codec to encode with.
      audio_SC: `[S, C]` at the codec's rate.
      levels: number of first levels to encode.
      chunk: seconds per step of long audio.

    Returns:
      Codes of a batch of one.

    Raises:
      ValueError: when the audio or levels do not fit the codec.
    """
    is_long = len(audio_SC) > LONG * codec.config.rate
    with progress.compiling("encoding", repr(codec)):
        return codec.encode(audio_SC[None], levels, chunk=chunk if is_long else None)


def decode(
    codec: Codec, source: str | Path, hash: bytes, levels: int | None, chunk: float = CHUNK
) -> tuple[np.ndarray, int]:
    """Decodes a file of codes, in steps if its audio is long.

    Args:
      codec: codec that made the file.
      source: an .rvq, .ecdc or .dac file; `-` for .rvq from standard input.
      hash: the codec's `fingerprint`, to which that of an .rvq file is compared.
      levels: number of first levels to decode; None for all that the file has.
      chunk: seconds per step of long audio.

    Returns:
      Audio `[S, C]`, and its rate in samples per second: the codec's, or of a .dac file that of the
      audio before encoding.

    Raises:
      UserError: when the file is damaged, of another codec, or has fewer levels than asked for.
    """
    if Path(source).suffix.lower() == ".dac":
        return dac_chunks.decode(codec, dac_file.read(source), source, levels, chunk)
    file = from_pipe() if str(source) == PIPE else Path(source)
    coded = read_write.read(file, codec, hash, levels)
    is_long = coded.samples > LONG * codec.config.rate
    with progress.compiling("decoding", repr(codec)):
        audio_BSC = codec.decode(coded, chunk=chunk if is_long else None)
    return np.asarray(audio_BSC[0]), codec.config.rate


def save(codec: Codec, coded: Coded, target: str | Path, hash: bytes, entropy: bool) -> None:
    """Writes one item to an .rvq file or to standard output.

    Args:
      codec: codec that made the codes.
      coded: codes of a batch of one.
      target: file to write, whole or not at all; `-` for standard output.
      hash: the codec's `fingerprint`, which is kept in the file.
      entropy: whether codes are entropy coded, or only packed.

    Raises:
      UserError: when `target` cannot be written to.
    """
    if str(target) == PIPE:
        buffer = memory.BytesIO()
        read_write.write(buffer, codec, coded, hash, entropy)
        to_pipe(buffer.getvalue())
        return
    with files.writing(target) as path, path.open("wb") as file:
        read_write.write(file, codec, coded, hash, entropy)


def write_audio(target: str | Path, audio_SC: np.ndarray, rate: int) -> None:
    """Writes an audio file, or wav to standard output."""
    if str(target) != PIPE:
        io.write(target, audio_SC, rate)
        return
    with files.temporary() as folder:
        io.write(folder / "out.wav", audio_SC, rate)
        to_pipe((folder / "out.wav").read_bytes())


def from_pipe() -> BinaryIO:
    """Standard input; raises UserError if it is closed."""
    if sys.stdin is None:
        raise UserError("standard input is closed; name a file, or send one in")
    return sys.stdin.buffer


def read_pipe(most: int) -> bytes:
    """All of standard input; raises UserError if it is longer than so many bytes or unreadable."""
    data = _part(from_pipe(), most + 1)
    if len(data) > most:
        raise UserError(f"standard input is longer than {most} bytes; send less in, or name a file")
    return data


def _part(pipe: BinaryIO, size: int) -> bytes:
    with reading("standard input", "data", "send a file in"):
        return pipe.read(size)


def _audio_of_pipe(pipe: BinaryIO) -> tuple[np.ndarray, int]:
    """As `io.read`. What begins as no audio does is not waited for: it may have no end."""
    with files.temporary() as folder:
        path = folder / "standard input"
        try:
            with path.open("wb") as file:
                part, written = _part(pipe, START), 0
                _check_begins(part)
                while part:
                    written += len(part)
                    if written > LONGEST:
                        raise UserError(f"{path} is longer than {LONGEST} bytes; name a file")
                    file.write(part)
                    part = _part(pipe, START)
            return io.read(path)
        except UserError as error:
            raise UserError(f"{error}".replace(f"{path}", path.name)) from error


def _check_begins(part: bytes) -> None:
    """Raises UserError if audio does not begin so."""
    import soundfile

    try:
        soundfile.SoundFile(memory.BytesIO(part)).close()
    except soundfile.LibsndfileError as error:
        # Tags before an mp3 may be long.
        if error.code == UNRECOGNISED and not part.startswith(b"ID3"):
            raise UserError(
                f"standard input cannot be read as audio ({error.error_string.rstrip('.')}); "
                "send a wav, flac, ogg or mp3 in"
            ) from error


def to_pipe(data: bytes) -> None:
    """Writes standard output; raises UserError if nobody reads it."""
    if sys.stdout is None:
        raise UserError("standard output is closed; name a file")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise UserError(f"cannot write standard output: {error.strerror or error}") from error
