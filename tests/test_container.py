"""The .rvq file: what is read is what was written, from files and pipes; all damage is told."""

import hashlib
import io
import os
import struct
import threading
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvq_jax.codec import container, header
from rvq_jax.codec.container import Segment, Writer
from rvq_jax.codec.header import Header
from rvq_jax.codec.reader import Reader
from rvq_jax.errors import UserError

NONE = np.zeros(0, np.float32)


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


def refused(call, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and not [word for word in words if word not in message], message


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


def test_ten_thousand_random_files_come_back():
    """Through a pipe or by seeking, all levels or some; a plain loop, for speed."""
    rng = np.random.default_rng(0)
    for case in range(10_000):
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


@pytest.mark.parametrize("entropy", [True, False])
@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
def test_no_wrong_byte_goes_unseen(kind, entropy):
    """At every place and in several ways: an error, or the same header, codes and scales."""
    head = make(samples=54, entropy=entropy)
    segments = draw(np.random.default_rng(1), head, 9, scales=1)
    data = written(head, segments)
    silent = 0
    for place in range(len(data)):
        for flip in (1, 2, 16, 128, 255, 0x20):
            wrong = bytearray(data)
            wrong[place] ^= flip
            try:
                reader = Reader(kind(bytes(wrong)))
                got = list(reader)
            except UserError as error:
                assert "\n" not in str(error)
                continue
            silent += 1
            assert reader.header == head and same(got, segments)
    assert silent == 0


def test_a_wrong_byte_costs_one_segment():
    """Random access passes over it, and a damaged index is replaced by searching."""
    head = make(samples=54)
    segments = draw(np.random.default_rng(2), head, 12)
    data = bytearray(written(head, segments))
    second = data.index(container.SEGMENT, data.index(container.SEGMENT) + 1)
    third = data.index(container.SEGMENT, second + 1)
    for place in range(second, third):
        wrong = bytearray(data)
        wrong[place] ^= 4
        reader = Reader(io.BytesIO(wrong))
        assert same([reader.segment(0), reader.segment(2)], [segments[0], segments[2]])
        refused(lambda reader=reader: reader.segment(1), "damaged", "segment 1")
        refused(lambda reader=reader: reader.read(0, 5), "segment 1")
        got, message = until_error(io.BytesIO(wrong))
        # A wrong count of scales, so near the end, reaches beyond it.
        assert same(got, segments[:1]) and ("segment 1" in message or "cut short" in message)
    for place in range(data.index(container.END), len(data)):
        wrong = bytearray(data)
        wrong[place] ^= 4
        reader = Reader(io.BytesIO(wrong))
        assert same([reader.segment(2), reader.segment(1), reader.segment(0)], segments[::-1])


@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
@pytest.mark.parametrize("samples", [0, 60, 240])
def test_a_file_cut_anywhere_gives_all_whole_segments(kind, samples):
    """And then says how much is missing, where its header knows how much there was."""
    head = make(samples=samples, entropy=False)
    segments = draw(np.random.default_rng(3), head, 10)
    data = written(head, segments)
    ends = [len(written(head, segments[:count])) for count in range(4)]
    index = [40 + 8 * count for count in range(4)]  # bytes of an index of so many segments
    whole_ends = [end - bytes_ for end, bytes_ in zip(ends, index, strict=True)]
    for cut in range(len(data)):
        if cut < whole_ends[0]:
            refused(lambda cut=cut: Reader(kind(data[:cut])), "cut short in its header")
            continue
        got, message = until_error(kind(data[:cut]))
        count = sum(end <= cut for end in whole_ends[1:])
        assert same(got, segments[:count])
        have = (0, 4, 8, 10)[count]
        assert f"cut short: {have} frames ({have / 100:.2f} s) can be read" in message
        if samples == 0:
            assert "does not say how much" in message
        elif samples // 6 > have:
            missing = samples // 6 - have
            assert f"{missing} frames ({missing / 100:.2f} s) are missing" in message
        else:
            assert "only its index is missing" in message
        if kind is io.BytesIO:  # which goes to segments without the index
            reader = Reader(io.BytesIO(data[:cut]))
            assert reader.count == count and reader.read(0, have).shape == (2, have)
            refused(reader.read, "cut short")
            refused(lambda reader=reader, count=count: reader.segment(count), "cut short")
    assert until_error(kind(data))[1] == ""


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


def with_check(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))


@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
@pytest.mark.parametrize("what", ["header", "plane", "frames", "scales", "index"])
def test_lengths_that_promise_too_much_cost_no_memory(kind, what):
    """Gigabytes in a file of a kilobyte, with checks that are right: refused, never allocated."""
    head = make((16,), segment_frames=header.MOST_FRAMES, entropy=True)
    start, much = header.pack_header(head), 0x7FFFFFFF
    if what == "header":
        data = header.START.pack(header.MAGIC, 1, much) + bytes(1000)
    elif what == "index":
        data = start + with_check(container.INDEX.pack(container.END, much, 0, 0)) + bytes(1000)
    else:
        frames = much if what == "frames" else 9
        plane = much if what == "plane" else 0
        scales = 0xFFFF if what == "scales" else 0
        segment = container.HEAD.pack(container.SEGMENT, frames, scales)
        data = start + with_check(segment + container.PLANE.pack(plane, 0)) + bytes(1000)
    tracemalloc.start()
    got, message = until_error(kind(data))
    if kind is io.BytesIO and what != "header":
        assert Reader(io.BytesIO(data)).count == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not got and ("damaged" in message or "cut short" in message)
    assert peak < 4 << 20


@pytest.mark.parametrize("frames, offset", [(2**64 - 1, None), (8, 2**64 - 1), (8, 3)])
def test_an_index_that_lies_is_not_believed(frames, offset):
    """Its check may be right all the same."""
    head = make()
    segments = draw(np.random.default_rng(11), head, 8)
    data = written(head, segments)
    begin = data.index(container.END)
    first = len(header.pack_header(head))
    second = data.index(container.SEGMENT, first + 1) if offset is None else offset
    index = container.INDEX.pack(container.END, 2, frames, 48) + struct.pack("<2Q", first, second)
    index = with_check(index)
    lie = data[:begin] + index + container.LAST.pack(len(index), container.TAIL)
    got, message = until_error(io.BytesIO(lie))
    assert same(got, segments) and "damaged in its index" in message
    reader = Reader(io.BytesIO(lie))
    if offset == 3:  # a place inside the file: only found out by going there
        refused(reader.read, "damaged")
    else:
        assert same([reader.segment(1)], segments[1:]) and reader.frames == 8


def test_other_files_and_newer_versions_say_what_to_do():
    data = written(make(), [])
    refused(lambda: Reader(io.BytesIO(b"RIFF" + bytes(99))), "no .rvq file")
    refused(lambda: Reader(io.BytesIO(data.replace(b"\r\n", b"\n"))), "no .rvq file")
    newer = bytearray(data)
    newer[8] = 2
    refused(lambda: Reader(io.BytesIO(newer)), "version 2", "reads up to 1", "install a newer")
    refused(lambda: Reader(io.BytesIO(b"")), "cut short in its header")


def test_messages_name_the_file(tmp_path):
    path = tmp_path / "song.rvq"
    path.write_bytes(written(make(), [])[:-5])
    with path.open("rb") as file:
        refused(lambda: list(Reader(file)), "song.rvq", "cut short")


def test_a_header_that_no_codec_has_is_damage():
    """Its check is right, but its sizes are not."""
    good = header.pack_header(make())
    rate = good[10 + 4 + 40 : 10 + 4 + 44]
    assert rate == struct.pack("<I", 600)
    bad = good[: 10 + 4 + 40] + bytes(4) + good[10 + 4 + 44 : -4]
    refused(lambda: Reader(io.BytesIO(with_check(bad))), "damaged in its header")


def test_a_damaged_code_is_told():
    """Packed codes of five can say seven; the check may be right all the same."""
    data = written(make((5,), entropy=False), [Segment(np.array([[4, 3, 2, 1]]))])
    at = data.index(container.SEGMENT)
    plane = b"\xff\xff"
    segment = container.HEAD.pack(container.SEGMENT, 4, 0)
    segment = with_check(segment + container.PLANE.pack(2, zlib.crc32(plane))) + plane
    wrong = data[:at] + segment + data[at + len(segment) :]
    refused(lambda: list(Reader(io.BytesIO(wrong))), "segment 0", "beyond")


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
