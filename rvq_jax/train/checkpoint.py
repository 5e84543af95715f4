"""Checkpoints of a run: whole, checked and of any mesh; the one user of orbax.

A checkpoint of step n is a folder `n` that orbax writes, the state alone, and then a note `n.json`
beside it: all else that a run goes on from, and the hash of every file. It counts when its note is
there, so that a process killed at any moment leaves the one before.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rvq_jax import files, opening
from rvq_jax.errors import READING, UserError, reading
from rvq_jax.train import hosts
from rvq_jax.train.hosts import warn
from rvq_jax.train.state import TrainState

TIMEOUT = 600  # seconds that processes wait for each other in a save
STEP = re.compile("0|[1-9][0-9]{0,17}")  # names of checkpoints
UNFINISHED = re.compile(rf"({STEP.pattern})\.orbax-checkpoint-tmp(-\d+)?")  # orbax's, in a save
METADATA = "_CHECKPOINT_METADATA"  # of orbax, in every checkpoint of it


class Note(NamedTuple):
    """What a run goes on from beside its state."""

    step: int
    loss: float | None  # mean since the checkpoint before
    data: dict  # position of the batches
    dataset: dict  # what they are made of
    losses: list[float]  # of the last updates, to tell a spike
    heldout: float | None = None  # loss on held-out data, of an evaluated update
    steps: int | None = None  # updates of the run; None in notes of before this was kept


class Checkpoints:
    """A folder of checkpoints by step: the newest `keep` are kept; with best, that of least loss.

    Use it in a `with`; all processes of a run call its methods alike. Raises UserError if the
    folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        keep: int = 2,
        best: bool = False,
        adopt: Callable[[dict], dict | None] = lambda note: note,
        cooldown: int | None = None,
    ):
        """adopt: the fields of a note as this run has it, None if it is not of this run; cooldown:
        the newest checkpoint up to that step is kept too."""
        self.folder, self.keep, self.best = Path(folder).absolute(), keep, best
        self.adopt, self.cooldown = adopt, cooldown
        _silence_threads()
        self._writer = concurrent.futures.ThreadPoolExecutor(1)
        self._writing: concurrent.futures.Future | None = None
        with _writing_to(self.folder):
            str(self.folder).encode()  # tensorstore takes no other names
            self.folder.mkdir(parents=True, exist_ok=True)
            # Also a folder that is there may not be written to.
            tempfile.TemporaryFile(dir=self.folder).close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception) -> None:
        self._writer.shutdown()

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, the newest last."""
        return steps_in(self.folder)

    def latest(self) -> int | None:
        """The step of the newest checkpoint, None if there is none."""
        return max(self.steps(), default=None)

    def save(self, note: Note, state: TrainState) -> None:
        """Starts to save; a save before that failed is warned of, and the run goes on without it.

        Of many processes that one ends: the others wait for its part, in vain.
        """
        try:
            self.wait()
        except UserError as error:
            if jax.process_count() > 1:
                raise
            warn(f"{error}; the run goes on without it")
        place = self.folder / str(note.step)
        self._writing = concurrent.futures.Future()
        try:
            with _writing_to(place), _patient():
                if hosts.first() and os.path.lexists(place) and not _is_ours(place):
                    # orbax would delete it.
                    kept = files.set_aside(place)
                    warn(f"{place} is no checkpoint of this program; it is put aside as {kept}")
                response = _orbax().save_async(place, state, overwrite=True)
            self._writing = self._writer.submit(self._finish, response, note)
        except UserError as error:
            self._writing.set_exception(error)

    def wait(self) -> None:
        """Waits until nothing is being saved; raises UserError if the last save failed."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _finish(self, response, note: Note) -> None:
        place = self.folder / str(note.step)
        with _writing_to(place):
            response.result()
            if hosts.first():
                hashes = {name: _hash(path) for name, path in _files(place).items()}
                fields = {**note._asdict(), "files": hashes}
                files.write_json(_beside(place), {**fields, "sha256": _digest(fields)})
                self._forget()

    def _forget(self) -> None:
        """Removes checkpoints that are no longer to be kept, notes first; only with a note that is
        whole are they known to be ours."""
        notes = {}
        for step in self.steps():
            with contextlib.suppress(UserError):
                notes[step] = _read_note(self.folder / str(step))
        ours = {step: mine for step, note in notes.items() if (mine := self.adopt(note))}
        kept = set(sorted(ours)[-self.keep :])
        if self.best and ours:
            kept.add(min(ours.values(), key=_loss)["step"])
        if self.cooldown is not None:
            kept.update(sorted(step for step in ours if step <= self.cooldown)[-1:])
        for step in notes.keys() - kept:
            place = self.folder / str(step)
            _beside(place).unlink()
            if _is_ours(place):
                shutil.rmtree(place, ignore_errors=True)

    def restore(self, like: TrainState, best: bool = False) -> tuple[TrainState, Note] | None:
        """The newest state that is whole, of the shapes of `like` and placed as it is, and its
        note; None without any.

        One that is damaged is named and put aside, and the one before is taken. best: the one of
        least loss instead. Raises UserError if all are damaged, of another model, or no part of
        this run.
        """
        self.wait()
        found = hosts.broadcast(self._choose(best) if hosts.first() else None)
        if found is None:
            return None
        note = Note(**found)
        place = self.folder / str(note.step)
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        try:
            self._check(place, like)
            with _patient():
                return _orbax().load(place, abstract), note
        except READING as error:
            # orbax prints whole trees of shapes into its message.
            first = textwrap.shorten(str(error).strip().partition("\n")[0], 200)
            raise UserError(
                f"{self.folder} holds checkpoints of another model ({first}); choose another --out"
            ) from error

    def _choose(self, best: bool) -> dict | None:
        """The fields of the note to go on from; clears what was never finished."""
        # Through a link nothing is removed but what a note says is ours.
        for path in () if self.folder.is_symlink() else self.folder.iterdir():
            if _is_ours(path) and not os.path.lexists(_beside(path)):
                shutil.rmtree(path, ignore_errors=True)
        whole, damaged, others = [], {}, []
        for step in reversed(self.steps()):
            place = self.folder / str(step)
            try:
                fields = _read(place)
                ours = self.adopt(fields)
                (others if ours is None else whole).append(ours or fields)
            except UserError as error:
                damaged[place] = error
            if whole and not best:
                break
        if damaged and not whole:
            raise UserError(
                f"no checkpoint in {self.folder} is whole ({next(iter(damaged.values()))}); "
                "delete the folder to start anew"
            )
        if others and not whole:
            raise UserError(
                f"{self.folder} has no checkpoint of before the cool-down to go on from, as a "
                "longer run must: choose another --out"
            )
        # Not before: without any the next start would begin anew.
        for place, error in damaged.items():
            warn(f"{error}; it is put aside and the one before used")
            with _writing_to(place):
                for path in filter(os.path.lexists, (place, _beside(place))):
                    files.set_aside(path)
        return min(whole, key=_loss, default=None)

    def _check(self, place: Path, like: TrainState) -> None:
        """Raises UserError if the state has other arrays: orbax, in the middle of reading, would
        leave tasks behind that complain when they are collected."""
        saved = _shapes(_orbax().metadata(place).metadata)
        want = _shapes(jax.eval_shape(_raw_keys, like))
        for name in sorted(saved.keys() | want.keys()):
            if saved.get(name) != want.get(name):
                raise UserError(
                    f"{self.folder} holds checkpoints of another model ({name}: "
                    f"{saved.get(name)} there, {want.get(name)} here); choose another --out"
                )


def steps_in(folder: Path) -> list[int]:
    """The steps that have a checkpoint in a folder, the newest last; none where it is not."""
    notes = [path for path in Path(folder).glob("*.json") if STEP.fullmatch(path.stem)]
    return sorted(int(path.stem) for path in notes)


def _read(place: Path) -> dict:
    """The fields of a checkpoint's note; raises UserError naming the first file not as saved."""
    fields = _read_note(place)
    with reading(place, "a checkpoint", "it is damaged"):
        there = _files(place)
        for name, stated in fields.pop("files").items():
            if name not in there:
                raise UserError(f"{place / name} is missing")
            if _hash(there[name]) != stated:
                raise UserError(f"{place / name} is damaged")
    return fields


def _read_note(place: Path) -> dict:
    """What a note says, with hashes of files; raises UserError if `_finish` did not write it."""
    note = _beside(place)
    try:
        fields = json.loads(opening.read_bytes(note))
        whole = fields.pop("sha256") == _digest(fields)
        fields = Note._field_defaults | fields
        whole = whole and fields.keys() == {*Note._fields, "files"}
        whole = whole and fields["step"] == int(place.name)
        numbers = (fields[name] for name in ("loss", "heldout"))
        whole = whole and all(type(x) in (int, float, type(None)) for x in numbers)
        whole = whole and type(fields["steps"]) in (int, type(None))
        kinds = {"data": dict, "dataset": dict, "losses": list, "files": dict}
        whole = whole and all(isinstance(fields[name], kind) for name, kind in kinds.items())
    except READING:
        whole = False
    if not whole:
        raise UserError(f"{note} is damaged")
    return fields


def _is_ours(path: Path) -> bool:
    """Whether this program made an entry of the folder: by its name and what is in it."""
    if path.is_symlink() or not path.is_dir():
        return False
    if STEP.fullmatch(path.name):
        with contextlib.suppress(OSError):
            return (path / METADATA).is_file() or not any(path.iterdir())
    return UNFINISHED.fullmatch(path.name) is not None


def _beside(place: Path) -> Path:
    """The note of a checkpoint's folder."""
    return place.with_name(place.name + ".json")


def _files(place: Path) -> dict[str, Path]:
    paths = sorted(path for path in place.rglob("*") if path.is_file())
    return {path.relative_to(place).as_posix(): path for path in paths}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(fields: dict) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _loss(note: dict) -> tuple[bool, float, int]:
    """By which the best note is least: held-out losses before others, the earlier of equal ones."""
    heldout, loss = note["heldout"], note["loss"]
    value = loss if heldout is None else heldout
    return heldout is None, float("inf") if value is None else float(value), note["step"]


@contextlib.contextmanager
def _writing_to(place: Path) -> Iterator[None]:
    try:
        yield
    # tensorstore raises ValueError for a full disk, the runtime RuntimeError for processes that
    # did not come.
    except (OSError, ValueError, RuntimeError) as error:
        words = getattr(error, "strerror", None) or str(error).strip().splitlines()[0]
        raise UserError(f"cannot write {place}: {textwrap.shorten(words, 200)}") from error


@functools.cache
def _silence_threads() -> None:
    """Keeps traces of a save that failed off the screen: its error reaches the caller anyway.

    orbax logs them; tensorstore, whose other writes end after the event loop that waited for
    them, hands those of its threads to sys.unraisablehook.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    hook = sys.unraisablehook

    def without_closed_loops(raised) -> None:
        if str(raised.exc_value) != "Event loop is closed":
            hook(raised)

    sys.unraisablehook = without_closed_loops


def _orbax():
    """Its interface; importing it takes half a second, which help need not wait for."""
    from orbax.checkpoint import v1

    return v1


def _patient():
    context = _orbax().Context()
    context.asynchronous.timeout_secs = TIMEOUT
    return context


def _shapes(tree) -> dict[str, tuple]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(x.shape) for path, x in leaves
    }


def _raw_keys(tree):
    """Random keys as the integers that are stored."""
    return jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x,
        tree,
    )
