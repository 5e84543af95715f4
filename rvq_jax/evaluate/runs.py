"""Runs as their folders tell of them: the curves of their logs, in what their configs differ."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rvq_jax import opening
from rvq_jax.errors import READING, UserError, reading
from rvq_jax.train import log
from rvq_jax.train.monitoring import LABELS, ORIGINAL, SAMPLES

ABSENT = "–"


class RunLog(NamedTuple):
    """A run, finished or not."""

    name: str
    folder: Path
    lines: list[dict]  # of its log, by update
    config: dict[str, Any]  # by field, such as lm.dim


def open_run_log(name: str, folder: str | Path) -> RunLog:
    """A run by its folder, or that of its model; UserError where there is no log of one."""
    folder = Path(folder)
    if not (folder / "metrics.jsonl").is_file() and (folder.parent / "metrics.jsonl").is_file():
        folder = folder.parent
    if not (folder / "metrics.jsonl").is_file():
        raise UserError(f"{folder} is no run: name a folder that `rvq-jax train --out` wrote")
    lines = log.read(folder / "metrics.jsonl")
    if not lines:
        raise UserError(f"{folder} has done no update yet; wait for its first")
    with reading(folder / "config.json", "the config of a run", "choose another folder"):
        config = json.loads(opening.read_bytes(folder / "config.json"))
    return RunLog(name, folder, lines, dict(_flat(config)))


def curve(run: RunLog, name: str, over: str = "step") -> np.ndarray:
    """A number of the log, of `heldout` for a name such as heldout/loss, against another.

    Args:
      run: whose log it is.
      name: of the number; of several codebooks or networks none.
      over: step or seconds.

    Returns:
      Points `[M, 2]` of the lines that have it.
    """
    found = [
        (line[over], value) for line in run.lines if (value := _number(line, name)) is not None
    ]
    return np.array(found, float).reshape(-1, 2)


def summary(run: RunLog) -> dict[str, Any]:
    """What a run came to: numbers by name, None for what its log does not have."""
    last = run.lines[-1]
    heldout = curve(run, "heldout/loss")
    speeds = [
        line["examples_per_second"] for line in run.lines[1:] if "examples_per_second" in line
    ]
    found = {
        "updates": last["step"],
        "loss": last.get("loss"),
        "heldout_loss": heldout[-1, 1] if len(heldout) else None,
        "best_heldout_loss": heldout[:, 1].min() if len(heldout) else None,
        "best_update": int(heldout[heldout[:, 1].argmin(), 0]) if len(heldout) else None,
    }
    held = next((line["heldout"] for line in reversed(run.lines) if "heldout" in line), {})
    found |= {n: x for n, x in held.items() if n != "loss" and isinstance(x, (int, float))}
    found["seconds"] = last["seconds"]
    found["examples_per_second"] = float(np.median(speeds)) if speeds else None
    found["memory_gb"] = max((line.get("memory_gb", 0.0) for line in run.lines), default=None)
    found["device"] = last.get("device")
    return found


def differences(runs: Sequence[RunLog]) -> dict[str, list[Any]]:
    """Fields in which the configs of runs differ: a value for each run, `ABSENT` where it has no
    such field."""
    names = dict.fromkeys(name for run in runs for name in run.config)
    found = {name: [run.config.get(name, ABSENT) for run in runs] for name in names}
    return {name: values for name, values in found.items() if any(x != values[0] for x in values)}


def players(runs: Sequence[RunLog], count: int) -> list[dict]:
    """The newest samples of runs, those of one label side by side, as `sounds` takes them.

    Args:
      runs: of which some may have none.
      count: of labels at most.

    Returns:
      Dicts of file, original and systems, with absolute paths.
    """
    found: dict[str, dict] = {}
    for run in runs:
        place = run.folder.absolute() / SAMPLES
        steps = sorted(path for path in place.glob("[0-9]*") if path.is_dir())
        try:
            labels = json.loads(opening.read_bytes(place / LABELS))
        except READING:
            continue
        for i, label in enumerate(labels if steps else ()):
            clip, original = steps[-1] / f"{i}.flac", place / ORIGINAL / f"{i}.flac"
            if not clip.is_file():
                continue
            kept = f"{original}" if original.is_file() else None
            player = found.setdefault(label, {"file": label, "original": kept, "systems": {}})
            player["systems"][run.name] = f"{clip}"
    return [*found.values()][:count]


def _number(line: dict, name: str) -> float | None:
    value: Any = line
    for part in name.split("/"):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, (int, float)) else None


def _flat(config: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
