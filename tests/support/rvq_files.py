"""Small .rvq files, a pipe, and what reading one gives, for the tests of the container."""

import io

import numpy as np

from rvq_jax.errors import UserError
from rvq_jax.rvqfile.container import Segment, Writer
from rvq_jax.rvqfile.header import Header
from rvq_jax.rvqfile.reader import Reader


class Pipe(io.RawIOBase):
    """Can neither seek nor tell, and gives fewer bytes than asked for."""

    def __init__(self, data: bytes = b""):
        self.data = data
        self.got = 0

    def read(self, count: int) -> bytes:
        piece = self.data[self.got : self.got + min(count, 7)]
        self.got += len(piece)
        return piece

    def write(self, data: bytes) -> None:
        self.data += data

    def seekable(self) -> bool:
        return False

    def tell(self):
        raise OSError("a pipe")

    seek = tell


def make(sizes=(5, 16), **fields) -> Header:
    stated = dict(codec="tiny", rate=600, channels=1, hop=6, segment_frames=4) | fields
    return Header(sizes=sizes, **stated)


def draw(rng: np.random.Generator, head: Header, frames: int, scales: int = 0) -> list[Segment]:
    codes_KF = rng.integers(0, np.array(head.sizes)[:, None], (head.levels, frames), np.int32)
    return [
        Segment(codes_KF[:, at : at + head.segment_frames], rng.random(scales, np.float32))
        for at in range(0, frames, head.segment_frames)
    ]


def written(head: Header, segments: list[Segment], samples: int | None = None) -> bytes:
    pipe = Pipe()
    writer = Writer(pipe, head)
    for segment in segments:
        writer.write(segment)
    writer.close(samples)
    return pipe.data


def same(got: list[Segment], want: list[Segment], levels: int | None = None) -> bool:
    return len(got) == len(want) and all(
        a.codes.dtype == np.int32
        and np.array_equal(a.codes, b.codes[:levels])
        and a.scales.tobytes() == b.scales.tobytes()
        for a, b in zip(got, want, strict=True)
    )


def until_error(file) -> tuple[list[Segment], str]:
    """The segments that a file gives, and what it says then; '' at its proper end."""
    got = []
    try:
        for segment in Reader(file):
            got.append(segment)
    except UserError as error:
        assert "\n" not in str(error)
        return got, str(error)
    return got, ""
