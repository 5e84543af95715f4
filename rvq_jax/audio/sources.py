"""What is given to libsndfile of an audio file, so that it reads all samples, not those promised.

Its numbers of samples are those of a header, and it reads no more. Where the header can be wrong,
it gets bytes without a number, which it reads to their end.
"""

import io
import itertools
import os
import re
from dataclasses import dataclass
from typing import BinaryIO

from rvq_jax.audio import mpeg

ENDLESS = 1 << 40  # bytes: more than any file has
MPEG_SUFFIXES = (".mp3", ".mp2", ".mpga")
UNKNOWN = b"\xff" * 4


@dataclass(frozen=True)
class Source:
    """A file that libsndfile reads; `promised` samples by its header, of which a part is audio."""

    file: BinaryIO | int  # an int is a file descriptor
    promised: int = 0  # 0 if nobody knows
    begin: int = 0
    end: int | None = None


def sources(raw: BinaryIO, path) -> list[Source]:
    """An open file, unbuffered, as one or more to be read one after another.

    Raises UserError as `mpeg.stream_of`.
    """
    at, start = 0, raw.read(12)
    while start[:3] == b"ID3" and (size := mpeg.tag_bytes(start, 0)):
        at = raw.seek(at + size)
        start = raw.read(12)
    whole = Source(raw.fileno())
    changes, promised = {}, 0
    if start[:4] == b"fLaC":
        changes, promised = _flac_changes(raw, at)
    elif start[:4] == b"OggS" and len(parts := _ogg_parts(raw)) > 1:
        return [Source(_Bytes(part)) for part in parts]
    elif start[:4] == b"RIFF" and start[8:] == b"WAVE":
        changes = _wav_changes(raw)
    elif start[:4] == b".snd":
        changes = _au_changes(raw, start)
    elif start[:7] == b"NIST_1A":
        found = re.search(rb"sample_count -i (\d{1,18})", raw.read(1024))
        whole = Source(raw.fileno(), int(found[1]) if found else 0)
    elif _may_be_mpeg(path, at, start):
        raw.seek(0)
        stream = mpeg.stream_of(raw.read(), path)
        if stream is not None:
            return [Source(_Endless(stream.data), stream.decoded, stream.begin, stream.end)]
    raw.seek(0)
    return [Source(_Changed(raw, changes), promised) if changes else whole]


def _may_be_mpeg(path, at: int, start: bytes) -> bool:
    is_sync = start[:1] == b"\xff" and start[1:2] >= b"\xe0"
    return at > 0 or is_sync or f"{path}".lower().endswith(MPEG_SUFFIXES)


class _Bytes(io.BytesIO):
    """Bytes for libsndfile, which seeks before their start where a header is damaged."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = (0, self.tell(), self.getbuffer().nbytes)[whence]
        return super().seek(min(max(0, origin + offset), ENDLESS))


class _Endless(_Bytes):
    """Bytes that say of themselves that there are more than any file has."""

    is_at_end = False

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.is_at_end = whence == io.SEEK_END
        return ENDLESS if self.is_at_end else super().seek(offset, whence)

    def tell(self) -> int:
        return ENDLESS if self.is_at_end else super().tell()


class _Changed:
    """An open file in which some bytes are others."""

    def __init__(self, raw: BinaryIO, changes: dict[int, bytes]):
        self.raw, self.changes = raw, changes

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = (0, self.raw.tell(), os.fstat(self.raw.fileno()).st_size)[whence]
        return self.raw.seek(min(max(0, origin + offset), ENDLESS))

    def tell(self) -> int:
        return self.raw.tell()

    def readinto(self, buffer) -> int:
        first = self.raw.tell()
        count = self.raw.readinto(buffer)
        for at, new in self.changes.items():
            for i, byte in enumerate(new, start=at - first):
                if 0 <= i < count:
                    buffer[i : i + 1] = bytes([byte])
        return count


def _flac_changes(raw: BinaryIO, at: int) -> tuple[dict[int, bytes], int]:
    """A flac must not say how many samples it has, in 36 bits of its first block; and how many."""
    place = at + 8 + 13
    raw.seek(place)
    field = raw.read(5)
    if len(field) < 5:
        return {}, 0
    unknown = bytes([field[0] & 0xF0, 0, 0, 0, 0])
    return {place: unknown}, int.from_bytes(field, "big") & (1 << 36) - 1


def _ogg_parts(raw: BinaryIO) -> list[bytes]:
    """The streams that follow one another in an ogg: libsndfile reads the first alone."""
    begins, was_first, at = [], False, 0
    raw.seek(0)
    while (head := raw.read(27))[:4] == b"OggS" and len(head) == 27:
        table = raw.read(head[26])
        is_first = bool(head[5] & 2)
        if is_first and not was_first:
            begins.append(at)
        was_first, at = is_first, at + 27 + len(table) + sum(table)
        raw.seek(at)
    if len(begins) < 2:
        return []
    raw.seek(0)
    data = raw.read()
    return [data[a:b] for a, b in itertools.pairwise([*begins, len(data)])]


def _wav_changes(raw: BinaryIO) -> dict[int, bytes]:
    """What to change where a recorder ended before it could write how much audio follows."""
    size, at = raw.seek(0, io.SEEK_END), 12
    while at + 8 < size:
        raw.seek(at)
        head = raw.read(8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"data":
            return {at + 4: UNKNOWN} if length == 0 else {}
        at += 8 + length + length % 2
    return {}


def _au_changes(raw: BinaryIO, start: bytes) -> dict[int, bytes]:
    """The same of an au, in which nothing but audio can follow, whatever is promised."""
    offset, length = (int.from_bytes(start[i : i + 4], "big") for i in (4, 8))
    return {8: UNKNOWN} if offset + length < raw.seek(0, io.SEEK_END) else {}
