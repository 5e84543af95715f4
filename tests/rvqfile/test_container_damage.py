"""Damaged, cut and lying .rvq files: damage is told, whole segments are kept, lies cost nothing."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from refusals import refused
from rvq_files import Pipe, draw, make, same, until_error, written

from rvq_jax.errors import UserError
from rvq_jax.rvqfile import container, header
from rvq_jax.rvqfile.container import Segment
from rvq_jax.rvqfile.reader import Reader


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
