"""Samples of what libsndfile reads, block by block, and whether it noted that some are missing."""

import contextlib
import functools
import os
import re
import threading
from collections.abc import Iterator

import numpy as np

from rvq_jax.audio.sources import Source
from rvq_jax.errors import UserError

BLOCK = 1 << 16  # samples read at once
# What headers promise when their writer did not know the length (a pipe), up to 2^31 or 2^32.
UNKNOWN_BYTES = 2**31 - 2**16
UNKNOWN_LONG = 2**63 - 2**16
# How libsndfile notes chunks of audio: what they promise, and what there is.
CHUNK = re.compile(
    r"^ *(data|SSND|BODY|riff|Data Size) *: (\d+)(?!\w)(?: \(should be (\d+)\))?", re.MULTILINE
)
# What libsndfile opens too: instruments of samplers, matrices, features.
NO_AUDIO = ("XI", "MAT4", "MAT5", "HTK", "SDS", "MPC2K", "WVE")
NOTES = (
    "Junk after the last page",
    "Seems to be a truncated file",
    "does not match value from 'ds",
)
_stderr = threading.Lock()


@functools.cache
def _stream_class() -> type:
    import soundfile

    class Stream(soundfile.SoundFile):
        """Else it seeks behind each block, which a flac of unknown length cannot."""

        def seekable(self) -> bool:
            return False

    return Stream


def decoded(source: Source, path, seconds: float | None = None) -> tuple[np.ndarray, int]:
    """Samples `[S, C]` and their rate; raises UserError if it is no audio, cut, or not finite, or
    as soon as it is longer than so many seconds."""
    import soundfile

    data, count = bytearray(), 0
    try:
        with _quiet(source), _stream_class()(source.file, closefd=False) as file:
            if file.format in NO_AUDIO:
                raise UserError(f"{path} is no audio but {file.format_info}; remove or replace it")
            rate, channels, log = file.samplerate, file.channels, file.extra_info
            is_long = file.format == "W64"
            while len(block_SC := file.read(BLOCK, dtype="float32", always_2d=True)):
                if not np.isfinite(block_SC).all():
                    where = count + int(np.argwhere(~np.isfinite(block_SC))[0, 0])
                    raise UserError(
                        f"{path} has a NaN or infinite sample at {where}; remove or replace it"
                    )
                # Grows in place, by what was read: a header can promise terabytes.
                data += block_SC.tobytes()
                count += len(block_SC)
                if seconds is not None and count > seconds * rate:
                    raise UserError(f"{path} is longer than {seconds:g} s; take a shorter clip")
    except soundfile.SoundFileError as error:
        reason = str(error).rsplit(":", 1)[-1].strip().rstrip(".")
        raise UserError(
            f"{path} cannot be read as audio ({reason}); remove or replace it"
        ) from None
    if count < source.promised:
        promised = source.promised
        raise UserError(f"{path} is truncated: {count} of {promised} samples; remove or replace it")
    if _ends_early(log, is_long):
        raise UserError(f"{path} is truncated: its header promises more; remove or replace it")
    audio_SC = np.frombuffer(data, np.float32).reshape(-1, channels)
    return audio_SC[source.begin : source.end], rate


@contextlib.contextmanager
def _quiet(source: Source) -> Iterator[None]:
    """Inside, nothing comes to standard error: libmpg123 writes there what it thinks of frames."""
    if source.end is None:  # No MPEG.
        yield
        return
    with _stderr:
        try:
            kept = os.dup(2)
        except OSError:  # There is none.
            yield
            return
        try:
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _ends_early(log: str, is_long: bool) -> bool:
    """Whether libsndfile noted an end before the promised one: most files are read without it."""
    length = re.search(r"^Length : (\d+)", log, re.MULTILINE)
    for found in CHUNK.finditer(log):
        promised = int(found[2])
        present = int(found[3] or (length[1] if length else promised))
        is_known = promised < UNKNOWN_LONG if is_long else promised % 2**31 < UNKNOWN_BYTES
        if present < promised and is_known:
            return True
    return any(note in log for note in NOTES)
