"""Where metrics are shown while a run goes: TensorBoard, Weights & Biases, Trackio."""

import contextlib
import importlib
import json
import secrets
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rvq_jax import files, opening
from rvq_jax.errors import READING, UserError

TENSORBOARD = "tensorboard"
SERVICES = "wandb", "trackio"  # with one interface
NAMES = TENSORBOARD, *SERVICES
PROJECT = "rvq_jax"
IDENTITY = "tracked.json"  # in a run's folder: its identity there


class Tracker(Protocol):
    """Where lines of the log and clips go too."""

    name: str
    failed: bool

    def line(self, step: int, fields: dict) -> None:
        """Shows the numbers of a line of the log."""

    def clip(self, step: int, name: str, sample) -> None:
        """Shows a clip, which has a label, audio `[S, C]` and its rate."""

    def go_back(self, done: int) -> None:
        """Forgets updates that are done again, where it can."""

    def close(self) -> None:
        """Writes what it still holds."""


def check(names: Sequence[str]) -> None:
    """Raises UserError for trackers that are not known, or whose packages are not there."""
    for name in names:
        _module(name)


def open_tracker(name: str, folder: Path, done: int) -> Tracker:
    """A tracker of a run.

    Args:
      name: tensorboard, wandb or trackio.
      folder: of the run, which is called as it is; its config.json is shown too.
      done: updates that count, where it goes on.

    Returns:
      The tracker.

    Raises:
      UserError: another name, a package that is not there, or a service that refuses.
    """
    module = _module(name)
    try:
        # Services greet on standard output, which may be someone's JSON.
        with contextlib.redirect_stdout(sys.stderr):
            if name == TENSORBOARD:
                return TensorBoard(module, folder, done)
            return Service(name, module, folder)
    except Exception as error:
        hint = "look at its folder" if name == TENSORBOARD else "log in to it"
        raise UserError(
            f"--track {name}: {type(error).__name__}: {error}; {hint}, or leave it away"
        ) from error


def _module(name: str) -> Any:
    if name not in NAMES:
        raise UserError(f"--track is {name!r}; known: {', '.join(NAMES)}")
    package = "tensorboardX" if name == TENSORBOARD else name
    try:
        return importlib.import_module(package)
    except ImportError as error:
        where = "pip install 'rvq_jax[track]'" if name == TENSORBOARD else f"pip install {name}"
        raise UserError(f"--track {name} needs {package}: {where}") from error


class TensorBoard:
    """Event files in the run's folder, for `tensorboard --logdir RUN`."""

    name = TENSORBOARD

    def __init__(self, module, folder: Path, done: int):
        """done: updates that count; TensorBoard forgets those of later ones."""
        self.failed, self.module, self.folder = False, module, folder / TENSORBOARD
        self.opened = 0
        self._open(done)

    def _open(self, done: int) -> None:
        # Files are named by the second, in which there may be two.
        options = {"purge_step": done + 1, "filename_suffix": f".{self.opened}"}
        self.writer, self.opened = (
            self.module.SummaryWriter(f"{self.folder}", **options),
            self.opened + 1,
        )

    def line(self, step: int, fields: dict) -> None:
        """As of `Tracker`."""
        for name, value in numbers(fields):
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def clip(self, step: int, name: str, sample) -> None:
        """As of `Tracker`."""
        audio_SC = np.clip(sample.audio, -1, 1)  # as it does itself, not without a word
        self.writer.add_audio(f"samples/{name}", audio_SC, step, sample_rate=sample.rate)
        self.writer.flush()

    def go_back(self, done: int) -> None:
        """As of `Tracker`."""
        self.writer.close()
        self._open(done)

    def close(self) -> None:
        """As of `Tracker`."""
        self.writer.close()


class Service:
    """A run of Weights & Biases, or of Trackio, which has its interface."""

    def __init__(self, name: str, module, folder: Path):
        self.name, self.module, self.failed = name, module, False
        identity, called = _identity(folder), folder.absolute().name
        options = {"project": PROJECT, "config": _config(folder), "resume": "allow"}
        if name == "wandb":
            options |= {"name": called, "dir": f"{folder}", "id": identity}
        else:  # Trackio knows runs by their names alone
            options["name"] = f"{called}-{identity[:6]}"
        module.init(**options)

    def line(self, step: int, fields: dict) -> None:
        """As of `Tracker`."""
        self.module.log(dict(numbers(fields)), step=step)

    def clip(self, step: int, name: str, sample) -> None:
        """As of `Tracker`."""
        shown = self.module.Audio(sample.audio, sample_rate=sample.rate, caption=sample.label)
        self.module.log({f"samples/{name}": shown}, step=step)

    def go_back(self, done: int) -> None:
        """As of `Tracker`; services keep what they were told of a step first."""

    def close(self) -> None:
        """As of `Tracker`."""
        self.module.finish()


def numbers(fields: dict, prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a line of the log, by names such as heldout/bits_by_level/0."""
    for name, value in fields.items():
        if isinstance(value, list):
            value = {f"{i}": x for i, x in enumerate(value)}
        if isinstance(value, dict):
            yield from numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            yield f"{prefix}{name}", value


def _config(folder: Path) -> dict:
    try:
        return json.loads(opening.read_bytes(folder / "config.json"))
    except READING:
        return {}


def _identity(folder: Path) -> str:
    """Of a run at services: the same when it goes on, another in another folder."""
    path = folder / IDENTITY
    try:
        return f"{json.loads(opening.read_bytes(path))['id']}"
    except READING:
        made = secrets.token_hex(8)
        files.write_json(path, {"id": made})
        return made
