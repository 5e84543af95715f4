"""The beginning of an .rvq file: whose codes these are, and how the rest is laid out."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from rvq_jax.errors import UserError

# As PNG's: shows a transfer that took it for text, or for 7 bits.
MAGIC = b"\x89rvq\r\n\x1a\n"
VERSION = 1
START = struct.Struct("<8sHI")  # magic, version, bytes of what follows
FIXED = struct.Struct("<32sQIIIHH?")
CHECK = struct.Struct("<I")  # CRC-32 of all before

LARGEST_SIZE, MOST_LEVELS, MOST_FRAMES = 1 << 24, 256, 1 << 16
LONGEST = FIXED.size + 4 * MOST_LEVELS + (1 << 16)


@dataclass(frozen=True)
class Header:
    """What the codes of a file are; ValueError for what no file can hold."""

    codec: str  # name
    rate: int  # samples per second
    channels: int
    hop: int  # samples per frame
    sizes: tuple[int, ...]  # N of each of the K levels
    samples: int = 0  # S, 0 if not yet known
    hash: bytes = bytes(32)  # SHA-256 of the codec's weights, zeros if not known
    segment_frames: int = 750  # of every segment but the last, which may have fewer
    entropy: bool = True  # whether codes are entropy coded, or only packed

    def __post_init__(self):
        for name, value, low, high in (
            ("rate", self.rate, 1, 1 << 32),
            ("channels", self.channels, 1, 1 << 16),
            ("hop", self.hop, 1, 1 << 32),
            ("samples", self.samples, 0, 1 << 63),
            ("segment_frames", self.segment_frames, 1, MOST_FRAMES + 1),
            ("number of levels", self.levels, 1, MOST_LEVELS + 1),
            ("bytes of hash", len(self.hash), 32, 33),
            ("bytes of codec", len(self.codec.encode()), 0, 1 << 16),
            *(("size", size, 1, LARGEST_SIZE + 1) for size in self.sizes),
        ):
            if not low <= value < high:
                raise ValueError(f"{name} must be in [{low}, {high}), got {value}")

    @property
    def levels(self) -> int:
        """K."""
        return len(self.sizes)

    def seconds(self, frames: int) -> float:
        """The time that frames take."""
        return frames * self.hop / self.rate


def pack_header(header: Header) -> bytes:
    """The bytes that begin a file."""
    fixed = FIXED.pack(
        header.hash,
        header.samples,
        header.rate,
        header.hop,
        header.segment_frames,
        header.channels,
        header.levels,
        header.entropy,
    )
    body = fixed + struct.pack(f"<{header.levels}I", *header.sizes) + header.codec.encode()
    data = START.pack(MAGIC, VERSION, len(body)) + body
    return data + CHECK.pack(zlib.crc32(data))


def read_header(take: Callable[[int], bytes], name: str) -> Header:
    """The header of the file `name`, whose next bytes `take(count)` gives.

    Raises UserError if it is no .rvq file, is of a newer version, or is damaged.
    """
    magic = take(len(MAGIC))
    if magic != MAGIC:
        raise UserError(f"{name} is no .rvq file; give one that rvq_jax wrote")
    start = magic + take(START.size - len(MAGIC))
    _, version, length = START.unpack(start)
    if version > VERSION:
        raise UserError(
            f"{name} has format version {version}, and this rvq_jax reads up to {VERSION}; "
            "install a newer rvq_jax"
        )
    damaged = UserError(f"{name} is damaged in its header; get it again")
    if not FIXED.size <= length <= LONGEST:
        raise damaged
    body = take(length)
    if CHECK.unpack(take(CHECK.size))[0] != zlib.crc32(start + body):
        raise damaged
    hash, samples, rate, hop, frames, channels, levels, entropy = FIXED.unpack_from(body)
    try:
        sizes = struct.unpack_from(f"<{levels}I", body, FIXED.size)
        codec = body[FIXED.size + 4 * levels :].decode()
        return Header(codec, rate, channels, hop, sizes, samples, hash, frames, entropy)
    except (struct.error, ValueError) as error:
        raise damaged from error
