"""Files that appear whole or not at all, and folders of a config and named arrays."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from rvq_jax import npz
from rvq_jax.errors import READING, UserError, clipped, printable, shown

CONFIG_BYTES = 4 << 20  # of a config.json, which has thousands at most


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    It may become a file or a folder. Raises UserError if the place cannot be written to (a full
    disk, a read-only folder); nothing half-written stays.
    """
    path = Path(path)
    beside, parent_is_new = None, not path.parent.exists()
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
        if parent_is_new:
            # Goes only if it is empty: if nothing came of it.
            with contextlib.suppress(OSError):
                path.parent.rmdir()


def write_json(path: str | Path, data) -> None:
    """Writes JSON atomically; raises UserError if the folder cannot be written to."""
    with writing(path) as target:
        target.write_text(json.dumps(data, indent=2) + "\n")


def save_folder(path: str | Path, config: dict, tree) -> None:
    """A folder of config.json and weights.npz, one array per leaf, named by its path."""
    with writing(path) as folder:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        np.savez(folder / "weights.npz", **named(tree))


def load_config(path: str | Path) -> dict:
    """config.json of a folder; raises UserError if it is not there or not JSON."""
    file = Path(path) / "config.json"
    try:
        if file.is_file() and file.stat().st_size > CONFIG_BYTES:
            raise ValueError(f"it is larger than {CONFIG_BYTES >> 20} MiB")
        config = json.loads(file.read_text())
    except READING as error:
        reason = clipped(printable(f"{error}"), 160)
        raise UserError(f"{path} is not a model folder: config.json: {reason}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a model folder: config.json holds no object")
    return config


def load_weights(path: str | Path, like, today: Callable[[str], str] = lambda name: name):
    """weights.npz of a folder as a tree like `like`, a tree of shapes.

    today: from a name in the file to the name that this version has for the array. Raises
    UserError naming the first array that is missing, unknown or of another shape.
    """
    with npz.reading(Path(path, "weights.npz"), "weights of a model", "make it again") as stored:
        have = {today(name): name for name in stored}
        want = named(like)
        for name in [*want, *have]:
            if name not in have:
                problem = "is missing"
            elif name not in want:
                problem = "is unknown to this config"
            else:
                # The config's words come first: no array is read that it does not ask for.
                shape, dtype = stored.headers[have[name]]
                if shape != want[name].shape:
                    problem = f"has shape {shown(shape)}, the config says {want[name].shape}"
                elif dtype.newbyteorder("=") != want[name].dtype:
                    problem = f"is {dtype}, not {want[name].dtype}"
                else:
                    continue
            raise UserError(f"{path}/weights.npz does not fit config.json: {name} {problem}")
        leaves = [stored[have[name]].astype(leaf.dtype, copy=False) for name, leaf in want.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def named(tree) -> dict:
    """Leaves by path, 'encoder/downs/0/bias'."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def fingerprint(arrays: dict) -> bytes:
    """SHA-256 over arrays by name, in that order: 32 bytes that tell weights apart."""
    digest = hashlib.sha256()
    for name, leaf in arrays.items():
        array = np.asarray(leaf)
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.digest()
