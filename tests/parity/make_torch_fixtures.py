"""Writes tests/fixtures/torch with torch: python tests/parity/make_torch_fixtures.py

One tree of every kind of tensor and container, in both kinds of file that torch.save has had, its
tensors again as numpy wrote them, one tree of objects as training checkpoints hold them, and a
token model of audiocraft's.
"""

import argparse
import collections
import pathlib
import sys

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))
from audiocraft_files import CONFIG

FOLDER = pathlib.Path(__file__).parents[1] / "fixtures" / "torch"


def tensors() -> dict[str, torch.Tensor]:
    """By what is special about them."""
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    norm = torch.nn.utils.weight_norm(torch.nn.Conv1d(2, 3, 5))
    return {
        "plain": base,
        "view": base[1:3, ::2],
        "transposed": base.T,
        "column": base[:, 1],
        "expanded": torch.ones(1).expand(3, 2),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "empty view": base[4:],
        "parameter": torch.nn.Parameter(torch.arange(3.0)),
        **{f"conv.{name}": value for name, value in norm.state_dict().items()},
        "float64": torch.randn(3, dtype=torch.float64),
        "float16": torch.randn(3).half(),
        "bfloat16": torch.randn(3, 4).bfloat16(),
        "bfloat16 view": torch.randn(3, 4).bfloat16().T[1:],
        "int64": torch.tensor([-(2**40), 2**40]),
        "int32": torch.tensor([-70_000, 70_000], dtype=torch.int32),
        "int16": torch.tensor([-300, 300], dtype=torch.int16),
        "int8": torch.tensor([-5, 5], dtype=torch.int8),
        "uint8": torch.tensor([5, 250], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
    }


def plain():
    """Everything that is no tensor and is read for what it is."""
    numbers = [0, 255, -1, 70_000, 2**40, -(2**80), 0.5, True, False, None]
    return {
        "numbers": numbers,
        "texts": ["", "né", "x" * 300],
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "size": torch.Size([2, 3]),
        "ordered": collections.OrderedDict([("b", 1), ("a", [2])]),
        7: {"nested": {}},
    }


def foreign():
    """A training checkpoint's objects beside its weights."""
    history = collections.defaultdict(list)
    history["loss"].append(0.5)
    return {
        "best_state": {"model": {"weight": torch.arange(6.0).reshape(2, 3)}},
        "xp.cfg": argparse.Namespace(rate=16_000, folder=pathlib.PurePosixPath("a/b")),
        "history": history,
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "best": np.float64(0.25),
    }


def audiocraft_lm():
    """A token model as audiocraft exports one: half precision, its config as text."""
    torch.manual_seed(0)
    dim, text, hidden, levels, size, layers = 24, 12, 40, 4, 16, 2
    shapes = {"condition_provider.conditioners.description.output_proj.weight": (dim, text)}
    shapes["condition_provider.conditioners.description.output_proj.bias"] = (dim,)
    for k in range(levels):
        shapes[f"emb.{k}.weight"] = (size + 1, dim)
        shapes[f"linears.{k}.weight"] = (size, dim)
    norms = ["out_norm"]
    for i in range(layers):
        name = f"transformer.layers.{i}"
        for attention in ("self_attn", "cross_attention"):
            shapes[f"{name}.{attention}.in_proj_weight"] = (3 * dim, dim)
            shapes[f"{name}.{attention}.out_proj.weight"] = (dim, dim)
        shapes |= {f"{name}.linear1.weight": (hidden, dim), f"{name}.linear2.weight": (dim, hidden)}
        norms += [f"{name}.{norm}" for norm in ("norm1", "norm_cross", "norm2")]
    shapes |= {f"{norm}.{part}": (dim,) for norm in norms for part in ("weight", "bias")}
    return {
        "best_state": {name: torch.randn(shape).half() for name, shape in shapes.items()},
        "xp.cfg": CONFIG.format(seconds=10, heads=3, delays=[0, 1, 2, 3]),
        "version": "1.3.0",
        "exported": True,
    }


def numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    tree = {"tensors": tensors(), "plain": plain()}
    torch.save(tree, FOLDER / "zip.pt")
    torch.save(tree, FOLDER / "stream.pt", _use_new_zipfile_serialization=False)
    torch.save(foreign(), FOLDER / "foreign.pt")
    torch.save(audiocraft_lm(), FOLDER / "audiocraft_lm.bin")
    np.savez(FOLDER / "tensors.npz", **{name: numpy(value) for name, value in tensors().items()})
