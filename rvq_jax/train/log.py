"""metrics.jsonl of a run: what its updates measured, and what they waited for."""

import json
import time
from pathlib import Path

import numpy as np

from rvq_jax import files
from rvq_jax.errors import UserError
from rvq_jax.train import hosts


class Log:
    """One JSON line each, written by the first process alone."""

    def __init__(self, path: Path, done: int):
        """done: updates that count; lines of later ones belong to updates that are done again."""
        self.path, self.waited = path, 0.0
        self.began = self.before = time.perf_counter()
        if not hosts.first() or not path.exists():
            return
        lines = [line for line in path.read_text().splitlines() if _step(line) <= done]
        with files.writing(path) as target:
            target.write_text("".join(line + "\n" for line in lines))
        # Seconds go on from the last line: they count training, not what was lost or waited.
        self.began -= json.loads(lines[-1])["seconds"] if lines else 0.0

    def take(self, batches) -> dict:
        """The next batch; the time that it takes counts as waiting for data."""
        began = time.perf_counter()
        batch = next(batches)
        self.waited += time.perf_counter() - began
        return batch

    def write(self, step: int, metrics: dict) -> None:
        """A line; data_wait is the share of the time since the line before spent on `take`.

        Raises UserError if it cannot be written.
        """
        now = time.perf_counter()
        share = round(self.waited / max(now - self.before, 1e-9), 4)
        self.waited, self.before = 0.0, now
        if hosts.first():
            times = {"seconds": round(now - self.began, 3), "data_wait": share}
            try:
                with self.path.open("a") as file:
                    file.write(json.dumps({"step": step, **times, **_finite(metrics)}) + "\n")
            except OSError as error:
                raise UserError(f"cannot write {self.path}: {error.strerror}") from error


def _finite(value):
    """Values that JSON has: null for what is no number."""
    if isinstance(value, dict):
        return {name: _finite(x) for name, x in value.items()}
    if isinstance(value, list):
        return [_finite(x) for x in value]
    return value if np.isfinite(value) else None


def _step(line: str) -> float:
    """The step of a line; infinity for one cut short by a crash."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return float("inf")
