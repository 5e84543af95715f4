"""Files that appear whole or not at all, and folders of a config and named arrays."""

import contextlib
import errno
import fnmatch
import hashlib
import itertools
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from rvq_jax import npz
from rvq_jax.errors import READING, UserError, clipped, printable, shown
from rvq_jax.opening import read_bytes
from rvq_jax.trees import named

RUN_MODEL, RUN_LOG = "model", "metrics.jsonl"  # in the folder of a run
WEIGHTS = "weights.npz", "model.safetensors"  # in that of a model
CONFIG_BYTES = 4 << 20  # of a config.json, which has thousands at most

TEMPORARY = ".rvq-jax-"  # how our temporary names begin: short, however long those they stand for
# What model folders hold, and may therefore be replaced in one; with a slash, folders of the same.
MODEL = ("config.json", "model.safetensors", "weights.npz", "artefact.json", "*.stablehlo")
MODEL += ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "spiece.model")
MODEL += ("special_tokens_map.json", "preprocessor_config.json")
MODEL += ("codec/", "text/", "discriminators/")


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """A temporary path that becomes the file `path` when the block ends without an error.

    A link there is replaced, never what it points to. Raises UserError, before the block where it
    can be known then, if no file can be there (see `check_file`); nothing half-written stays.
    """
    path = Path(path)
    with _beside(path, path.parent) as beside:
        _check_no_folder(path)
        # The suffix stays: some writers choose their format by it.
        target = beside / path.name
        yield target
        _move(target, path)


@contextlib.contextmanager
def writing_folder(path: str | Path, ours: tuple[str, ...] = MODEL) -> Iterator[Path]:
    """A temporary folder that becomes the folder `path` when the block ends without an error.

    A folder that is there stays the one it is (a link to it, a mount point): it gets the new
    entries, and loses of its own those that are ours. Raises UserError as `writing` does (see
    `check_folder`).
    """
    path = Path(path)
    with _beside(path, path if os.path.isdir(path) else path.parent) as beside:
        _check_no_strangers(path, ours)
        target = beside / "folder"
        target.mkdir()
        yield target
        if os.path.isdir(path):
            _clear(path, ours)
            _move_into(target, path)
        else:
            os.replace(target, path)


def check_file(path: str | Path) -> None:
    """Raises UserError if a file cannot be written there: asked before work of which it is the
    result. A folder or a device is not replaced by it."""
    with _beside(Path(path), Path(path).parent):
        _check_no_folder(Path(path))


def check_folder(path: str | Path, ours: tuple[str, ...] | None = MODEL) -> None:
    """Raises UserError if a folder cannot be written there, or one there holds what is not ours.

    ours: names that may be replaced, as in `MODEL`; None for a folder that may hold anything.
    """
    path = Path(path)
    with _beside(path, path if os.path.isdir(path) else path.parent):
        _check_no_strangers(path, ours)


@contextlib.contextmanager
def _beside(path: Path, parent: Path) -> Iterator[Path]:
    """A folder in `parent` for what is to become `path`; it goes, and parents made for it if they
    stay empty."""
    made, beside = [], None
    try:
        made = [place for place in (parent, *parent.parents) if not place.exists()]
        parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=parent))
        yield beside
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; "
            "free some space or choose another folder with --out"
        ) from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)
        for place in made:
            with contextlib.suppress(OSError):
                place.rmdir()


def _mode(path: Path) -> int | None:
    """Of what is there, None for nothing; raises OSError for a name that cannot be."""
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None
    except ValueError as error:  # a name with a NUL
        raise OSError(f"{error}") from None


def _check_no_folder(path: Path) -> None:
    mode = _mode(path)
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder; name a file in it")
    if mode is not None and not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise UserError(f"{path} is a device or a pipe, which no file replaces; name another")


def _check_no_strangers(path: Path, ours: tuple[str, ...] | None) -> None:
    if not os.path.isdir(path):
        if _mode(path) is not None:
            what = "a link to no folder" if path.is_symlink() else "a file"
            raise UserError(f"{path} is {what}; name a folder")
        return
    for stranger in () if ours is None else _strangers(path, ours):
        raise UserError(f"{path} holds other files ({stranger.name}); choose another with --out")


def _is_ours(path: Path, ours: tuple[str, ...]) -> bool:
    """Whether an entry may be replaced, as far as its name and its kind say."""
    link, folder = path.is_symlink(), path.is_dir()
    names = [name.rstrip("/") for name in ours if link or name.endswith("/") == folder]
    return any(fnmatch.fnmatchcase(path.name, name) for name in names)


def _strangers(folder: Path, ours: tuple[str, ...]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(TEMPORARY):
            continue
        if not _is_ours(path, ours):
            yield path
        elif path.is_dir() and not path.is_symlink():
            yield from _strangers(path, ours)


def _clear(folder: Path, ours: tuple[str, ...]) -> None:
    """Takes out what is ours; the config first, without which it is no model."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name != "config.json"):
        if path.name.startswith(TEMPORARY) or not _is_ours(path, ours):
            continue
        if path.is_dir() and not path.is_symlink():
            _clear(path, ours)
            with contextlib.suppress(OSError):  # others' files in it, or a mount point
                path.rmdir()
        else:
            path.unlink()


def _move_into(source: Path, folder: Path) -> None:
    """Entries of a folder into another; the config last."""
    for path in sorted(source.iterdir(), key=lambda path: path.name == "config.json"):
        place = folder / path.name
        if path.is_dir() and place.is_dir() and not place.is_symlink():
            _move_into(path, place)
        else:
            _move(path, place)


def _move(source: Path, place: Path) -> None:
    try:
        os.replace(source, place)
    except OSError as error:
        mounted = error.errno in (errno.EBUSY, errno.EXDEV) and not place.is_symlink()
        if not mounted or not source.is_file():
            raise
        # What is mounted there is not replaced: it takes the bytes.
        shutil.copyfile(source, place)


def set_aside(path: Path) -> Path:
    """Renames what is at `path` to the first free name of .damaged, .damaged.2, …; returns it."""
    for count in itertools.count(1):
        place = path.with_name(f"{path.name}.damaged" + f".{count}" * (count > 1))
        if not os.path.lexists(place):
            return path.rename(place)


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """A temporary folder; raises UserError if there is no room for one."""
    try:
        with tempfile.TemporaryDirectory(prefix=TEMPORARY) as folder:
            yield Path(folder)
    except OSError as error:
        raise UserError(
            f"cannot write temporary files ({error.strerror or error}); "
            "free some space or set TMPDIR to another folder"
        ) from error


def write_json(path: str | Path, data) -> None:
    """Writes JSON atomically; raises UserError if the folder cannot be written to."""
    with writing(path) as target:
        target.write_text(json.dumps(data, indent=2) + "\n")


def save_folder(path: str | Path, config: dict, tree) -> None:
    """A folder of config.json and weights.npz, one array per leaf, named by its path."""
    leaves = named(tree)
    # Half precision is for a small folder; packing gains little else, and takes its time.
    small = any(leaf.dtype == np.float16 for leaf in leaves.values())
    with writing_folder(path) as folder:
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (np.savez_compressed if small else np.savez)(folder / "weights.npz", **leaves)


def model_folder(path: str | Path) -> Path:
    """The folder of a model that is meant: of a run, `RUN`, that of its end, `RUN/model`.

    Raises UserError for a run without one.
    """
    path = Path(path)
    own = any((path / name).is_file() for name in WEIGHTS)
    if (path / RUN_MODEL / "config.json").is_file() and not own:
        return path / RUN_MODEL
    if (path / RUN_LOG).is_file() and (path / "config.json").is_file():
        raise UserError(f"{path} is a run without a model: it has one once `rvq-jax train` ends")
    return path


def load_config(path: str | Path) -> dict:
    """config.json of a folder; raises UserError if it is not there or not JSON."""
    file = Path(path) / "config.json"
    try:
        config = json.loads(read_bytes(file, CONFIG_BYTES))
    except FileNotFoundError:
        why = "it has no config.json" if Path(path).is_dir() else "it is not there"
        how = "models are folders on this disk, nothing is downloaded"
        raise UserError(f"{path} is not a model folder: {why}; {how}") from None
    except READING as error:
        reason = clipped(printable(f"{error}"), 160)
        raise UserError(f"{path} is not a model folder: config.json: {reason}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a model folder: config.json holds no object")
    return config


def load_weights(path: str | Path, like, today: Callable[[str], str] = lambda name: name):
    """weights.npz of a folder as a tree like `like`, a tree of shapes.

    today: from a name in the file to the name that this version has for the array. Half precision
    becomes float32, in which all is kept. Raises UserError naming the first array that is missing,
    unknown or of another shape.
    """
    import jax

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
                elif not _fits(dtype.newbyteorder("="), want[name].dtype):
                    problem = f"is {dtype}, not {want[name].dtype}"
                else:
                    continue
            raise UserError(f"{path}/weights.npz does not fit config.json: {name} {problem}")
        leaves = [stored[have[name]].astype(leaf.dtype, copy=False) for name, leaf in want.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _fits(stored: np.dtype, wanted: np.dtype) -> bool:
    return stored == wanted or (stored, wanted) == (np.float16, np.float32)


def fingerprint(arrays: dict) -> bytes:
    """SHA-256 over arrays by name, in that order: 32 bytes that tell weights apart."""
    digest = hashlib.sha256()
    for name, leaf in arrays.items():
        array = np.asarray(leaf)
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.digest()
