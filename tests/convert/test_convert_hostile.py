"""What a pickle of another project holds is checked before it is hashed, copied or formatted.

Each of these once ended the process, took hours or gigabytes, or is of the same kind.
"""

import struct
import time
import zipfile

import numpy as np
import pytest
from foreign_codes import descript, npy, saved
from safetensors.numpy import save_file
from tiers import slow, tried
from torch_files import op, tensor, write_stream, write_zip

from rvq_jax.convert import dac_file, names, pickled, tensors, torch_file
from rvq_jax.errors import UserError, shown

DEEP = b")" + b"\x85" * 120_000  # deep enough that hashing it ends the process
SHARED = b")q\xf0" + b"h\xf0h\xf0\x86q\xf0" * 40  # 2^40 to whoever walks it
HUGE = b"\x8b" + struct.pack("<i", 100_000) + b"\x01" * 100_000  # a number of 800,000 bits
LIST = b"]q\xf1h\xf1a"  # in itself
TEXT = b"X" + struct.pack("<I", 10**6) + b"x" * 10**6
PIECES = {"deep": DEEP, "shared": SHARED, "huge": HUGE, "list": LIST, "text": TEXT}
GLOBAL = b"ctorch\nFloatStorage\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n("


def storage(kind=GLOBAL, key=b"X\x01\0\0\x000", size=b"K\x04", rest=b"tQ") -> bytes:
    return b"(" + op("storage") + kind + key + op("cpu") + size + rest


def view(offset=b"K\0", shape=b"K\x04\x85", strides=b"K\x01\x85") -> bytes:
    return REBUILD + storage() + offset + shape + strides + b"\x89NNtR"


def within(call, *words: str) -> None:
    """Refused in a line of 300 characters, and in seconds of this process."""
    began = time.process_time()
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert time.process_time() - began < 5
    assert len(message) < 300 and message.isprintable()
    assert not [word for word in words if word not in message], message


PLACES = ["kind", "key", "size", "offset", "shape", "strides"]
PLACES += ["module", "name", "id", "dict", "set"]


@pytest.mark.parametrize("write", [write_zip, write_stream])
@pytest.mark.parametrize(
    ("place", "piece"),
    # What nests deep is dear to read, and told from what is shared only where it is hashed.
    [(a, b) for a in PLACES for b in PIECES if b != "deep" or a in ("key", "dict", "set")],
)
def test_no_place_of_a_pickle_takes_what_is_not_its_type(tmp_path, write, piece, place):
    value = PIECES[piece]
    ops = {
        "module": value + op("x") + b"\x93",
        "name": op("x") + value + b"\x93",
        "id": value + b"Q",
        "dict": b"}" + value + b"Ns",
        "set": b"(" + value + b"\x91",
    }
    if place in ("kind", "key", "size"):
        ops[place] = storage(**{place: value})
    elif place in ("offset", "shape", "strides"):
        ops[place] = view(**{place: value})
    path = write(tmp_path / "a.pt", b"\x80\x04" + ops[place])
    if piece == "text" and place in ("dict", "set", "module", "name") and write is write_zip:
        torch_file.read(path)  # A text is what they take; the other has a storage without a kind.
    else:
        within(lambda: torch_file.read(path))


@pytest.mark.parametrize("piece", tried(PIECES.keys() - {"deep"}, PIECES))
@pytest.mark.parametrize("place", ["metadata", "codes", "version", "global", "shape"])
def test_no_place_of_a_dac_file_takes_what_is_not_its_type(tmp_path, piece, place):
    array = b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R(K\x01"
    record = array + b")cnumpy\ndtype\n" + op("O8") + b"\x85R(K\x03X\x01\0\0\0|tb\x89]"
    inner = {
        "metadata": b"}(" + op("metadata") + PIECES[piece] + b"u",
        "codes": b"}(" + op("codes") + PIECES[piece] + op("metadata") + b"}"
        b"(" + op("dac_version") + op("1.0.0") + b"uu",
        "version": b"}(" + op("metadata") + b"}(" + op("dac_version") + PIECES[piece] + b"uu",
        "global": PIECES[piece] + op("x") + b"\x93",
        "shape": array + PIECES[piece] + b"cnumpy\ndtype\n" + op("u2") + b"\x85R\x89C\x02abtb",
    }[place]
    (tmp_path / "a.dac").write_bytes(npy(b"\x80\x04" + record + inner + b"atb."))
    within(lambda: dac_file.read(tmp_path / "a.dac"), "cannot be read as a .dac file")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("input_db", [np.inf, -np.inf, np.nan, 1e30, np.float32([-20, np.nan]), np.float64([])]),
        ("sample_rate", [0, 10**9, 2**63, 2**5000]),
        ("original_length", [0, 2**41, 2**5000]),
        ("chunk_length", [0, 2**41]),
        ("channels", [0, 10**9]),
    ],
)
def test_numbers_of_a_dac_file_are_named(tmp_path, field, values):
    for value in values:
        (tmp_path / "a.dac").write_bytes(saved(descript(np.zeros((1, 9, 3)), **{field: value})))
        within(lambda: dac_file.read(tmp_path / "a.dac"), field)
    for shape in ((1, 0, 3), (1, 9, 0), (0, 9, 3)):
        word = {0: "channels", 1: "levels", 2: "frames"}[shape.index(0)]
        (tmp_path / "a.dac").write_bytes(saved(descript(np.zeros(shape), channels=1)))
        within(lambda: dac_file.read(tmp_path / "a.dac"), word)


@pytest.mark.parametrize("opcode", [b"\x8f", slow(b"}"), slow(b"]"), slow(b")")])
def test_a_pickle_of_millions_of_opcodes_is_refused(tmp_path, opcode):
    """A set of 216 bytes for each: five hundred megabytes from two."""
    path = write_zip(tmp_path / "a.pt", b"(" + opcode * (4 * pickled.MOST_OPCODES) + b"t")
    within(lambda: torch_file.read(path), "opcodes")


def test_keys_of_one_hash_are_refused(tmp_path):
    """Each new one would be compared with all before."""
    prime = 2**61 - 1
    keys = [(prime * n).to_bytes(12, "little") for n in range(1, 9_000)]
    ops = b"}(" + b"".join(b"\x8a\x0c" + key + b"N" for key in keys) + b"u"
    within(lambda: torch_file.read(write_zip(tmp_path / "a.pt", ops)), "as a key")


def test_numbers_that_are_repeated_are_not_multiplied(tmp_path):
    """By a stride of 0, or by giving one tensor many names: copies would fill the memory."""
    wide = tensor(shape=(2**20, 2**20), strides=(0, 0))
    path = write_zip(tmp_path / "a.pt", b"}" + op("a") + wide + b"s")
    within(lambda: torch_file.read_state(path), "repeat")
    one = tensor(shape=(1 << 20,), strides=(0,)) + b"q\x07"
    ops = b"}" + op("a") + one + b"s"
    ops += b"".join(op(f"b{n}") + b"h\x07s" for n in range(9))
    within(lambda: torch_file.read_state(write_zip(tmp_path / "a.pt", ops)), "repeat")
    tied = b"}" + op("a") + tensor() + b"q\x07s" + op("b") + b"h\x07s"
    assert len(torch_file.read_state(write_zip(tmp_path / "a.pt", tied))[0]) == 2


def test_a_storage_is_of_one_kind(tmp_path):
    other = tensor(kind="torch IntStorage")
    ops = b"}" + op("a") + tensor() + b"s" + op("b") + other + b"s"
    for write in (write_zip, write_stream):
        within(lambda write=write: torch_file.read(write(tmp_path / "a.pt", ops)), "two kinds")


def test_long_names_never_reach_the_rules(tmp_path):
    """A wrapped convolution's pattern takes time by the square of its depth."""
    name = "decoder.model.0" + ".conv" * 20_000 + "x"
    path = write_zip(tmp_path / "a.pt", b"}" + op(name) + tensor() + b"s")
    within(lambda: torch_file.read_state(path), "a tensor's name")
    save_file({name: np.ones(3, np.float32)}, tmp_path / "a.safetensors")
    within(lambda: tensors.read(tmp_path / "a.safetensors"), "a tensor's name")
    longest = "decoder.model.0" + ".conv" * 90 + "x"
    assert list(names.encodec({longest: np.ones(1)}))


def test_names_of_files_cannot_write_on_the_screen(tmp_path):
    evil = "\x1b]0;owned\x07\x1b[2J\rrvq-jax: done\nname: forged"
    path = tmp_path / "a.safetensors"
    save_file({evil: np.ones(3, np.float32)}, path)
    within(lambda: tensors.take(tensors.read(path), {"a": (3,)}, path), "\\x1b")
    for value in (b"N", op([1])):
        torch = write_zip(tmp_path / "a.pt", b"}" + op(evil) + value + b"s")
        within(lambda torch=torch: torch_file.read_state(torch), "\\x1b")
    torch = write_zip(tmp_path / "a.pt", b"}" + op("pretrained") + op(evil * 999) + b"s")
    within(lambda: torch_file.read_state(torch), "only names", "import that")
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + storage(key=op(evil)) + b".")
    within(lambda: torch_file.read(tmp_path / "b.pt"), "\\x1b")


def test_what_a_message_shows_is_short_whatever_it_is():
    deep, wide = (), np.ndarray((7,) * 20, np.uint8, b"x", strides=(0,) * 20)
    for _ in range(100):
        deep = deep, deep
    inside = []
    inside.append(inside)
    values = [
        deep,
        inside,
        {"a": deep},
        10**9999,
        "é\n\x1b" * 999,
        b"\0" * 10**7,
        wide,
        float("nan"),
    ]
    values += [
        pickled.Foreign("a.b", deep),
        {frozenset([1]), None},
        True,
        {n: n for n in range(99)},
    ]
    for value in values:
        text = shown(value)
        assert len(text) <= 60 and text.isprintable(), text
    assert shown({"a": [1, "x"]}) == "{'a': [1, 'x']}" and shown(True) == "True"
