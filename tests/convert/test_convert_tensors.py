"""Folders of tensors: what is written is read, and what is damaged or does not fit says so."""

import json
import os
import sys
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from refusals import refused

from rvq_jax import files
from rvq_jax.convert import tensors

safetensors = pytest.importorskip("safetensors", reason="safetensors is not installed")
from safetensors.numpy import save_file  # noqa: E402

FIXTURES = Path(__file__).parents[1] / "fixtures" / "torch"
TREE = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.bias": np.float16([1, 2]),
    "steps": np.array(7),
    "none": np.zeros((0, 3), np.float32),
}


def shards(path: Path, weight_map: dict) -> Path:
    """An index beside two files, of the first two tensors and of the others."""
    path.mkdir(exist_ok=True)
    pairs = list(TREE.items())
    save_file(dict(pairs[:2]), path / "model-1.safetensors")
    save_file(dict(pairs[2:]), path / "model-2.safetensors")
    (path / tensors.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return path


WHOLE = {name: f"model-{1 + i // 2}.safetensors" for i, name in enumerate(TREE)}


def assert_same(found: dict, expected: dict) -> None:
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], strict=True)


def test_what_is_saved_is_loaded(tmp_path):
    """No dimensions, no elements, every kind; the config beside is as files.py reads it."""
    tensors.save_folder(tmp_path / "m", {"model_type": "encodec"}, TREE)
    assert_same(tensors.load_folder(tmp_path / "m"), TREE)
    assert files.load_config(tmp_path / "m") == {"model_type": "encodec"}
    with safetensors.safe_open(str(tmp_path / "m" / tensors.SINGLE), "numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_arrays_are_saved_by_their_meaning_not_their_memory(tmp_path):
    """A transposed array and one of JAX; the package itself writes memory as it lies."""
    base = TREE["a.weight"]
    tree = {"t": base.T, "every": base[:, ::2], "jax": jnp.asarray(base)}
    tensors.save_folder(tmp_path / "m", {}, tree)
    expected = {name: np.array(value) for name, value in tree.items()}
    assert_same(tensors.load_folder(tmp_path / "m"), expected)


def test_bfloat16_is_read_as_float32_exactly(tmp_path):
    values = np.float32([1, -2.5, 3e38, 1e-40, np.inf]).astype(ml_dtypes.bfloat16)
    tensors.save_folder(tmp_path / "m", {}, {"a": values})
    assert_same(tensors.load_folder(tmp_path / "m"), {"a": values.astype(np.float32)})


def test_saving_replaces_a_folder_whole_or_not_at_all(tmp_path, monkeypatch):
    tensors.save_folder(tmp_path / "m", {}, TREE)

    def fail(*_, **__):
        raise safetensors.SafetensorError("No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", fail)
    refused(lambda: tensors.save_folder(tmp_path / "m", {"new": 1}, {}), "free some space")
    assert files.load_config(tmp_path / "m") == {} and os.listdir(tmp_path) == ["m"]
    assert_same(tensors.load_folder(tmp_path / "m"), TREE)


def test_shards_are_one_model(tmp_path):
    assert_same(tensors.load_folder(shards(tmp_path, WHOLE)), TREE)


def test_a_file_of_torch_is_read_where_there_is_no_other(tmp_path):
    (tmp_path / tensors.TORCH).write_bytes((FIXTURES / "foreign.pt").read_bytes())
    found = tensors.load_folder(tmp_path)
    assert_same(found, {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)})


def test_a_folder_of_something_else_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "gone"):
        refused(lambda path=path: tensors.load_folder(path), path.name, tensors.SINGLE)


def test_damaged_files_are_refused(tmp_path):
    """Cut anywhere, in the header or behind it, and with a header that lies."""
    tensors.save_folder(tmp_path / "m", {}, TREE)
    path = tmp_path / "m" / tensors.SINGLE
    whole = path.read_bytes()
    lies = [whole[:8].replace(b"\0\0\0", b"\xff\xff\xff") + whole[8:]]
    lies += [whole.replace(b'"shape":[2,3]', b'"shape":[9,9]')]
    for data in [*(whole[:end] for end in range(0, len(whole), 29)), *lies]:
        path.write_bytes(data)
        refused(lambda: tensors.load_folder(tmp_path / "m"), tensors.SINGLE, "get it again")


def test_numbers_that_numpy_lacks_are_refused(tmp_path):
    header = b'{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
    data = len(header).to_bytes(8, "little") + header + b"ab"
    (tmp_path / tensors.SINGLE).write_bytes(data)
    refused(lambda: tensors.load_folder(tmp_path), tensors.SINGLE, "float8_e4m3")


@pytest.mark.parametrize(
    ("weight_map", "words"),
    [
        (WHOLE | {"more": "model-2.safetensors"}, "lists 'more'"),
        (WHOLE | {"more": "model-3.safetensors"}, "model-3.safetensors"),
        (WHOLE | {"more": "../model-1.safetensors"}, "'../model-1.safetensors'"),
        (WHOLE | {"more": "/etc/model.safetensors"}, "'/etc/model.safetensors'"),
        (WHOLE | {"more": "..\\m.safetensors"}, "no file of its folder"),
        (WHOLE | {"more": ".."}, "'..'"),
        (WHOLE | {"more": 3}, "names 3"),
        (WHOLE | {"more": ["a"]}, "names ['a']"),
        ([], "no object"),
    ],
)
def test_an_index_that_is_wrong_or_leaves_its_folder_is_refused(tmp_path, weight_map, words):
    path = shards(tmp_path / "m", weight_map)
    save_file(TREE, tmp_path / "model-1.safetensors")
    refused(lambda: tensors.load_folder(path), "m/model", words)


def test_an_index_that_is_no_json_is_refused(tmp_path):
    for text in ("", "[1]", '{"a": 1}', '"' * 9):
        (tmp_path / tensors.INDEX).write_text(text)
        refused(lambda: tensors.load_folder(tmp_path), tensors.INDEX, "as an index")


def test_the_missing_package_is_named(tmp_path, monkeypatch):
    tensors.save_folder(tmp_path / "m", {}, TREE)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for call in (
        lambda: tensors.load_folder(tmp_path / "m"),
        lambda: tensors.save_folder(tmp_path / "m", {}, TREE),
    ):
        refused(call, "pip install safetensors")


def test_take_gives_what_is_wanted_in_that_order():
    wanted = {name: TREE[name].shape for name in reversed(TREE) if name != "steps"}
    found = {name: TREE[name] for name in wanted}
    assert list(tensors.take(dict(reversed(found.items())), wanted, "m")) == list(wanted)


def test_take_names_what_does_not_fit():
    """Some of every kind, and how many there are."""
    wanted = {f"new.{i}": (1,) for i in range(20)} | {"a.weight": [3, 2], "steps": ()}
    refused(
        lambda: tensors.take(TREE, wanted, "m"),
        *("m does not fit", "20 missing (new.0, ", "new.7, ...)", "2 unknown (a.bias, none)"),
        "1 of another shape (a.weight is (2, 3), not (3, 2))",
        "1 without floating-point numbers (steps is int64)",
    )
