"""Reading .rvq files: in order from a pipe, or any segment at once, all levels or a prefix."""

import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from rvq_jax.errors import UserError
from rvq_jax.rvqfile import bits, entropy
from rvq_jax.rvqfile.container import END, HEAD, INDEX, LAST, PLANE, SEGMENT, TAIL, Segment
from rvq_jax.rvqfile.header import CHECK, pack_header, read_header

AT_ONCE = 1 << 20  # bytes read together: a promise of more than there is costs no memory


class _Head(NamedTuple):
    number: int
    frames: int
    planes: list[tuple[int, int]]
    scales: np.ndarray

    def bytes_from(self, level: int) -> int:
        return sum(length for length, _ in self.planes[level:])


class _Index(NamedTuple):
    frames: int
    samples: int
    offsets: list[int]


class _Cut(Exception):
    """The file ends too soon."""


class Reader:
    """Reads an .rvq file, or a prefix of its levels.

    Iteration gives the segments in order, from a pipe too; `segment` and `read` go to any place of
    a file that can seek. Raises UserError for a file that is damaged or cut short; iteration has
    then given all whole segments before that place.
    """

    def __init__(self, file: BinaryIO, levels: int | None = None):
        self._file, self._seeks = file, file.seekable()
        name = getattr(file, "name", None)
        self._name = name if isinstance(name, str) else "the .rvq stream"
        if self._seeks:
            self._zero = file.tell()
            self._size = file.seek(0, 2) - self._zero
            self._go(0)
        try:
            self.header = read_header(self._take, self._name)
        except _Cut:
            raise UserError(f"{self._name} is cut short in its header; get it again") from None
        self._begin = len(pack_header(self.header))
        self.levels = self.header.levels if levels is None else levels
        if not 1 <= self.levels <= self.header.levels:
            raise ValueError(f"levels must be in [1, {self.header.levels}], got {levels}")
        self._index: _Index | None = None
        self._trouble: UserError | None = None  # what ended the search for segments

    def __iter__(self) -> Iterator[Segment]:
        frames = 0
        try:
            for head, _ in self._heads():
                segment = self._decoded(head)
                frames += head.frames
                yield segment
        except _Cut:
            raise self._cut_short(frames) from None

    def segment(self, number: int) -> Segment:
        """Segment `number`, of a file that can seek; IndexError if there are not so many."""
        offsets = self._found().offsets
        if number >= len(offsets) and self._trouble:
            raise self._trouble
        number = range(len(offsets))[number]
        self._go(offsets[number])
        try:
            return self._decoded(self._head(self._take(4), number))
        except _Cut:
            raise self._damaged(f"its index, for segment {number}") from None

    @property
    def count(self) -> int:
        """Whole segments, of a file that can seek."""
        return len(self._found().offsets)

    @property
    def frames(self) -> int:
        """F of all whole segments, of a file that can seek."""
        return self._found().frames

    @property
    def samples(self) -> int:
        """S, 0 if not known: a pipe may tell only at its end."""
        found = self._found() if self._seeks else self._index
        return found.samples if found else self.header.samples

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Codes `[K, stop - start]` int32, from a file that can seek."""
        frames, size = self.frames, self.header.segment_frames
        if self._trouble and (stop is None or stop > frames):
            raise self._trouble
        stop = frames if stop is None else stop
        if not 0 <= start <= stop <= frames:
            raise ValueError(f"frames {start} to {stop} of {frames}")
        first = start // size
        parts = [self.segment(number).codes for number in range(first, -(-stop // size))]
        parts.append(np.zeros((self.levels, 0), np.int32))
        return np.concatenate(parts, axis=1)[:, start - first * size : stop - first * size]

    def _heads(self) -> Iterator[tuple[_Head, int]]:
        """Heads in order, up to the index; between them the caller passes over the planes."""
        offsets, frames, at = [], 0, self._begin
        while True:
            if self._seeks:
                self._go(at)
            mark = self._take(4)
            if mark == END:
                break
            head = self._head(mark, len(offsets))
            if frames != len(offsets) * self.header.segment_frames:
                raise self._damaged(f"segment {len(offsets) - 1}, which has too few frames")
            yield head, at
            offsets.append(at)
            frames += head.frames
            at += HEAD.size + PLANE.size * len(head.planes) + head.scales.nbytes + CHECK.size
            at += head.bytes_from(0)
        index = self._end(mark, len(offsets))
        if index.frames != frames or index.offsets != offsets:
            raise self._damaged("its index")
        self._index = index

    def _head(self, mark: bytes, number: int) -> _Head:
        damaged = self._damaged(f"the head of segment {number}")
        if mark != SEGMENT:
            raise damaged
        start = mark + self._take(HEAD.size - len(mark))
        _, frames, scales = HEAD.unpack(start)
        body = self._take(PLANE.size * self.header.levels + 4 * scales)
        if CHECK.unpack(self._take(CHECK.size))[0] != zlib.crc32(start + body):
            raise damaged
        planes = list(PLANE.iter_unpack(body[: PLANE.size * self.header.levels]))
        scales_n = np.frombuffer(body[len(body) - 4 * scales :], "<f4")
        # Only a file made to do harm has a right check and these wrong.
        if not 0 < frames <= self.header.segment_frames:
            raise damaged
        for (length, _), size in zip(planes, self.header.sizes, strict=True):
            is_longer = length > bits.length(frames, bits.width(size))
            if is_longer or not entropy.is_legal(length, size, frames):
                raise damaged
        return _Head(number, frames, planes, scales_n)

    def _decoded(self, head: _Head) -> Segment:
        """The segment whose head was read last."""
        planes = []
        for level, (length, check) in enumerate(head.planes[: self.levels]):
            planes.append(self._take(length))
            if zlib.crc32(planes[-1]) != check:
                raise self._damaged(f"level {level + 1} of segment {head.number}")
        self._skip(head.bytes_from(self.levels))
        try:
            codes_KF = entropy.decode(planes, self.header.sizes[: self.levels], head.frames)
        except ValueError as error:
            raise self._damaged(f"segment {head.number}: {error}") from error
        return Segment(codes_KF, head.scales.astype(np.float32))

    def _end(self, mark: bytes, number: int) -> _Index:
        """The index, which must be of `number` segments."""
        start = mark + self._take(INDEX.size - len(mark))
        _, count, frames, samples = INDEX.unpack(start)
        if mark != END or count != number:
            raise self._damaged("its index")
        body = self._take(8 * count)
        check = self._take(CHECK.size)
        length = len(start + body + check)
        if CHECK.unpack(check)[0] != zlib.crc32(start + body):
            raise self._damaged("its index")
        if self._take(LAST.size) != LAST.pack(length, TAIL):
            raise self._damaged("its end")
        return _Index(frames, samples, list(struct.unpack(f"<{count}Q", body)))

    def _found(self) -> _Index:
        """Where the segments are: as the index says or, where there is none, as they follow."""
        if self._index is None:
            if not self._seeks:
                raise UserError(f"{self._name} cannot seek: iterate over it, or save it first")
            try:
                self._index = self._last()
            except (UserError, _Cut):
                self._index = self._searched()
        return self._index

    def _last(self) -> _Index:
        self._go(self._size - LAST.size)
        length, mark = LAST.unpack(self._take(LAST.size))
        number, rest = divmod(length - INDEX.size - CHECK.size, 8)
        begin = self._size - LAST.size - length
        if mark != TAIL or rest or begin < self._begin:
            raise self._damaged("its end")
        self._go(begin)
        index = self._end(self._take(4), number)
        count = -(-index.frames // self.header.segment_frames)
        places = [*index.offsets, begin]
        # Each segment takes its head at least, so that there are no more than there is room for.
        least = HEAD.size + PLANE.size * self.header.levels + CHECK.size
        apart = (b - a >= least for a, b in itertools.pairwise(places))
        if count != number or places[0] < self._begin or not all(apart):
            raise self._damaged("its index")
        return index

    def _searched(self) -> _Index:
        offsets, frames = [], 0
        try:
            for head, at in self._heads():
                self._skip(head.bytes_from(0))
                offsets.append(at)
                frames += head.frames
        except _Cut:
            self._trouble = self._cut_short(frames)
        except UserError as error:
            self._trouble = error
        return _Index(frames, self.header.samples, offsets)

    def _go(self, place: int) -> None:
        self._file.seek(self._zero + place)

    def _take(self, count: int) -> bytes:
        pieces = []
        while count:
            pieces.append(self._file.read(min(count, AT_ONCE)))
            if not pieces[-1]:
                raise _Cut
            count -= len(pieces[-1])
        return b"".join(pieces)

    def _skip(self, count: int) -> None:
        if not self._seeks:
            while count:
                count -= len(self._take(min(count, AT_ONCE)))
        elif self._file.seek(count, 1) - self._zero > self._size:
            raise _Cut

    def _damaged(self, place: str) -> UserError:
        return UserError(f"{self._name} is damaged in {place}; get it again")

    def _cut_short(self, frames: int) -> UserError:
        known = self.header.samples
        have = f"{frames} frames ({self.header.seconds(frames):.2f} s)"
        missing = -(-known // self.header.hop) - frames
        if not known:
            rest = "its end is missing, and it does not say how much that is"
        elif missing > 0:
            rest = f"{missing} frames ({self.header.seconds(missing):.2f} s) are missing"
        else:
            rest = "only its index is missing"
        return UserError(f"{self._name} is cut short: {have} can be read, {rest}; get it again")
