"""Audio files ↔ files of codes, one by one or streamed through standard input and output."""

import io as memory
import sys
import tempfile
from pathlib import Path

import numpy as np

from rvq_jax import files
from rvq_jax.audio import io, resample
from rvq_jax.convert import dac_file
from rvq_jax.errors import UserError
from rvq_jax.offline import dac_chunks, read_write
from rvq_jax.systems.codec import Codec, Coded

PIPE = "-"
CODES = (".rvq", ".ecdc", ".dac")
LONG = 30.0  # seconds from which on audio is coded in steps
CHUNK = 10.0  # seconds of such a step


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

    `-` is standard input or output. levels, kbps: as `Codec.encode` takes them. entropy: whether
    codes are entropy coded, or only packed. chunk: seconds per step of long audio. Returns what
    was written. Raises UserError for a file that is no audio, levels or kbps that the codec has
    not, another suffix than .rvq, or a place that cannot be written to.
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

    `-` is standard input (.rvq) or output (.wav). levels: a prefix of the file's. Returns samples
    and rate. Raises UserError for a file that is damaged or of another codec, levels that it has
    not, a suffix that is no audio's, or a place that cannot be written to.
    """
    check_target(target, io.SUFFIXES)
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
        return
    if Path(target).is_dir():
        raise UserError(f"{target} is a folder; name a file in it")
    if Path(target).suffix.lower() not in suffixes:
        said = Path(target).suffix or "no suffix"
        raise UserError(f"{target}: cannot write {said}; use {', '.join(suffixes)}")


def check_source(source: str | Path) -> None:
    """Raises UserError if it is no file of codes by its name."""
    if str(source) != PIPE and Path(source).suffix.lower() not in CODES:
        said = Path(source).suffix or "no suffix"
        raise UserError(f"{source}: cannot decode {said}; codes are {', '.join(CODES)} files")


def read_audio(codec: Codec, source: str | Path, channels: int | None = None) -> np.ndarray:
    """Audio `[S, C]` of a file at the codec's rate and channels, or others; raises UserError."""
    if str(source) == PIPE:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "standard input"
            path.write_bytes(sys.stdin.buffer.read())
            try:
                audio_SC, rate = io.read(path)
            except UserError as error:
                raise UserError(f"{error}".replace(f"{path}", path.name)) from error
    else:
        audio_SC, rate = io.read(source)
    config, channels = codec.config, channels or codec.config.channels
    try:
        audio_SC = resample.to_channels(audio_SC, channels)
    except ValueError as error:
        raise UserError(f"{source}: {error}; give a file of 1 or {channels}") from error
    resampled_SC = resample.to_rate(audio_SC, rate, config.rate)
    # Too short for the resampler to give anything.
    return resampled_SC if len(resampled_SC) else audio_SC[:1]


def encode(codec: Codec, audio_SC: np.ndarray, levels: int, chunk: float = CHUNK) -> Coded:
    """The codes of one item, in steps if it is long."""
    is_long = len(audio_SC) > LONG * codec.config.rate
    return codec.encode(audio_SC[None], levels, chunk=chunk if is_long else None)


def decode(
    codec: Codec, source: str | Path, hash: bytes, levels: int | None, chunk: float = CHUNK
) -> tuple[np.ndarray, int]:
    """Audio `[S, C]` of a file of codes, in steps if it is long, and its rate."""
    if Path(source).suffix.lower() == ".dac":
        return dac_chunks.decode(codec, dac_file.read(source), source, levels, chunk)
    file = sys.stdin.buffer if str(source) == PIPE else Path(source)
    coded = read_write.read(file, codec, hash, levels)
    is_long = coded.samples > LONG * codec.config.rate
    audio_BSC = codec.decode(coded, chunk=chunk if is_long else None)
    return np.asarray(audio_BSC[0]), codec.config.rate


def save(codec: Codec, coded: Coded, target: str | Path, hash: bytes, entropy: bool) -> None:
    """Writes one item to an .rvq file or to standard output."""
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
    with tempfile.TemporaryDirectory() as folder:
        io.write(Path(folder) / "out.wav", audio_SC, rate)
        to_pipe((Path(folder) / "out.wav").read_bytes())


def to_pipe(data: bytes) -> None:
    """Writes standard output; raises UserError if nobody reads it."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise UserError(f"cannot write standard output: {error.strerror or error}") from error
