"""Arrays of a file are read only where its headers fit its bytes, and its bytes what is wanted."""

import struct
import time
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from refusals import refused

from rvq_jax import files, npz
from rvq_jax.convert import torch_file
from rvq_jax.data.captions import CaptionStates
from rvq_jax.data.codes import CodeSet

LIKE = {"a": jax.ShapeDtypeStruct((2, 3), np.float32), "b": jax.ShapeDtypeStruct((), np.int32)}
CASES = Path(__file__).parents[2] / "shared" / "cases" / "weights"


def record(shape="(2, 3)", descr="'<f4'", data: bytes = bytes(24), version: int = 1) -> bytes:
    """An .npy by hand: its header may lie."""
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(head)) + head + data


def written(path: Path, method=zipfile.ZIP_STORED, **records: bytes) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in records.items():
            file.writestr(f"{name}.npy", data)
    return path


WHOLE = {"a": record(), "b": record("()", "'<i4'", bytes(4))}
LIES = {
    "less": {"data": bytes(23)},
    "more": {"data": bytes(25)},
    "huge": {"shape": f"({2**40}, 3)"},
    "overflow": {"shape": f"({2**62}, 4)", "data": b""},
    "negative": {"shape": "(-2, -3)"},
    "real": {"shape": "(2.0, 3)"},
    "deep": {"shape": "(" * 4000},
    "a lie of type": {"descr": "'<f8'"},
    "objects": {"descr": "'|O'", "data": bytes(48)},
    "records": {"descr": "[('x', '<f4')]"},
    "parts": {"descr": "'(2,)<f4'", "data": bytes(48)},
    "no width": {"shape": f"({2**40},)", "descr": "'<U0'", "data": b""},
    "wide": {"shape": "(1,)", "descr": "'<U999999999'"},
    "dates": {"descr": "'<M8[s]'", "data": bytes(48)},
    "no header": {"descr": "'\x00"},
    "escape": {"descr": "'\\d'"},
    "version": {"version": 9},
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused_by_every_reader(tmp_path, lie):
    path = written(tmp_path / "weights.npz", **{**WHOLE, "a": record(**LIES[lie])})
    refused(lambda: files.load_weights(tmp_path, LIKE), "weights.npz", "make it again")
    refused(lambda: CodeSet.load(path), "cannot be read as a code cache")
    refused(lambda: CaptionStates.load(path), "cannot be read as a caption cache")


@pytest.mark.parametrize("records", [{"a": b""}, {"a": b"x" * 99}, {"a": WHOLE["a"][:20]}])
def test_a_record_that_is_no_array_is_refused(tmp_path, records):
    """numpy gives it as bytes."""
    written(tmp_path / "weights.npz", **{**WHOLE, **records})
    refused(lambda: files.load_weights(tmp_path, LIKE), "weights.npz")


def test_what_is_not_wanted_is_not_read(tmp_path):
    """Names, shapes and types come before numbers."""
    for change, words in [
        ({"a": record("(3, 2)")}, "a has shape (3, 2), the config says (2, 3)"),
        ({"a": record(descr="'<i4'")}, "a is int32, not float32"),
        ({"a": record(descr="'>i4'")}, "a is >i4, not float32"),
        ({"a": record(descr="'<f8'", data=bytes(48))}, "a is float64"),
        ({"c": record()}, "c is unknown"),
        ({"\x1b[2J": record()}, "\\x1b[2J is unknown"),
    ]:
        written(tmp_path / "weights.npz", **{**WHOLE, **change})
        refused(lambda: files.load_weights(tmp_path, LIKE), words)
    big = record(descr="'>f4'", data=np.arange(6, dtype=">f4").tobytes())
    written(tmp_path / "weights.npz", **{**WHOLE, "a": big})
    found = files.load_weights(tmp_path, LIKE)["a"]
    np.testing.assert_array_equal(found, np.arange(6, dtype=np.float32).reshape(2, 3), strict=True)


def test_half_precision_is_read_as_float32(tmp_path):
    half = record(descr="'<f2'", data=np.arange(6, dtype="<f2").tobytes())
    written(tmp_path / "weights.npz", **{**WHOLE, "a": half})
    found = files.load_weights(tmp_path, LIKE)["a"]
    np.testing.assert_array_equal(found, np.arange(6, dtype=np.float32).reshape(2, 3), strict=True)


@pytest.mark.parametrize("name", ["codes", "lengths", "a"])
def test_what_unpacks_to_gigabytes_is_refused_before(tmp_path, name):
    """Zeros deflate a thousandfold."""
    path = tmp_path / "weights.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open(f"{name}.npy", "w") as stream:
            stream.write(record(f"(2, {32 << 20})", "'|u1'", b""))
            for _ in range(64):
                stream.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    began = time.process_time()
    refused(lambda: CodeSet.load(path), f"{npz.TIMES} times")
    refused(lambda: files.load_weights(tmp_path, LIKE), f"{npz.TIMES} times")
    assert time.process_time() - began < 1


def test_a_zip_of_hundreds_of_thousands_of_records_is_not_listed(tmp_path):
    """Each takes half a kilobyte of memory for its 47 bytes."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *[0] * 6, 0, 0, 0, 1, *[0] * 4, 0, 0) + b"a"
    count = npz.DIRECTORY // len(entry) + 1
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, count * len(entry), 0, 0)
    for name, load in [("a.npz", CodeSet.load), ("a.pt", torch_file.read)]:
        start = struct.pack("<4s26x", b"PK\x03\x04")
        (tmp_path / name).write_bytes(start + entry * count + end)
        refused(lambda load=load, name=name: load(tmp_path / name), "a directory of")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packing_than_numpys_is_refused(tmp_path, method):
    written(tmp_path / "weights.npz", method, **WHOLE)
    refused(lambda: files.load_weights(tmp_path, LIKE), "packed")


def arrays(**changes) -> dict:
    """What a code cache of two records with a melody holds, with changes; None leaves one out."""
    found = {
        "codes": np.arange(12, dtype=np.uint8).reshape(2, 6),
        "lengths": np.array([4, 2]),
        "names": np.array(["a", "b"]),
        "captions": np.array(["a slow piano", ""]),
        "labels": np.array(["", ""]),
        "frame_rate": 50.0,
        "size": 16,
        "codec": "0f",
        "melodies": np.zeros(6, np.uint8),
        "melody_lengths": np.array([4, 2]),
        "melody_bins": 12,
        "melody_rate": 50.0,
    } | changes
    return {name: value for name, value in found.items() if value is not None}


def loaded(tmp_path, **changes) -> CodeSet:
    np.savez(tmp_path / "codes.npz", **arrays(**changes))
    return CodeSet.load(tmp_path / "codes.npz")


NO_TEXT = np.frombuffer(b"\0\xd8\0\0" * 2, "<U1")  # half of a pair, which no file can hold
NO_LETTER = np.frombuffer(b"\xff" * 8, "<U1")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("codes", [np.zeros(6), np.zeros((2, 6)), np.full((2, 6), 16), np.full((2, 6), -1)]),
        ("codes", [np.zeros((0, 6), int), np.array("x"), np.zeros((2, 6), bool), None]),
        ("lengths", [[4], [4, 3], [7, -1], [6, 0], [4.0, 2.0], [[4, 2]], 6, [2**62, 2**62], None]),
        ("lengths", [np.array([2**63 + 4, 2**63 + 2], np.uint64), [], [4, 2, 0]]),
        ("names", [["a"], ["a", "b", "c"], [1, 2], "ab", NO_TEXT, None]),
        ("captions", [NO_TEXT, NO_LETTER, [["a", "b"]], [b"a", b"b"], None]),
        ("labels", [[0.5, 1.0], NO_TEXT, None]),
        ("frame_rate", [0.0, -1.0, np.nan, np.inf, [50.0], "50", None]),
        ("size", [0, -1, 11, 2**40, 16.0, [16], "16", None]),
        ("codec", [["a", "b"], 5, np.zeros((2,) * 20)]),
        ("melodies", [np.zeros(6), np.full(6, 12, np.uint8), np.zeros((6, 1), np.uint8)]),
        ("melody_lengths", [[4], [6], [3, 3], [1, 5], [5, 1], [6, 0], None]),
        ("melody_bins", [0, 2**30, 12.0, None]),
        ("melody_rate", [0.0, np.nan, 5000.0, None]),
    ],
)
def test_a_code_cache_that_makes_no_sense_is_refused(tmp_path, name, values):
    assert len(loaded(tmp_path)) == 2
    for value in values:
        refused(lambda value=value: loaded(tmp_path, **{name: value}), "codes.npz")


def test_a_caption_cache_that_makes_no_sense_is_refused(tmp_path):
    path = tmp_path / "captions.npz"
    whole = {
        "captions": np.array(["a", ""]),
        "states": np.zeros((3, 2), np.float32),
        "lengths": np.array([3, 0]),
        "key": "k",
    }
    np.savez(path, **whole)
    assert [len(states) for states in CaptionStates.load(path).states] == [3, 0]
    for change in [
        {"states": np.zeros(3, np.float32)},
        {"states": np.zeros((3, 2))},
        {"lengths": np.array([3, -1])},
        {"lengths": np.array([2, 0])},
        {"captions": np.array(["a"])},
        {"captions": NO_TEXT},
        {"key": 5},
    ]:
        np.savez(path, **(whole | change))
        refused(lambda: CaptionStates.load(path), "captions.npz", "cannot be read")


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not here")
def test_the_cases():
    for path in sorted(CASES.glob("codeset-*.npz")):
        refused(lambda path=path: CodeSet.load(path), path.name)
