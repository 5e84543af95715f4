"""What torch saves now is what torch_file reads, whatever the tree, the file kind, the protocol."""

import collections

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rvq_jax.convert import pickled, torch_file

REASON = "the parity peers are not installed"
torch = pytest.importorskip("torch", reason=REASON)

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


@st.composite
def tensors(draw):
    """A view with its own shape, strides and offset of a storage of any kind."""
    dtype = draw(st.sampled_from(FLOATS + WHOLE))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    tensor = (100 * torch.randn(shape, generator=generator)).to(dtype)
    for axis in range(tensor.ndim):
        start, step = draw(st.integers(0, 3)), draw(st.integers(1, 3))
        tensor = tensor.movedim(axis, 0)[start::step].movedim(0, axis)
    tensor = tensor.permute(draw(st.permutations(range(tensor.ndim))))
    if draw(st.booleans()):
        tensor = tensor[None].expand(3, *tensor.shape)
    return torch.nn.Parameter(tensor) if dtype in FLOATS and draw(st.booleans()) else tensor


# Larger numbers are refused as keys: a file can choose them so that all have one hash.
MOST = pickled.LARGEST_KEY - 1
KEYS = st.text(max_size=5) | st.integers(-MOST, MOST)
LEAVES = tensors() | st.none() | st.booleans() | st.integers() | st.text(max_size=5)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4).map(collections.OrderedDict)
        | st.tuples(inner, inner)
    ),
)


def same(found, saved) -> None:
    """Equal as plain values, tensors bit for bit and of the same shape and kind."""
    if isinstance(saved, torch.Tensor):
        saved = saved.detach()
        expected = (saved.float() if saved.dtype == torch.bfloat16 else saved).numpy()
        np.testing.assert_array_equal(found, expected, strict=True)
    elif isinstance(saved, dict):
        assert type(found) is type(saved) and list(found) == list(saved)
        for key in saved:
            same(found[key], saved[key])
    elif isinstance(saved, list | tuple):
        assert type(found) is type(saved) and len(found) == len(saved)
        for ours, theirs in zip(found, saved, strict=True):
            same(ours, theirs)
    else:
        assert type(found) is type(saved) and found == saved


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "stream"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(tree=TREES)
def test_random_trees(tmp_path, is_zip, protocol, tree):
    """Twice in one tree, so that storages are shared."""
    path, tree = tmp_path / "a.pt", [tree, {"again": tree}]
    torch.save(tree, path, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    same(torch_file.read(path), tree)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "stream"])
def test_state_dict_and_optimizer(tmp_path, is_zip):
    """The metadata of a state dict, and an optimizer's numbers, are in most checkpoints."""
    model = torch.nn.LSTM(3, 4, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3))[0].sum().backward()
    optimizer.step()
    saved = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(saved, tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip)
    same(torch_file.read(tmp_path / "a.pt"), saved)
    found, beside = torch_file.read_state(tmp_path / "a.pt")
    same(collections.OrderedDict(found), saved["state_dict"])
    assert list(beside) == ["optimizer"]


def test_a_module_saved_whole_is_told_from_its_weights(tmp_path):
    torch.save(torch.nn.Linear(2, 3), tmp_path / "a.pt")
    found = torch_file.read(tmp_path / "a.pt")
    assert found.name == "torch.nn.modules.linear.Linear"
    np.testing.assert_array_equal(found.state["_parameters"]["weight"].shape, (3, 2))


@pytest.mark.parametrize("signs", [torch.randn(3)._neg_view(), torch.zeros(2).to(torch.uint16)])
def test_tensors_that_are_not_read_are_refused(tmp_path, signs):
    torch.save(signs, tmp_path / "a.pt")
    with pytest.raises(torch_file.UserError, match=r"lazy negative|_rebuild_tensor_v3"):
        torch_file.read(tmp_path / "a.pt")
