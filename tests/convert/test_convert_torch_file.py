"""Files of torch.save: what torch wrote is what is read, and no file does anything but be read.

The fixtures are written by tests/parity/make_torch_fixtures.py; hostile files are made here.
"""

import collections
import io
import pickle
import random
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from torch_files import op, tensor, write_stream, write_zip

from rvq_jax.convert import pickled, torch_file
from rvq_jax.convert.pickled import Foreign
from rvq_jax.errors import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "torch"
KINDS = ["zip.pt", "stream.pt"]


def not_read(path: Path, *words: str) -> None:
    """Reading raises UserError of one line that has the file's name and all the words."""
    refused(lambda: torch_file.read(path), path.name, *words)


@pytest.mark.parametrize("name", KINDS)
def test_every_tensor_is_what_torch_held(name):
    """Kinds, views, strides, offsets, no dimensions and no elements, bit for bit."""
    found = torch_file.read(FIXTURES / name)["tensors"]
    with np.load(FIXTURES / "tensors.npz") as expected:
        assert list(found) == expected.files
        for key, array in found.items():
            assert array.dtype == expected[key].dtype, key
            np.testing.assert_array_equal(array, expected[key], err_msg=key, strict=True)


@pytest.mark.parametrize("name", KINDS)
def test_views_share_their_storage_and_cannot_be_written(name):
    """A copy per view would cost what sharing saves; shared memory must not change."""
    found = torch_file.read(FIXTURES / name)["tensors"]
    assert np.shares_memory(found["plain"], found["column"])
    with pytest.raises(ValueError, match="read-only"):
        found["plain"][0] = 0


@pytest.mark.parametrize("name", KINDS)
def test_containers_and_plain_values(name):
    found = torch_file.read(FIXTURES / name)["plain"]
    assert found["numbers"] == [0, 255, -1, 70_000, 2**40, -(2**80), 0.5, True, False, None]
    assert found["texts"] == ["", "né", "x" * 300]
    assert found["tuples"] == ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4))
    assert found["size"] == (2, 3) and found[7] == {"nested": {}}
    assert isinstance(found["ordered"], collections.OrderedDict)
    assert list(found["ordered"].items()) == [("b", 1), ("a", [2])]


def test_objects_beside_the_weights_are_named_and_inert():
    """A training checkpoint's configuration need not be importable for its weights to be read."""
    found, beside = torch_file.read_state(FIXTURES / "foreign.pt")
    np.testing.assert_array_equal(found["weight"], np.arange(6, dtype=np.float32).reshape(2, 3))
    config = beside["xp.cfg"]
    assert config.name == "argparse.Namespace" and config.state["rate"] == 16_000
    assert config.state["folder"].name.endswith("PurePosixPath")
    assert beside["history"].name == "collections.defaultdict"
    assert beside["history"].items == [("loss", [0.5])]
    assert beside["dtype"].name == "torch.float16" and beside["device"].args == ("cpu",)
    assert isinstance(beside["best"], Foreign)


@pytest.mark.parametrize("write", [write_zip, write_stream])
@pytest.mark.parametrize(
    "attack",
    [
        b"cposix\nsystem\n" + op(("touch harm",)) + b"R",
        b"cbuiltins\neval\n" + op(("open('harm', 'w')",)) + b"R",
        b"cbuiltins\nopen\n" + op(("harm", "w")) + b"R",
        b"c__builtin__\ngetattr\ncposix\nsystem\n" + op("__call__") + b"\x86R",
        b"cpathlib\nPath\n" + op(("harm",)) + b"\x81}" + op("touch") + op(1) + b"sb",
    ],
    ids=["system", "eval", "open", "getattr", "build"],
)
def test_code_of_a_file_never_runs(tmp_path, monkeypatch, write, attack):
    """Names stay names: beside a tensor the tensor is read, in its place the file is refused."""
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "a.pt", b"}" + op("a") + tensor() + b"s" + op("b") + attack + b"s")
    found = torch_file.read(path)
    np.testing.assert_array_equal(found["a"], [1, 2, 3, 4])
    assert isinstance(found["b"], Foreign)
    with pytest.raises(UserError, match=f"'b' is no tensor but a {found['b'].name}"):
        torch_file.read_state(path)
    assert not (tmp_path / "harm").exists()


def test_a_file_cannot_change_what_reads_it(tmp_path):
    """A state given to a function that is allowed would stay there for the next file."""
    before = dict(vars(torch_file._tensor))
    ops = b"ctorch._utils\n_rebuild_tensor_v2\n}" + op("harm") + op(1) + b"sb0" + tensor()
    torch_file.read(write_zip(tmp_path / "a.pt", ops))
    assert vars(torch_file._tensor) == before


@pytest.mark.parametrize("key", torch_file.INSIDE)
def test_a_state_dict_is_found_where_publishers_put_it(tmp_path, key):
    ops = b"}" + op("a") + tensor() + b"s"
    plain, beside = torch_file.read_state(write_zip(tmp_path / "a.pt", ops))
    assert list(plain) == ["a"] and beside == {}
    ops = b"}" + op(key) + ops + b"s" + op("version") + op("1.2") + b"s"
    found, beside = torch_file.read_state(write_zip(tmp_path / "a.pt", ops))
    assert list(found) == ["a"] and beside == {"version": "1.2"}


@pytest.mark.parametrize("value", [{"pretrained": "facebook/encodec_32khz"}, [1], {"epoch": 3}])
def test_a_file_without_weights_says_what_it_holds(tmp_path, value):
    path = write_zip(tmp_path / "a.pt", op(value))
    with pytest.raises(UserError, match=r"facebook/encodec_32khz|a list|'epoch' is no tensor"):
        torch_file.read_state(path)


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ({"size": 2**40}, "not 1099511627776 numbers"),
        ({"size": -4}, "not -4 numbers"),
        ({"shape": (5,)}, "buffer"),
        ({"shape": (2**40,)}, "buffer"),
        ({"shape": (2**62, 2**62), "strides": (0, 0)}, "too big"),
        ({"strides": (2,)}, "buffer"),
        ({"strides": (2**60,)}, ""),
        ({"offset": 1}, "buffer"),
        ({"offset": -1}, "buffer"),
        ({"strides": (-1,)}, "buffer"),
        ({"shape": (-1,)}, ""),
        ({"shape": "ab"}, ""),
        ({"key": "1"}, "data/1"),
        ({"key": "../../secret"}, "secret"),
        ({"kind": "torch QInt8Storage"}, "torch.QInt8Storage"),
        ({"signs": {"neg": True}}, "negative"),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, lie, words):
    not_read(write_zip(tmp_path / "a.pt", tensor(**lie)), words)


@pytest.mark.parametrize(
    "name", ["torch._utils _rebuild_sparse_tensor", "torch._tensor _rebuild_from_type_v2"]
)
def test_tensors_of_other_kinds_are_refused_by_name(tmp_path, name):
    """Inert they would be missed only later, and under another name."""
    ops = b"c%b\n)R" % name.replace(" ", "\n").encode()
    not_read(write_zip(tmp_path / "a.pt", ops), name.replace(" ", "."))


@pytest.mark.parametrize(
    "ops",
    [
        b"\x8e" + struct.pack("<q", 2**40) + b"abc",
        b"\x96" + struct.pack("<q", 2**62),
        b"X" + struct.pack("<I", 2**32 - 1) + b"abc",
        b"Nr" + struct.pack("<I", 2**32 - 1) + b"00",
        b"\x8b" + struct.pack("<i", 2**31 - 1),
    ],
    ids=["bytes", "bytearray", "text", "memo", "integer"],
)
@pytest.mark.parametrize("write", [write_zip, write_stream])
def test_a_length_that_lies_costs_nothing(tmp_path, write, ops):
    path = write(tmp_path / "a.pt", ops)
    tracemalloc.start()
    not_read(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_stream_that_promises_more_numbers_than_it_has(tmp_path):
    for size in (5, 2**40, 2**62, -1):
        not_read(write_stream(tmp_path / "a.pt", tensor(), size=size))


def test_a_record_that_promises_more_than_the_file(tmp_path):
    """Sizes stand twice in a zip; readers trust the directory at its end."""
    path = write_zip(tmp_path / "a.pt", tensor())
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(data)
    not_read(path, "larger than the file")


@pytest.mark.parametrize(
    ("records", "words"),
    [({"constants.pkl": b""}, "TorchScript"), ({"more/data.pkl": b""}, "")],
)
def test_other_archives_are_told_apart(tmp_path, records, words):
    path = write_zip(tmp_path / "a.pt", tensor(), **records)
    if words:
        not_read(path, words)
    else:
        torch_file.read(path)


def test_an_archive_without_a_value_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
        file.writestr("a/.data/extern_modules", b"")
    not_read(tmp_path / "a.pt", "no data.pkl")


def test_compressed_records_are_refused(tmp_path):
    """Unpacked they may be a thousand times as large as the file."""
    path = write_zip(tmp_path / "a.pt", tensor())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data/1", bytes(2**20))
    not_read(path, "compressed")


@pytest.mark.parametrize("name", ["missing", "empty", "text", "numpy"])
def test_what_is_no_such_file_is_refused(tmp_path, name):
    path = tmp_path / f"{name}.pt"
    if name == "missing":
        return not_read(path, "not there")
    with path.open("wb") as file:
        if name == "numpy":
            np.savez(file, a=np.ones(3))
        else:
            file.write(b"<html>not found</html>\n" * 9 if name == "text" else b"")
    not_read(path, "cannot be read")


@pytest.mark.parametrize("kind", [">f4", ">f8", ">i2", ">i8", "bfloat16", "|b1"])
def test_files_of_big_machines(tmp_path, kind):
    """A record says the order of the storages' bytes; the pickle's own is always little."""
    names = {">f4": "Float", ">f8": "Double", ">i2": "Short", ">i8": "Long", "|b1": "Bool"}
    name = f"torch {names.get(kind, 'BFloat16')}Storage"
    values = np.array([1, 0, 1, 1], kind if kind != "bfloat16" else ">f4")
    data = values.tobytes()
    if kind == "bfloat16":
        # Its bytes are the first two of a float's four, the last first on small machines.
        data = b"".join(data[i : i + 2] for i in range(0, len(data), 4))
    path = write_zip(tmp_path / "a.pt", tensor(kind=name), data, byteorder=b"big")
    found = torch_file.read(path)
    assert found.dtype == values.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("name", [*KINDS, "foreign.pt"])
def test_damage_is_told_in_one_line_whatever_it_is(tmp_path, name):
    """Any cut, and any byte changed: a value or a UserError, never another error."""
    whole, path = (FIXTURES / name).read_bytes(), tmp_path / "a.pt"
    for end in range(0, len(whole) - 1, 61):
        path.write_bytes(whole[:end])
        not_read(path)
    chance = random.Random(0)
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 8])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            torch_file.read(path)
        except UserError as error:
            assert "\n" not in str(error)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner, inner, inner)
    ),
)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@given(tree=TREES)
def test_plain_pickles_are_read_as_pickle_reads_them(protocol, tree):
    """Whatever the protocol's opcodes, what is twice in it is one, and what follows is left."""
    stream = io.BytesIO(pickle.dumps({"a": tree, "b": tree}, protocol) + b"next")
    found = pickled.load(stream, torch_file._call)
    assert stream.read() == b"next"
    assert found["a"] is found["b"] or not isinstance(tree, list | dict)
    assert repr(found["a"]) == repr(tree)


@pytest.mark.parametrize("value", [b"a", b"a" * 300, {1, 2}, frozenset({3}), bytearray(b"a")])
def test_what_only_later_protocols_write_without_a_call(value):
    assert pickled.load(io.BytesIO(pickle.dumps(value, 5))) == value
    assert isinstance(pickled.load(io.BytesIO(pickle.dumps(value, 2))), Foreign)


@pytest.mark.parametrize("protocol", [2, 4])
def test_names_cannot_write_on_the_screen(tmp_path, protocol):
    """A new line or the code of a terminal in a name would go wherever the error goes."""
    ops = b"cevil\x1b[2J\nname\n" if protocol == 2 else op("evil") + op("na\nme") + b"\x93"
    not_read(write_zip(tmp_path / "a.pt", ops), "evil", "\\x1b" if protocol == 2 else "\\n")


def test_a_tuple_inside_itself():
    """Its pickle takes back what it began."""
    inside = []
    inside.append((inside, 1, 2, 3, 4))
    found = pickled.load(io.BytesIO(pickle.dumps(inside, 2)))
    assert found[0][0] is found


@pytest.mark.parametrize(
    "deep", [b"}" + b")" + b"\x85" * 300_000 + b"Ns", b"(" + b")" + b"\x85" * 99]
)
def test_keys_are_flat(deep):
    """A tuple in tuples has no bottom for the hash that a key needs: it once ended the process."""
    ops = deep if deep.startswith(b"}") else deep + b"\x91"
    with pytest.raises(ValueError, match="as a key"):
        pickled.load(io.BytesIO(b"\x80\x04" + ops + b"."))
