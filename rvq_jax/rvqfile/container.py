"""The .rvq file: codes in segments that stand alone, each level in a plane of its own.

Header, segments, index. A segment is a head (frames, bytes and CRC-32 of each plane, scales) and
its planes: a prefix of the levels is read without the rest, and a damaged byte costs no more than
its segment. The index comes last, so that a pipe can take the file, and serves only to find a
segment at once: a file that was cut short is read without it.
"""

import struct
import zlib
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from rvq_jax.rvqfile import bits, entropy
from rvq_jax.rvqfile.header import CHECK, Header, pack_header

SEGMENT, END, TAIL = b"rvqS", b"rvqE", b"rvqZ"
HEAD = struct.Struct("<4sIH")  # mark, frames, scales; then PLANE per level, scales, CHECK
PLANE = struct.Struct("<II")  # bytes, CRC-32
INDEX = struct.Struct("<4sIQQ")  # mark, segments, frames, samples; then offsets, CHECK, LAST
LAST = struct.Struct("<Q4s")  # bytes of the index up to here, mark


@dataclass(frozen=True, eq=False)
class Segment:
    """Codes that decode without those before."""

    codes: np.ndarray  # [K, F] int32
    scales: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))  # [n] float32


class Writer:
    """Writes an .rvq file to an open binary file or pipe, segment by segment, then `close`.

    Raises ValueError for what the header does not allow.
    """

    def __init__(self, file: BinaryIO, header: Header):
        self._file, self._header = file, header
        self._offsets: list[int] = []
        self._bytes = self._frames = 0
        self._put(pack_header(header))

    def write(self, segment: Segment) -> None:
        """Appends a segment of `segment_frames` frames; only the last may have fewer."""
        codes_KF, scales = np.asarray(segment.codes), np.asarray(segment.scales, "<f4")
        sizes, most = self._header.sizes, self._header.segment_frames
        if codes_KF.ndim != 2 or len(codes_KF) != len(sizes) or not 0 < codes_KF.shape[1] <= most:
            raise ValueError(f"codes must be [{len(sizes)}, 1 to {most}], got {codes_KF.shape}")
        if not np.issubdtype(codes_KF.dtype, np.integer):
            raise ValueError(f"codes must be integers, got {codes_KF.dtype}")
        if (codes_KF < 0).any() or (codes_KF >= np.array(sizes)[:, None]).any():
            raise ValueError(f"codes must be in [0, N), N of the levels being {sizes}")
        if scales.ndim != 1 or len(scales) >= 1 << 16:
            raise ValueError(f"scales must be [n], n below 65536, got {scales.shape}")
        if self._frames % most:
            raise ValueError(f"a segment after one of fewer than {most} frames")
        if self._header.entropy:
            planes = entropy.encode(codes_KF, sizes)
        else:
            pairs = zip(codes_KF, sizes, strict=True)
            planes = [bits.pack(codes_F, bits.width(size)) for codes_F, size in pairs]
        for plane, size in zip(planes, sizes, strict=True):
            # Only of a level of one code, which no byte says.
            if not entropy.is_legal(len(plane), size, codes_KF.shape[1]):
                raise ValueError(f"{codes_KF.shape[1]} frames of a level of {size} in a segment")
        head = HEAD.pack(SEGMENT, codes_KF.shape[1], len(scales))
        head += b"".join(PLANE.pack(len(plane), zlib.crc32(plane)) for plane in planes)
        head += scales.tobytes()
        self._offsets.append(self._bytes)
        self._put(head + CHECK.pack(zlib.crc32(head)) + b"".join(planes))
        self._frames += codes_KF.shape[1]

    def close(self, samples: int | None = None) -> None:
        """Writes the index and leaves the file open.

        samples: S, where the header could not know it; else what it says, or whole frames.
        """
        if samples is None:
            samples = self._header.samples or self._frames * self._header.hop
        index = INDEX.pack(END, len(self._offsets), self._frames, samples)
        index += struct.pack(f"<{len(self._offsets)}Q", *self._offsets)
        index += CHECK.pack(zlib.crc32(index))
        self._put(index + LAST.pack(len(index), TAIL))

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._bytes += len(data)
