"""Folders of named tensors as transformers writes them, and what a model wants of them."""

import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np

from rvq_jax import files
from rvq_jax.convert import torch_file
from rvq_jax.errors import UserError, reading, shown
from rvq_jax.opening import opened, read_bytes
from rvq_jax.typing import Array

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TORCH, TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
NAMED = 8  # names of tensors in one message


def load_folder(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a model's folder by name, bfloat16 as float32.

    Reads model.safetensors, or the shards that model.safetensors.index.json lists, or else the same
    of pytorch_model.bin. Raises UserError if there is none of them or one is damaged.
    """
    path = Path(path)
    for name, index in ((SINGLE, INDEX), (TORCH, TORCH_INDEX)):
        if (path / name).is_file():
            return _read(path / name)
        if (path / index).is_file():
            return _load_shards(path, index)
    raise UserError(
        f"{path} holds neither {SINGLE} nor {INDEX} nor {TORCH} nor {TORCH_INDEX}; check the folder"
    )


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of one file of safetensors by name, bfloat16 as float32.

    Raises UserError if it is not there, is damaged, or has numbers of a kind that numpy lacks.
    """
    safetensors = _safetensors()
    with reading(path, "a file of safetensors"):
        opened(path).close()
        try:
            with safetensors.safe_open(str(path), framework="numpy") as file:
                found = {name: file.get_tensor(name) for name in file.keys()}
        except safetensors.SafetensorError as error:
            raise ValueError(f"{error}") from None
    for name in found:
        torch_file.check_name(name, path)
    return {
        name: value.astype(np.float32) if value.dtype == ml_dtypes.bfloat16 else value
        for name, value in found.items()
    }


def save_folder(
    path: str | Path,
    config: dict,
    tensors: dict[str, Array],
    beside: dict[str, dict] | None = None,
) -> None:
    """Writes a folder of config.json and model.safetensors, whole or not at all.

    Args:
      path: the folder.
      config: fields of config.json.
      tensors: arrays by name.
      beside: fields of other files of JSON, by the file's name.

    Raises:
      UserError: a place that cannot be written to.
    """
    safetensors = _safetensors()
    from safetensors.numpy import save_file

    # Strided arrays would be written in the order of their memory.
    dense = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    with files.writing_folder(path) as folder:
        for name, fields in {"config.json": config, **(beside or {})}.items():
            (folder / name).write_text(json.dumps(fields, indent=2) + "\n")
        try:
            # Without this metadata transformers before 5 refuses the file.
            save_file(dense, folder / SINGLE, metadata={"format": "pt"})
        except safetensors.SafetensorError as error:
            raise OSError(f"{error}") from error


def take(
    tensors: dict[str, np.ndarray], wanted: dict[str, tuple[int, ...]], path: str | Path
) -> dict[str, np.ndarray]:
    """The tensors of `path` in the order of `wanted`, names with shapes, which they must fit.

    Half and double precision become float32, in which all is kept. Raises UserError that names
    those that are missing, unknown, of another shape or no weights.
    """
    missing = [name for name in wanted if name not in tensors]
    unknown = [name for name in tensors if name not in wanted]
    other = [
        f"{name} is {tensors[name].shape}, not {tuple(shape)}"
        for name, shape in wanted.items()
        if name in tensors and tensors[name].shape != tuple(shape)
    ]
    strange = [
        f"{name} is {tensors[name].dtype}"
        for name in wanted
        if name in tensors and tensors[name].dtype.kind != "f"
    ]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:NAMED])}{', ...' * (len(names) > NAMED)})"
        for what, names in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", other),
            ("without floating-point numbers", strange),
        )
        if names
    ]
    if problems:
        raise UserError(f"{path} does not fit its config: tensors " + "; ".join(problems))
    return {name: tensors[name].astype(np.float32, copy=False) for name in wanted}


def _read(path: Path) -> dict[str, np.ndarray]:
    return torch_file.read_state(path)[0] if path.suffix == ".bin" else read(path)


def _load_shards(path: Path, index: str) -> dict[str, np.ndarray]:
    """What the index lists; it may name files of its own folder only."""
    with reading(path / index, "an index that lists tensors"):
        shards = json.loads(read_bytes(path / index))["weight_map"]
        if not isinstance(shards, dict):
            raise ValueError("its weight_map is no object")
        for name in shards.values():
            if not (isinstance(name, str) and re.fullmatch(r"[\w.-]+\.(safetensors|bin)", name)):
                raise ValueError(f"it names {shown(name)}, no file of its folder")
    found = {}
    for name in sorted(set(shards.values())):
        found |= _read(path / name)
    if lost := [name for name in shards if name not in found]:
        raise UserError(
            f"{path / index} lists {shown(lost[0])}, which its shards lack; get it again"
        )
    return found


def _safetensors():
    """The package, whose absence is told in a line."""
    try:
        import safetensors
    except ImportError as error:
        raise UserError(
            "such files need the package safetensors: pip install safetensors"
        ) from error
    return safetensors
