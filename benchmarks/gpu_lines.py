"""The lines of a run on a card: JSON, on the disk as soon as they are known, within a time limit.

Several processes, one after another, write to one file; `run` tells theirs from those of others.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import time
import traceback
from importlib import metadata
from pathlib import Path

import common

PACKAGES = "jax", "jaxlib", "flax", "torch", "triton", "transformers"


def arguments(description: str, stages: tuple[str, ...]) -> argparse.Namespace:
    """What benchmarks/gpu.sh gives each process."""
    parser = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    parser.add_argument("--file", type=Path, required=True, help="lines are appended to it")
    parser.add_argument("--stage", choices=stages, required=True)
    parser.add_argument("--until", type=float, required=True, help="seconds since the epoch")
    parser.add_argument("--run", required=True, help="the name of this run")
    parser.add_argument("--tiny", action="store_true", help="everything on the CPU, at tiny sizes")
    return parser.parse_args()


def commit() -> str:
    """Of COMMIT, as a copy of the source may be without its history; else as git has it."""
    if os.environ.get("COMMIT"):
        return os.environ["COMMIT"]
    from rvq_jax import machine

    return machine.commit()


def card() -> dict:
    """The card's name, driver and memory, as the driver has them."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
        name, driver, memory = done.stdout.strip().splitlines()[0].split(", ")
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return {"card": None, "driver": None, "card_memory": None}
    return {"card": name, "driver": driver, "card_memory": memory}


def versions() -> dict:
    """Of Python and what is installed of `PACKAGES`."""
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


class Lines:
    """Writes the lines of one process, and reads those of the processes before it."""

    def __init__(self, parsed: argparse.Namespace):
        self.path, self.run, self.until = parsed.file, parsed.run, parsed.until
        self.about = {"card": card()["card"] or "cpu", "commit": commit()}

    @property
    def left(self) -> float:
        """Seconds."""
        return self.until - time.time()

    def emit(self, case: str, values: dict) -> None:
        """Prints and writes a line; it is on the disk when this returns."""
        values = {"run": self.run, "case": case, **common.rounded(values), **self.about}
        line = json.dumps(values)
        print(line, flush=True)
        with self.path.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def attempt(self, case: str, keys: dict, need: float, function) -> bool:
        """A line of a case: its figures, the error that it ended with, or that it was left out.

        Args:
          case: its name.
          keys: what tells it from others of the name.
          need: seconds that it takes; with less left it is left out.
          function: gives the figures.

        Returns:
          Whether there are figures.
        """
        if self.left < need:
            self.emit(case, keys | {"skipped": "no time left", "seconds_left": self.left})
            return False
        print(f"-- {case} {keys}, {self.left:.0f} s left", file=sys.stderr)
        began, values = time.time(), {}
        try:
            values = function()
        except Exception as error:
            traceback.print_exc()
            values = {"error": f"{type(error).__name__}: {error}"[:200]}
        # Without its frames, which hold the arrays of the case.
        gc.collect()
        self.emit(case, keys | values | {"case_seconds": time.time() - began})
        return "error" not in values

    def earlier(self, case: str, **keys) -> list[dict]:
        """The lines with figures that this run has of a case."""
        if not self.path.exists():
            return []
        lines = [json.loads(line) for line in self.path.read_text().splitlines() if line]
        keys |= {"run": self.run, "case": case}
        return [
            line
            for line in lines
            if all(line.get(name) == value for name, value in keys.items())
            and not {"error", "skipped"} & set(line)
        ]

    def least(self, case: str, figure: str, **keys) -> float | None:
        """The least figure of such lines; None where there is none."""
        found = [line.get(figure) for line in self.earlier(case, **keys)]
        return min((x for x in found if x), default=None)

    def limit(self, name: str) -> float | None:
        """A figure of the card's own limits, measured by the first process."""
        return self.least("limits", name)


def ratio(above: float | None, below: float | None) -> float | None:
    """None where either is unknown."""
    return above / below if above and below else None
