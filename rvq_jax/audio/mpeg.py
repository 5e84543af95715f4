"""The frames of an MPEG audio file (mp3): how many samples there are, whatever its header says.

The formats: ISO/IEC 11172-3 and 13818-3; Xing's, VBRI's and LAME's header frames as players of
every kind read them.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

from rvq_jax.errors import UserError

RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_LOW = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
# Kilobits per second, by whether it is MPEG 1 and by layer; 0 is the free format.
KBPS = {
    (True, 1): tuple(range(0, 449, 32)),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): _LOW,
    (False, 3): _LOW,
}
LARGEST = 8192  # bytes of a frame in free format
DECODER_DELAY = 528 + 1  # samples by which every decoder of layer III comes late
ENCODERS = (b"LAME", b"Lavf", b"Lavc")  # those that say their delay and padding


class Kind(NamedTuple):
    """What no frame of a stream may change."""

    version: int  # 3 is MPEG 1, 2 MPEG 2, 0 MPEG 2.5
    layer: int
    rate: int
    channels: int

    @property
    def samples(self) -> int:
        """Of a frame."""
        return 384 if self.layer == 1 else 576 if self.layer == 3 and self.version != 3 else 1152


@dataclass(frozen=True)
class Stream:
    """Frames without what lies between them.

    Of the samples that they decode to, those from `begin` on and before `end` are the audio.
    """

    data: bytes
    decoded: int
    begin: int
    end: int


class _Info(NamedTuple):
    """A header frame: numbers of frames and bytes (0 for none), delay and padding in samples."""

    frames: int
    size: int
    delay: int | None
    padding: int
    counts_itself: bool  # It may be one of its frames: writers differ.


def stream_of(data: bytes, path) -> Stream | None:
    """The frames in the bytes of a file, None if there are none.

    All frames count, of files joined too. A header frame that leads the file is no audio; one that
    follows others is a frame of silence, unless a tag comes before it. If the header is LAME's or
    FFmpeg's, its delay (and the decoder's 529 samples) is cut off, and its padding at the end,
    unless the file is larger by a sixteenth than it says: all as `ffmpeg` does, which loses a frame
    behind a tag between frames. Raises UserError if the header promises more frames than there
    are, the last one is cut, or rate or channels change.
    """
    places, kind = _places(data, path)
    if not places:
        return None
    info = _info(data[places[0][0] : places[0][0] + places[0][1]], kind)
    origin = places[0][0]
    if info is not None:
        places = places[1:]
        promised = info.frames - (1 if info.counts_itself else 0)
        if len(places) < promised:
            raise UserError(
                f"{path} is truncated: {len(places)} of {info.frames} frames; remove or replace it"
            )
    decoded = len(places) * kind.samples
    begin, end = 0, decoded
    if info is not None and info.delay is not None:
        begin = min(decoded, info.delay + DECODER_DELAY)
        size = len(data) - origin
        is_joined = info.size and size > info.size and size - info.size > info.size // 16
        if info.frames and not is_joined:
            end = max(begin, decoded - max(0, info.padding - DECODER_DELAY))
    frames = b"".join(data[at : at + size] for at, size in places)
    return Stream(frames, decoded, begin, end)


def _places(data: bytes, path) -> tuple[list[tuple[int, int]], Kind | None]:
    """Where whole frames begin and how many bytes they have."""
    found: list[tuple[int, int]] = []
    kind, free, at, is_next, after_tag = None, 0, 0, False, False
    while at + 4 <= len(data):
        if tag := tag_bytes(data, at):
            at, is_next, after_tag = at + tag, False, True
            continue
        here = _header(data, at)
        if here is not None and kind is not None and here[0] != kind:
            _check_change(data, at, kind, here[0], 1 if is_next else 3, path)
        if here is not None and kind in (None, here[0]):
            if here[1] == 0:
                free = free or _free_size(data, at, here[0])
            size = _size(here, free)
            # In the middle of other bytes a header counts only if a second one follows.
            if size and (is_next or _follows(data, at + size, here[0])):
                if at + size > len(data):
                    raise UserError(
                        f"{path} is truncated: its last frame has {len(data) - at} of {size} bytes;"
                        " remove or replace it"
                    )
                is_lead = after_tag and found and _info(data[at : at + size], here[0]) is not None
                if not is_lead:
                    found.append((at, size))
                kind, at, is_next, after_tag = here[0], at + size, True, False
                continue
        at = _sync(data, at + 1)
        is_next = False
    return found, kind


def _sync(data: bytes, at: int) -> int:
    """The next place at which a frame or a tag may begin."""
    places = (data.find(mark, at) for mark in (b"\xff", b"ID3", b"TAG"))
    return min((place for place in places if place >= 0), default=len(data))


def _check_change(data: bytes, at: int, kind: Kind, new: Kind, more: int, path) -> None:
    """Raises UserError if a stream of another kind begins here: so many more frames follow one.

    Fewer are other bytes that look like it, as those of a tag's picture.
    """
    place = at
    for _ in range(more):
        size = _size(_header(data, place), 0)
        after = _header(data, place + size) if size else None
        if after is None or after[0] != new:
            return
        place += size
    raise UserError(
        f"{path} changes from {kind.rate} Hz and {kind.channels} channels to {new.rate} and "
        f"{new.channels} at byte {at}; convert its parts apart"
    )


def _follows(data: bytes, at: int, kind: Kind) -> bool:
    """Whether a frame of the kind, a tag or the end of all is at a place."""
    after = _header(data, at)
    return at == len(data) or tag_bytes(data, at) > 0 or (after is not None and after[0] == kind)


def _header(data: bytes, at: int) -> tuple[Kind, int, int] | None:
    """Kind, kilobits per second and padding slots of a frame, None if there is none here."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return None
    second, third, fourth = data[at + 1 : at + 4]
    version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
    if version == 1 or layer == 4 or third >> 4 == 15 or third >> 2 & 3 == 3:
        return None
    kind = Kind(version, layer, RATES[version][third >> 2 & 3], 1 if fourth >> 6 == 3 else 2)
    return kind, KBPS[version == 3, layer][third >> 4], third >> 1 & 1


def _size(header: tuple[Kind, int, int], free: int) -> int:
    """Bytes of a frame, 0 if that cannot be told; free: those of one of free format, unpadded."""
    kind, kbps, padding = header
    if kbps == 0:
        return free and free + padding * (4 if kind.layer == 1 else 1)
    if kind.layer == 1:
        return (12_000 * kbps // kind.rate + padding) * 4
    return kind.samples // 8 * 1000 * kbps // kind.rate + padding


def _free_size(data: bytes, at: int, kind: Kind) -> int:
    """Bytes of a frame of free format, which only the next frames tell; 0 if there are none."""
    padding = _header(data, at)[2]
    slot = 4 if kind.layer == 1 else 1
    for place in itertools.takewhile(lambda p: p - at < LARGEST, _marks(data, at + 24)):
        after = _header(data, place)
        if after is None or after[:2] != (kind, 0):
            continue
        size = place - at - padding * slot
        third = place + size + after[2] * slot
        if _follows(data, third, kind):
            return size
    return 0


def _marks(data: bytes, at: int):
    while (at := data.find(b"\xff", at)) >= 0:
        yield at
        at += 1


def tag_bytes(data: bytes, at: int) -> int:
    """Bytes of an ID3 tag of version 2 or 1 at a place, 0 if there is none."""
    if data[at : at + 3] == b"ID3" and at + 10 <= len(data) and max(data[at + 6 : at + 10]) < 128:
        a, b, c, d = data[at + 6 : at + 10]
        return 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if data[at + 5] & 0x10 else 0)
    return 128 if data[at : at + 3] == b"TAG" and at + 128 <= len(data) else 0


def _info(frame: bytes, kind: Kind) -> _Info | None:
    """What a header frame says, None if this is a frame of audio."""
    if kind.layer != 3:
        return None
    if frame[36:40] == b"VBRI":
        size, frames = (int.from_bytes(frame[i : i + 4], "big") for i in (46, 50))
        return _Info(frames, size, None, 0, True)
    mono = kind.channels == 1
    at = 4 + ((17 if mono else 32) if kind.version == 3 else (9 if mono else 17))
    # A checksum, which few frames have, comes before.
    at = next((i for i in (at, at + 2) if frame[i : i + 4] in (b"Xing", b"Info")), 0)
    if not at:
        return None
    flags, at = int.from_bytes(frame[at + 4 : at + 8], "big"), at + 8
    numbers = {1: 0, 2: 0}
    for flag, width in ((1, 4), (2, 4), (4, 100), (8, 4)):
        if flags & flag:
            if flag in numbers:
                numbers[flag] = int.from_bytes(frame[at : at + width], "big")
            at += width
    if frame[at : at + 4] not in ENCODERS or len(frame) < at + 24:
        return _Info(numbers[1], numbers[2], None, 0, True)
    both = int.from_bytes(frame[at + 21 : at + 24], "big")
    return _Info(numbers[1], numbers[2], both >> 12, both & 0xFFF, False)
