"""Where metrics are shown while a run goes: TensorBoard, Weights & Biases, Trackio."""

import importlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rvq_jax import files, opening
from rvq_jax.errors import READING, UserError

TENSORBOARD = "tensorboard"
SERVICES = "wandb", "trackio"  # with one interface
NAMES = TENSORBOARD, *SERVICES
PROJECT = "rvq_jax"
IDENTITY = "tracked.json"  # in a run's folder: its identity there, by service


class Tracker(Protocol):
    """Where lines of the log and clips go too."""

    name: str
    failed: bool

    def line(self, step: int, fields: dict) -> None:
        """Shows the numbers of a line of the log."""

    def clip(self, step: int, name: str, sample) -> None:
        """Shows a clip, which has a label, audio `[S, C]` and its rate."""

    def close(self) -> None:
        """Writes what it still holds."""


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
    if name not in NAMES:
        raise UserError(f"--track is {name!r}; known: {', '.join(NAMES)}")
    package = "tensorboardX" if name == TENSORBOARD else name
    try:
        module: Any = importlib.import_module(package)
    except ImportError as error:
        where = "pip install 'rvq_jax[track]'" if name == TENSORBOARD else f"pip install {name}"
        raise UserError(f"--track {name} needs {package}: {where}") from error
    if name == TENSORBOARD:
        return TensorBoard(module, folder, done)
    return Service(name, module, folder)


class TensorBoard:
    """Event files in the run's folder, for `tensorboard --logdir RUN`."""

    name = TENSORBOARD

    def __init__(self, module, folder: Path, done: int):
        """done: updates that count; TensorBoard forgets those of later ones."""
        self.failed = False
        self.writer = module.SummaryWriter(
            str(folder / TENSORBOARD), purge_step=done + 1 if done else None
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

    def close(self) -> None:
        """As of `Tracker`."""
        self.writer.close()


class Service:
    """A run of Weights & Biases, or of Trackio, which has its interface."""

    def __init__(self, name: str, module, folder: Path):
        """Raises UserError if the service refuses."""
        self.name, self.module, self.failed = name, module, False
        options = {"project": PROJECT, "name": folder.absolute().name, "config": _config(folder)}
        if name == "wandb":
            options |= {"dir": str(folder), "id": _identity(folder, name)}
        try:
            self.run = module.init(resume="allow", **options)
        except Exception as error:
            raise UserError(
                f"--track {name}: {type(error).__name__}: {error}; log in to it, or leave it away"
            ) from error

    def line(self, step: int, fields: dict) -> None:
        """As of `Tracker`."""
        self.module.log(dict(numbers(fields)), step=step)

    def clip(self, step: int, name: str, sample) -> None:
        """As of `Tracker`."""
        shown = self.module.Audio(sample.audio, sample_rate=sample.rate, caption=sample.label)
        self.module.log({f"samples/{name}": shown}, step=step)

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


def _identity(folder: Path, name: str) -> str:
    """Of the run at a service: the same when it goes on, another in another folder."""
    path = folder / IDENTITY
    try:
        known = json.loads(opening.read_bytes(path))
        return f"{known[name]}"
    except READING:
        made = secrets.token_hex(8)
        files.write_json(path, {name: made})
        return made
