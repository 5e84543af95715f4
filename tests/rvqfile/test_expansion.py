"""What a file takes to decode is bounded by its bytes, and what it claims by what is there."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from refusals import refused
from rvq_files import draw, make, same, written
from tiers import tried

from rvq_jax.offline import describe
from rvq_jax.rvqfile import bits, container, entropy, header
from rvq_jax.rvqfile.container import Segment, Writer
from rvq_jax.rvqfile.reader import Reader


def checked(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))


def claims(sizes, frames: int, planes: list[bytes], segments: int = 1) -> bytes:
    """A file whose checks are right, of segments that claim so many frames."""
    head = make(sizes, segment_frames=frames, samples=segments * frames * 6)
    segment = container.HEAD.pack(container.SEGMENT, frames, 0)
    segment += b"".join(container.PLANE.pack(len(p), zlib.crc32(p)) for p in planes)
    segment = checked(segment) + b"".join(planes)
    begin = len(header.pack_header(head))
    index = container.INDEX.pack(
        container.END, segments, segments * frames, segments * frames * head.hop
    )
    index += struct.pack(f"<{segments}Q", *(begin + i * len(segment) for i in range(segments)))
    index = checked(index)
    tail = index + container.LAST.pack(len(index), container.TAIL)
    return header.pack_header(head) + segment * segments + tail


LEAST = (1 << 16).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("sizes", "planes"),
    [
        ((1 << 24,), [LEAST]),
        (((1 << 23) + 1,), [LEAST]),
        ((1024,), [LEAST + bytes(20)]),
        ((2,), [LEAST]),
        ((1,), [b""]),
        ((1,) * 256, [b""] * 256),
        ((1024, 1024), [bytes(bits.length(65_536, 10)), LEAST]),
    ],
)
def test_a_segment_cannot_claim_what_its_bytes_are_too_few_for(sizes, planes):
    """A hundred bytes could ask for a minute of work, or for a gigabyte."""
    data = claims(sizes, header.MOST_FRAMES, planes)
    began = time.process_time()
    refused(lambda: list(Reader(io.BytesIO(data))), "damaged in the head of segment 0")
    assert time.process_time() - began < 0.5


SIZES = [2, 1024, 4096, (1 << 23) + 1]


@pytest.mark.parametrize(
    ("size", "frames"),
    tried(
        [(2, 2_300), (1024, 1), (1024, 749)],
        [(size, frames) for size in SIZES for frames in (1, 749, 2_300)],
    ),
)
def test_what_is_written_can_be_read(size, frames):
    """Constant codes become smaller than the law allows: they are packed then."""
    codes_KF = np.full((1, frames), 1 << bits.width(size) - 1, np.int32)
    head = make((size,), segment_frames=frames, samples=frames * 6)
    segment = Segment(codes_KF)
    assert same(list(Reader(io.BytesIO(written(head, [segment])))), [segment])
    (plane,) = entropy.encode(codes_KF, (size,))
    longest = bits.length(frames, bits.width(size))
    is_small = frames * max(8, bits.width(size)) <= entropy.ALWAYS
    assert len(plane) == longest or entropy.is_legal(len(plane), size, frames)
    assert (len(plane) < longest) == is_small or frames == 1


def test_levels_of_one_code_have_the_same_bound():
    most = entropy.ALWAYS // entropy.NARROWEST
    for frames, is_read in ((most, True), (most + 1, False)):
        head = make((1,), segment_frames=frames)
        writer = Writer(io.BytesIO(), head)
        segment = Segment(np.zeros((1, frames), np.int32))
        if is_read:
            assert same(list(Reader(io.BytesIO(written(head, [segment])))), [segment])
        else:
            with pytest.raises(ValueError, match="in a segment"):
                writer.write(segment)


def test_an_index_cannot_list_more_segments_than_there_is_room_for(tmp_path):
    """info goes by it: places that are one, go back, or lie in the header."""
    head = make(samples=48)
    segments = draw(np.random.default_rng(0), head, 8)
    data = written(head, segments)
    begin, end = len(header.pack_header(head)), data.index(container.END)
    for places in ([begin] * 999, [begin, begin + 1], [begin + 9, begin], [3, begin], [begin, end]):
        count = len(places)
        index = container.INDEX.pack(container.END, count, 4 * count, 24 * count)
        index = checked(index + struct.pack(f"<{count}Q", *places))
        lie = data[:end] + index + container.LAST.pack(len(index), container.TAIL)
        assert Reader(io.BytesIO(lie)).frames == 8
        (tmp_path / "a.rvq").write_bytes(lie)
        found = describe.file(tmp_path / "a.rvq")
        assert (found["frames"], found["samples"]) == (8, 48)


@pytest.mark.parametrize("samples", [49, 2**40, 2**63 - 1])
def test_info_believes_no_length_beyond_the_frames(tmp_path, samples):
    head = make(samples=samples)
    segments = draw(np.random.default_rng(0), head, 8)
    (tmp_path / "a.rvq").write_bytes(written(head, segments, samples))
    refused(lambda: describe.file(tmp_path / "a.rvq"), f"{samples} samples in 8 frames")
