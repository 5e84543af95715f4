"""EnCodec's .ecdc and descript's .dac: codes come out as they went in, and no file runs code."""

import builtins
import contextlib
import os
import pickle
import struct
import subprocess
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from foreign_codes import descript, ecdc_bytes, npy, saved
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from rvq_jax.convert import dac_file, ecdc
from rvq_jax.errors import UserError


def not_read(path, reader, *words: str) -> None:
    refused(lambda: reader.read(path), path.name, *words)


def random_codes(seed: int, levels: int, frames: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1024, (levels, frames), np.int32)


@given(samples=st.integers(1, 5000), levels=st.integers(1, 32))
def test_24_khz_is_one_segment_without_scale(tmp_path_factory, samples, levels):
    """A frame per 320 samples, the last one begun."""
    path = tmp_path_factory.getbasetemp() / "a.ecdc"
    codes_KF = random_codes(samples, levels, -(-samples // 320))
    said = {"m": "encodec_24khz", "al": samples, "nc": levels, "lm": False}
    path.write_bytes(ecdc_bytes(said, [(None, codes_KF)]))
    got = ecdc.read(path)
    assert (got.codec, got.rate, got.channels, got.samples) == ("encodec_24khz", 24_000, 1, samples)
    assert len(got.codes) == 1 and len(got.scales) == 0 and got.codes[0].dtype == np.int32
    np.testing.assert_array_equal(got.codes[0], codes_KF)


@pytest.mark.parametrize(
    "samples, frames",
    [
        (1, [1]),
        (47_520, [149]),
        (47_521, [149, 1]),
        (48_000, [150, 2]),
        (100_000, [150, 150, 16]),
    ],
)
def test_48_khz_has_a_segment_every_47520_samples(tmp_path, samples, frames):
    """Each of a second at most, with its scale; the last one may be of a frame that overlaps."""
    segments = [(0.1 + i, random_codes(i, 4, count)) for i, count in enumerate(frames)]
    said = {"m": "encodec_48khz", "al": samples, "nc": 4, "lm": False}
    (tmp_path / "a.ecdc").write_bytes(ecdc_bytes(said, segments))
    got = ecdc.read(tmp_path / "a.ecdc")
    assert (got.rate, got.channels, got.samples) == (48_000, 2, samples)
    assert [codes_KF.shape for codes_KF in got.codes] == [(4, count) for count in frames]
    for codes_KF, (_, want_KF) in zip(got.codes, segments, strict=True):
        np.testing.assert_array_equal(codes_KF, want_KF)
    np.testing.assert_array_equal(got.scales, np.float32([scale for scale, _ in segments]))
    assert got.scales.dtype == np.float32


def test_ecdc_that_cannot_be_read_says_why(tmp_path):
    path = tmp_path / "a.ecdc"
    said = {"m": "encodec_24khz", "al": 1000, "nc": 2, "lm": False}
    good = ecdc_bytes(said, [(None, random_codes(0, 2, 4))])
    not_read(path, ecdc, "not there")
    for change, words in [
        ({"lm": True}, ["language model", "without --lm"]),
        ({"m": "encodec_96khz"}, ["'encodec_96khz'", "encodec_24khz"]),
        ({"m": ["x"]}, ["['x']"]),
        ({"nc": 33}, ["33 levels"]),
        ({"nc": True}, ["damaged"]),
        ({"al": -5}, ["-5 samples"]),
        ({"al": 0}, ["0 samples"]),
        ({"al": 1e3}, ["1000.0 samples"]),
        ({"al": 2**62}, ["cut short"]),
        ({"al": 900}, ["damaged", "2 bytes after"]),
        ({"al": 1281}, ["cut short"]),
    ]:
        path.write_bytes(ecdc_bytes(said | change, [(None, random_codes(0, 2, 4))]))
        not_read(path, ecdc, *words)
    for data, words in [
        (b"", ["no .ecdc file"]),
        (b"RIFF" + good[4:], ["no .ecdc file"]),
        (b"ECDC\1" + good[5:], ["version 1"]),
        (b"ECDC\0\x7f\xff\xff\xff" + good[9:], ["cut short in its header"]),
        (struct.pack("!4sBI", b"ECDC", 0, 2) + b"[]", ["damaged in its header"]),
        (struct.pack("!4sBI", b"ECDC", 0, 2) + b"{}", ["damaged in its header"]),
        (struct.pack("!4sBI", b"ECDC", 0, 9**5) + b"[" * 9**5, ["damaged in its header"]),
    ]:
        path.write_bytes(data)
        not_read(path, ecdc, *words)
    for cut in range(len(good)):
        path.write_bytes(good[:cut])
        not_read(path, ecdc)


@pytest.mark.parametrize("module", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
@pytest.mark.parametrize("channels", [1, 2])
def test_dac_files_of_both_numpys(tmp_path, module, channels):
    """numpy 2 renamed the module that files name."""
    codes_CKF = np.random.default_rng(0).integers(0, 1024, (channels, 9, 144))
    value = descript(codes_CKF, input_db=np.float32([-23.5, -20.0][:channels]))
    # Protocol 3, of older numpy, has names whose length can change without more ado.
    array = np.array(value, object)
    data = pickle.dumps(array, 3).replace(b"numpy._core.multiarray", module)
    for name, content in (("old.dac", npy(data)), ("new.dac", saved(value))):
        (tmp_path / name).write_bytes(content)
        got = dac_file.read(tmp_path / name)
        assert got.codes.dtype == np.int32
        np.testing.assert_array_equal(got.codes, codes_CKF)
        np.testing.assert_array_equal(got.input_db, np.float32([-23.5, -20.0][:channels]))
        assert got[2:] == (5000, 48_000, channels, 72, False, "1.0.0")


@pytest.mark.parametrize(
    "decibels", [-16.5, np.float32(-16.5), np.array(-16.5), np.float64([-16.5])]
)
def test_loudness_of_any_kind(tmp_path, decibels):
    path = tmp_path / "a.dac"
    path.write_bytes(saved(descript(np.zeros((1, 9, 3)), input_db=decibels)))
    got = dac_file.read(path)
    assert got.input_db.dtype == np.float32 and got.input_db.tolist() == [-16.5]


def test_column_order_is_kept(tmp_path):
    """numpy pickles a transposed array as it lies in memory."""
    codes_CKF = np.arange(24, dtype=np.uint16).reshape(4, 3, 2).T
    value = descript(codes_CKF)
    value["codes"] = np.asfortranarray(codes_CKF)
    (tmp_path / "a.dac").write_bytes(saved(value))
    np.testing.assert_array_equal(dac_file.read(tmp_path / "a.dac").codes, codes_CKF)


class Call:
    """Pickles as a call, which reading it as a pickle would make."""

    def __init__(self, function, *args, state=None):
        self.reduced = function, args, state

    def __reduce__(self):
        return self.reduced


class Hashed:
    """A key that pickles as something else."""

    def __init__(self, value):
        self.value = value

    def __reduce__(self):
        return tuple, ([self.value],)


def evils(tmp_path: Path) -> dict:
    """What must not happen: most would make the file `ran`."""
    ran = str(tmp_path / "ran")
    code = f"open({ran!r}, 'w').close()"
    dtype = np.dtype("u2")
    return {
        "os.system": Call(os.system, f"touch {ran}"),
        "eval": Call(builtins.eval, f"__import__('pathlib').Path({ran!r}).touch()"),
        "exec": Call(builtins.exec, code),
        "getattr": Call(builtins.getattr, "a", "upper"),
        "open": Call(builtins.open, ran, "w"),
        "Popen": Call(subprocess.Popen, ["touch", ran]),
        "numpy.fromfile": Call(np.fromfile, "/dev/zero", dtype, 4),
        "numpy.load": Call(np.load, ran, None, True),
        "numpy.zeros": Call(np.zeros, 10**12),
        "numpy.frombuffer": Call(np.frombuffer, b"1234"),
        "nested": Call(list, Call(tuple, Call(builtins.exec, code))),
        "a dict class": OrderedDict(x=1),
        "state": Call(dtype.__class__, "u2", state=Call(builtins.exec, code)),
    }


@pytest.mark.parametrize("name", list(evils(Path())))
@pytest.mark.parametrize("where", ["alone", "codes", "metadata", "input_db", "key", "shape"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_no_pickle_runs(tmp_path, name, where, protocol):
    """Wherever the call is: instead of the dict, in it, or in an array's own description."""
    evil = evils(tmp_path)[name]
    value = descript(np.zeros((1, 9, 3)))
    if where == "alone":
        data = pickle.dumps(evil, protocol)
    elif where == "key":
        data = pickle.dumps(np.array({**value, Hashed(evil): 1}, object), protocol)
    elif where == "shape":
        reconstruct = np.zeros(1).__reduce__()[0]
        state = 1, (evil,), np.dtype("u2"), False, b"12"
        value["codes"] = Call(reconstruct, np.ndarray, (0,), b"b", state=state)
        data = pickle.dumps(np.array(value, object), protocol)
    else:
        if where == "input_db":
            value["metadata"]["input_db"] = evil
        else:
            value[where] = evil
        data = pickle.dumps(np.array(value, object), protocol)
    path = tmp_path / "evil.dac"
    path.write_bytes(npy(data))
    not_read(path, dac_file, "cannot be read as a .dac file")
    assert not (tmp_path / "ran").exists()


def test_the_calls_would_run_if_they_were_unpickled(tmp_path):
    """Else the tests above would prove nothing."""
    for name in ("os.system", "eval", "exec", "nested"):
        (tmp_path / "ran").unlink(missing_ok=True)
        with contextlib.suppress(TypeError):
            pickle.loads(pickle.dumps(evils(tmp_path)[name]))
        assert (tmp_path / "ran").exists(), name


@pytest.mark.parametrize(
    "pickled, word",
    [
        (b"\x80\x02cposix\nsystem\n(S'touch ran'\ntR.", "cannot"),
        (b"cos\nsystem\n(S'touch ran'\ntR.", "cannot"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "torch._utils._rebuild_tensor_v2"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", "builtins.eval"),
        (b"\x80\x02(ibuiltins\neval\n.", "cannot"),
        (b"\x80\x02\x82\x01.", "cannot"),
        (b"\x80\x02cnumpy\ndtype\n\x81.", "cannot"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "cannot"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "cannot"),
        (b"\x80\x02" + b"(" * 10**5 + b".", "cannot"),
        (b"\x80\x02" + b")" + b"\x85" * 10**5 + b".", "cannot"),
        (b"\x80\x02})" + b"\x85" * 400_000 + b"Ns.", "a tuple as a key"),
        (b".", "cannot"),
        (b"", "cannot"),
    ],
)
def test_pickles_made_by_hand(tmp_path, monkeypatch, pickled, word):
    """Other opcodes for a call, for a name, for lengths that are not there."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.dac"
    path.write_bytes(npy(pickled))
    not_read(path, dac_file, word)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"codes": np.array([[[{}]]], object)},
        {"codes": np.array([[["x"]]])},
        {"codes": np.zeros((1, 1, 1), [("a", "u2")])},
        {"codes": np.zeros((1, 1, 1), "M8[s]")},
        {"codes": np.zeros((9, 3), np.uint16)},
        {"codes": np.zeros((1, 9, 3), np.float32)},
        {"codes": [1, 2]},
        {"codes": None},
        {"metadata": None},
        {"metadata": {}},
        {"metadata": "text"},
    ],
)
def test_other_contents_are_refused(tmp_path, change):
    """Arrays of objects above all: each element could be anything."""
    path = tmp_path / "a.dac"
    path.write_bytes(saved(descript(np.zeros((1, 9, 3))) | change))
    not_read(path, dac_file, "cannot be read as a .dac file")


@pytest.mark.parametrize(
    "field",
    [
        {"channels": 2},
        {"channels": 0},
        {"original_length": -1},
        {"sample_rate": 44_100.0},
        {"chunk_length": True},
        {"padding": 1},
        {"dac_version": "2.0.0"},
        {"dac_version": None},
        {"input_db": "loud"},
        {"input_db": np.array([None])},
        {"input_db": np.array([1 + 1j])},
    ],
)
def test_fields_that_make_no_sense_are_refused(tmp_path, field):
    path = tmp_path / "a.dac"
    path.write_bytes(saved(descript(np.zeros((1, 9, 3)), **field)))
    not_read(path, dac_file, "cannot be read as a .dac file")


def test_dac_files_that_are_none_or_cut(tmp_path):
    path = tmp_path / "a.dac"
    not_read(path, dac_file, "not there")
    good = saved(descript(np.ones((1, 9, 3))))
    for data in (b"", b"RIFF" + bytes(99), saved(np.zeros(3)), saved(np.array([{}, {}]))):
        path.write_bytes(data)
        not_read(path, dac_file)
    for cut in range(0, len(good), 3):
        path.write_bytes(good[:cut])
        not_read(path, dac_file)
    for place in range(len(good)):
        for flip in (1, 128):
            wrong = bytearray(good)
            wrong[place] ^= flip
            path.write_bytes(wrong)
            # Codes have no check of their own in this format: only the kind of error is a law.
            try:
                assert dac_file.read(path).codes.ndim == 3
            except UserError as error:
                assert "\n" not in str(error)
