"""Files that appear whole or not at all, and folders of a config and named arrays."""

import contextlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rvq_jax.errors import UserError


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    It may become a file or a folder. Raises UserError if the place cannot be written to (a full
    disk, a read-only folder); nothing half-written stays.
    """
    path = Path(path)
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        # The suffix stays: some writers choose their format by it.
        target = beside / path.name
        yield target
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(target, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; "
            "free some space or choose another folder with --out"
        ) from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def write_json(path: str | Path, data) -> None:
    """Writes JSON atomically; raises UserError if the folder cannot be written to."""
    with writing(path) as target:
        target.write_text(json.dumps(data, indent=2) + "\n")


def save_folder(path: str | Path, config: dict, arrays: dict) -> None:
    """A folder of config.json and weights.npz; arrays is a nested dict, its keys joined by '/'."""
    with writing(path) as folder:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        np.savez(
            folder / "weights.npz", **{name: np.asarray(x) for name, x in _names(arrays).items()}
        )


def load_folder(path: str | Path) -> tuple[dict, dict]:
    """The config and nested arrays of such a folder; raises UserError if it is not one."""
    path = Path(path)
    try:
        config = json.loads((path / "config.json").read_text())
        with np.load(path / "weights.npz", allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except FileNotFoundError as error:
        raise UserError(f"{path} is not a model folder: {error.filename} is not there") from error
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read ({error}); copy or train it again") from error
    return config, _nest(arrays)


def matching(arrays: dict, like: dict, where: str | Path) -> dict:
    """Arrays checked against the nested dict of shapes `like`.

    Raises UserError naming the first array that is missing, unknown or of another shape.
    """
    have, want = _names(arrays), _names(like)
    for name in [*want, *have]:
        problem = (
            "is missing"
            if name not in have
            else "is unknown to this config"
            if name not in want
            else f"has shape {have[name].shape}, the config says {want[name].shape}"
            if have[name].shape != want[name].shape
            else None
        )
        if problem:
            raise UserError(f"{where}: weights do not fit config.json: {name} {problem}")
    return arrays


def _names(tree: dict, prefix: str = "") -> dict:
    """Nested dicts as one, keys joined by '/'."""
    flat = {}
    for name, value in tree.items():
        inner = isinstance(value, dict)
        flat |= _names(value, f"{prefix}{name}/") if inner else {f"{prefix}{name}": value}
    return flat


def _nest(flat: dict) -> dict:
    tree: dict = {}
    for name, value in flat.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree
