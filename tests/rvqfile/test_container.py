"""The .rvq file: what is read is what was written, from files and pipes, in any order."""

import hashlib
import io
import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from rvq_files import Pipe, draw, make, same, written
from tiers import slow

from rvq_jax.rvqfile import container, header
from rvq_jax.rvqfile.container import Segment, Writer
from rvq_jax.rvqfile.header import Header
from rvq_jax.rvqfile.reader import Reader

NONE = np.zeros(0, np.float32)


def random_case(rng: np.random.Generator) -> tuple[Header, list[Segment]]:
    coded = rng.random() < 0.2
    levels = int(rng.integers(1, 4))
    largest = int(rng.choice((2, 40) if coded else (2, 40, 5000, header.LARGEST_SIZE)))
    head = Header(
        "".join(map(chr, rng.integers(1, 0xD800, rng.integers(0, 9)))),
        rate=int(rng.integers(1, 1 << 32)),
        channels=int(rng.integers(1, 1 << 16)),
        hop=int(rng.integers(1, 1 << 32)),
        sizes=tuple(map(int, rng.integers(1, largest + 1, levels))),
        samples=int(rng.integers(0, 1 << rng.integers(1, 63))),
        hash=rng.bytes(32),
        segment_frames=int(rng.integers(1, 5)),
        entropy=coded,
    )
    return head, draw(rng, head, int(rng.integers(0, 7)), int(rng.integers(0, 3)))


@pytest.mark.parametrize("count", [1000, slow(10_000)])
def test_random_files_come_back(count):
    """Through a pipe or by seeking, all levels or some; a plain loop, for speed."""
    rng = np.random.default_rng(0)
    for case in range(count):
        head, segments = random_case(rng)
        data = written(head, segments)
        reader = Reader(io.BytesIO(data) if case % 4 else Pipe(data))
        assert reader.header == head
        assert same(list(reader), segments)
        assert reader.samples == head.samples or head.samples == 0
        if case % 4 == 1:
            levels = int(rng.integers(1, head.levels + 1))
            reader = Reader(io.BytesIO(data), levels)
            assert same([reader.segment(i) for i in range(reader.count)], segments, levels)


@given(
    data=st.data(),
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=4),
    size=st.integers(1, 6),
    entropy=st.booleans(),
)
def test_any_frames_of_any_levels(data, sizes, size, entropy):
    """Random access is a slice of the whole."""
    head = make(tuple(sizes), segment_frames=size, entropy=entropy)
    frames = data.draw(st.integers(0, 14))
    segments = draw(np.random.default_rng(frames), head, frames)
    whole_KF = np.concatenate(
        [segment.codes for segment in segments] + [np.zeros((len(sizes), 0), np.int32)], axis=1
    )
    start = data.draw(st.integers(0, frames))
    stop = data.draw(st.integers(start, frames))
    levels = data.draw(st.integers(1, len(sizes)))
    reader = Reader(io.BytesIO(written(head, segments)), levels)
    assert reader.frames == frames
    np.testing.assert_array_equal(reader.read(start, stop), whole_KF[:levels, start:stop])
    np.testing.assert_array_equal(reader.read(), whole_KF[:levels])


def test_a_recording_of_unknown_length_learns_it_at_the_end():
    """What a microphone writes into a pipe; the last number tells how much of the frame counts."""
    head = make(samples=0)
    segments = draw(np.random.default_rng(4), head, 10)
    data = written(head, segments, samples=57)
    assert Reader(io.BytesIO(data)).samples == 57
    pipe = Reader(Pipe(data))
    assert pipe.samples == 0
    assert same(list(pipe), segments) and pipe.samples == 57
    assert Reader(io.BytesIO(written(head, segments))).samples == 60  # whole frames


def test_through_a_pipe_of_the_system():
    """Written on one side while it is read on the other."""
    head = make((1024,) * 4, segment_frames=50)
    segments = draw(np.random.default_rng(5), head, 120, scales=2)
    read, write = os.pipe()

    def send():
        with open(write, "wb", buffering=0) as file:
            writer = Writer(file, head)
            for segment in segments:
                writer.write(segment)
            writer.close()

    sender = threading.Thread(target=send)
    sender.start()
    with open(read, "rb") as file:
        reader = Reader(file)
        assert same(list(reader), segments)
    sender.join()


def test_a_pipe_cannot_go_back():
    reader = Reader(Pipe(written(make(), draw(np.random.default_rng(6), make(), 5))))
    refused(lambda: reader.count, "cannot seek", "save it")
    refused(lambda: reader.read(0, 1), "cannot seek")


def test_a_prefix_of_the_levels_does_not_read_the_rest():
    """The bytes of higher levels may be anything: they are passed over."""
    head = make((64,) * 6, segment_frames=50)
    segments = draw(np.random.default_rng(7), head, 100)
    data = bytearray(written(head, segments))
    planes = [data.index(container.SEGMENT) + 10 + 8 * 6 + 4]
    lengths = [38] * 6  # 50 codes of 6 bits: random codes stay packed
    for level in range(2, 6):
        at = planes[0] + sum(lengths[:level])
        data[at : at + 38] = bytes(38)
    assert same([Reader(io.BytesIO(data), 2).segment(0)], segments[:1], 2)
    assert same(list(Reader(Pipe(bytes(data)), 2)), segments, 2)
    refused(lambda: Reader(io.BytesIO(data), 3).segment(0), "level 3 of segment 0")
    file = io.BytesIO(data)
    read = file.read
    taken = []
    file.read = lambda count: taken.append(count) or read(count)
    list(Reader(file, 2))
    assert sum(taken) <= len(data) - 2 * 4 * 38


def test_the_format_stays_what_it_is():
    """Files outlive versions: what version 1 wrote once."""
    frame_F = np.arange(10)
    codes_KF = np.stack([frame_F % 5, frame_F**2 % 16])
    segments = [Segment(codes_KF[:, :4], np.float32([0.5])), Segment(codes_KF[:, 4:8])]
    data = written(make(samples=45), segments)
    assert (
        hashlib.sha256(data).hexdigest()
        == "bd957c5fc3925d798cc45b992ebc483259fe4e316dcc746c0a3e730fbcdf2c6d"
    )
    assert same(list(Reader(io.BytesIO(data))), segments)


def test_segments_may_be_read_in_any_order_while_iterating():
    head = make()
    segments = draw(np.random.default_rng(8), head, 12)
    reader = Reader(io.BytesIO(written(head, segments)))
    got = []
    for segment in reader:
        assert same([reader.segment(2)], segments[2:])
        got.append(segment)
    assert same(got, segments) and same(list(reader), segments)
    assert same([reader.segment(-1)], segments[-1:])
    with pytest.raises(IndexError):
        reader.segment(3)


def test_a_file_may_begin_inside_another():
    head = make()
    segments = draw(np.random.default_rng(9), head, 10)
    file = io.BytesIO(b"something else" + written(head, segments))
    file.seek(14)
    reader = Reader(file)
    assert same([reader.segment(1)], segments[1:2]) and same(list(reader), segments)


def test_scales_keep_their_bits():
    """NaN with its payload, both zeros, and the smallest number."""
    words = np.array([0x7FC12345, 0x80000000, 0, 1, 0xFF800000, 0x3F800001], np.uint32)
    head = make()
    segment = Segment(np.zeros((2, 3), np.int64), words.view(np.float32))
    (got,) = Reader(io.BytesIO(written(head, [segment])))
    assert got.scales.dtype == np.float32
    np.testing.assert_array_equal(got.scales.view(np.uint32), words)


@pytest.mark.parametrize(
    "codes, scales, words",
    [
        ([[5, 0], [0, 0]], NONE, "must be in"),
        ([[0, 0], [0, -1]], NONE, "must be in"),
        ([[0, 0]], NONE, r"\[2, 1 to 4\]"),
        (np.zeros((2, 5), int), NONE, "1 to 4"),
        (np.zeros((2, 0), int), NONE, "1 to 4"),
        ([[0.0], [0.0]], NONE, "integers"),
        ([[0], [0]], np.zeros((1, 1)), "scales"),
    ],
)
def test_what_the_header_does_not_allow_is_not_written(codes, scales, words):
    file = io.BytesIO()
    writer = Writer(file, make())
    before = file.getvalue()
    with pytest.raises(ValueError, match=words):
        writer.write(Segment(np.array(codes), scales))
    assert file.getvalue() == before


def test_only_the_last_segment_may_be_short():
    """Random access counts on it."""
    writer = Writer(io.BytesIO(), make())
    writer.write(Segment(np.zeros((2, 3), int)))
    with pytest.raises(ValueError, match="fewer than 4"):
        writer.write(Segment(np.zeros((2, 4), int)))


@pytest.mark.parametrize(
    "field",
    [
        dict(rate=0),
        dict(channels=1 << 16),
        dict(hop=-1),
        dict(samples=-1),
        dict(sizes=()),
        dict(sizes=(0,)),
        dict(sizes=(2,) * 257),
        dict(hash=b"short"),
        dict(segment_frames=1 << 17),
        dict(codec="x" * (1 << 16)),
    ],
)
def test_headers_that_no_file_can_hold(field):
    with pytest.raises(ValueError, match="must be in"):
        make(**field)


@pytest.mark.parametrize("levels", [0, 3])
def test_levels_that_are_not_there(levels):
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        Reader(io.BytesIO(written(make(), [])), levels)


def test_packed_files_have_the_size_that_arithmetic_says():
    """EnCodec at 24 kHz and 24 kbit/s: ten seconds cost 30,000 bytes, and 1 % around them."""
    head = make((1024,) * 32, codec="encodec_24khz", segment_frames=750, entropy=False)
    data = written(head, draw(np.random.default_rng(10), head, 750))
    planes = 32 * -(-750 * 10 // 8)
    around = len(header.pack_header(head)) + 10 + 8 * 32 + 4 + 40 + 8
    assert len(data) == planes + around and around < 0.02 * planes
