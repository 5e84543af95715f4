"""metrics.jsonl of a run: what its updates measured, how fast they were, what they waited for."""

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from rvq_jax import files, machine, opening
from rvq_jax.errors import READING, UserError, reading
from rvq_jax.train import hosts

LONGEST = 1 << 20  # bytes of a line
# A link is not followed: the log is of this folder, what it points to is not.
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK


class Line(NamedTuple):
    """A line of a log as it stands there, with its newline."""

    step: int
    seconds: float
    text: bytes


class Log:
    """One JSON line each, written by the first process alone; once begun it never stops a run."""

    def __init__(
        self,
        path: Path,
        done: int,
        adopt: Callable[[dict], dict | None] = lambda x: x,
        devices: Sequence[jax.Device] = (),
    ):
        """done: updates that count; lines of later ones belong to updates that are done again.
        adopt: a line's fields as this run has them, None if it has no such line.
        devices: that it runs on.

        Raises UserError if there can be no log.
        """
        self.path, self.adopt, self.failed, self.devices = path, adopt, False, devices
        self._begin(done)

    def go_back(self, done: int) -> None:
        """Forgets the lines of updates that are done again."""
        try:
            self._begin(done)
        except UserError as error:
            self._fail(f"{error}")

    def _begin(self, done: int) -> None:
        self.waited, self.aside, self.last = 0.0, 0.0, done
        self.began = self.before = time.perf_counter()
        if not hosts.first():
            return
        files.check_file(self.path)
        if not self.path.exists():
            # A link to nothing would not be followed.
            self.path.unlink(missing_ok=True)
            return
        lines, damaged = _lines(self.path)
        lines = [ours for line in lines if line.step <= done and (ours := self._adopted(line))]
        with files.writing(self.path) as target:
            target.write_bytes(b"".join(line.text for line in lines))
            if damaged:
                kept = files.set_aside(self.path)
                hosts.warn(f"{self.path} has {damaged} damaged lines; it is put aside as {kept}")
        # Seconds go on from the last line: they count training, not what was lost or waited.
        self.began -= lines[-1].seconds if lines else 0.0

    def _adopted(self, line: Line) -> Line | None:
        fields = json.loads(line.text)
        if (ours := self.adopt(fields)) is None or ours == fields:
            return ours and line
        return line._replace(text=json.dumps(ours).encode() + b"\n")

    def take(self, batches) -> dict:
        """The next batch; the time that it takes counts as waiting for data."""
        began = time.perf_counter()
        batch = next(batches)
        self.waited += time.perf_counter() - began
        return batch

    def write(self, step: int, metrics: dict, batch: int = 0) -> dict:
        """A line, which is returned; batch: examples of an update.

        Since the line before, data_wait is the share of the time that was spent on `take`, and
        examples_per_second leaves out `aside`, seconds in which nothing was trained. Where there is
        no room for a line the run goes on without it, and says so once.
        """
        now = time.perf_counter()
        since = max(now - self.before, 1e-9)
        trained = max(since - self.aside - metrics.get("heldout_seconds", 0.0), 1e-9)
        times = {"seconds": round(now - self.began, 3), "data_wait": round(self.waited / since, 4)}
        times["examples_per_second"] = round((step - self.last) * batch / trained, 3)
        times["memory_gb"] = round(machine.device_memory_gb(self.devices), 3)
        times["device"] = machine.devices_used(self.devices)
        line = {"step": step, **times, **_finite(metrics)}
        self.waited, self.aside, self.before, self.last = 0.0, 0.0, now, step
        if hosts.first():
            try:
                _append(self.path, json.dumps(line).encode() + b"\n")
            except OSError as error:
                self._fail(f"cannot write {self.path}: {error.strerror or error}")
        return line

    def _fail(self, problem: str) -> None:
        if not self.failed:
            hosts.warn(f"{problem}; the run goes on, with lines missing in its log")
        self.failed = True


def read(path: Path) -> list[dict]:
    """The lines of a log that are not damaged; raises UserError for what is no file."""
    return [json.loads(line.text) for line in _lines(path)[0]]


def _lines(path: Path) -> tuple[list[Line], int]:
    """The lines of a log, steps increasing, and how many are damaged.

    Of a step that stands there twice the later line counts, as of a run that went back. Half a line
    at the end, as a killed process leaves it, is no damage.
    """
    good, damaged = [], 0
    with (
        reading(path, "a log", "move it away, or choose another --out"),
        opening.opened(path) as file,
    ):
        while text := file.readline(LONGEST):
            line = _parsed(text)
            damaged += line is None and text.endswith(b"\n")
            while line and good and good[-1].step >= line.step:
                good.pop()
            if line:
                good.append(line)
    return good, damaged


def _parsed(text: bytes) -> Line | None:
    """A line that `Log.write` makes, else None."""
    try:
        fields = json.loads(text.decode())
        json.dumps(fields, allow_nan=False)
        step, seconds = fields["step"], fields["seconds"]
        if not (type(step) is int and type(seconds) in (int, float)):
            return None
        return Line(step, float(seconds), text.rstrip(b"\n") + b"\n") if step >= 0 else None
    except READING:
        return None


def _append(path: Path, data: bytes) -> None:
    """Adds to a file all of the data or nothing; raises OSError."""
    file = os.open(path, FLAGS, 0o666)
    try:
        size = os.fstat(file).st_size
        try:
            if os.write(file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file, size)
            raise
    finally:
        os.close(file)


def _finite(value):
    """Values that JSON has: null for what is no number."""
    if isinstance(value, dict):
        return {name: _finite(x) for name, x in value.items()}
    if isinstance(value, list):
        return [_finite(x) for x in value]
    return value if np.isfinite(value) else None
