"""Runs as their folders tell of them: the curves of their logs, in what their configs differ."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rvq_jax import files, opening
from rvq_jax.audio import io
from rvq_jax.errors import READING, UserError
from rvq_jax.train import log
from rvq_jax.train.monitoring import LABELS, ORIGINAL, SAMPLES

ABSENT = "–"
SWEEP = "sweep.json"  # in the folder of a sweep
MOST = 1e30  # of a number that is shown: logs of others may have any


class RunLog(NamedTuple):
    """A run, finished or not."""

    name: str
    folder: Path
    lines: list[dict]  # of its log, by update
    config: dict[str, Any]  # by field, such as lm.dim


def runs_in(path: str | Path) -> list[Path]:
    """A run's folder, or those of all runs of a sweep; what is no folder has none of them."""
    path = Path(path)
    if not (path / SWEEP).is_file():
        return [] if path.is_file() else [path]
    return sorted(x for x in path.iterdir() if x.is_dir() and (x / files.RUN_LOG).is_file())


def open_run_log(name: str, folder: str | Path) -> RunLog:
    """A run by its folder, or that of its model.

    Raises UserError where there is no log of one, or a damaged config.
    """
    folder = Path(folder)
    if not (folder / files.RUN_LOG).is_file() and (folder.parent / files.RUN_LOG).is_file():
        folder = folder.parent
    if not (folder / files.RUN_LOG).is_file():
        raise UserError(f"{folder} is no run: name a folder that `rvq-jax train --out` wrote")
    lines = log.read(folder / files.RUN_LOG)
    if not lines:
        raise UserError(f"{folder} has done no update yet; wait for its first")
    return RunLog(name, folder, lines, dict(_flat(files.load_config(folder))))


def newest(found: Sequence[RunLog]) -> str:
    """The day, in UTC, on which any of the runs last wrote into its log."""
    last = max((run.folder / files.RUN_LOG).stat().st_mtime for run in found)
    return time.strftime("%F", time.gmtime(last))


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
    """What a run came to: numbers by name, None for what its log does not have.

    Its seconds are those after the first update, which compiles.
    """
    last = run.lines[-1]
    heldout = curve(run, "heldout/loss")
    speeds = curve(run, "examples_per_second")[1:, 1]
    memory, seconds = curve(run, "memory_gb"), curve(run, "seconds")[:, 1]
    found = {
        "updates": last["step"],
        "loss": _number(last, "loss"),
        "heldout_loss": heldout[-1, 1] if len(heldout) else None,
        "best_heldout_loss": heldout[:, 1].min() if len(heldout) else None,
        "best_update": int(heldout[heldout[:, 1].argmin(), 0]) if len(heldout) else None,
    }
    held = next(
        (x for line in reversed(run.lines) if isinstance(x := line.get("heldout"), dict)), {}
    )
    others = {name: _number(held, name) for name in held if name != "loss"}
    found |= {name: value for name, value in others.items() if value is not None}
    found["seconds"] = float(seconds[-1] - seconds[0])
    found["examples_per_second"] = float(np.median(speeds)) if len(speeds) else None
    found["memory_gb"] = memory[:, 1].max() if len(memory) else None
    found["device"] = f"{last.get('device', ABSENT)}"
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
        steps = [path for path in place.glob("[0-9]*") if path.name.isdecimal()]
        newest = max(steps, key=lambda path: int(path.name), default=None)
        try:
            labels = json.loads(opening.read_bytes(place / LABELS, files.CONFIG_BYTES))
        except READING:
            continue
        for i, label in enumerate(labels if newest and isinstance(labels, list) else ()):
            clip, original = newest / f"{i}.flac", place / ORIGINAL / f"{i}.flac"
            if not isinstance(label, str) or not _is_own(run.folder, clip):
                continue
            kept = f"{original}" if _is_own(run.folder, original) else None
            player = found.setdefault(label, {"file": label, "original": kept, "systems": {}})
            player["systems"][run.name] = f"{clip}"
    return [*found.values()][:count]


def _is_own(folder: Path, clip: Path) -> bool:
    """Whether a clip is there, is audio, and lies in its run: a link could lead to anything."""
    try:
        inside = clip.resolve().is_relative_to(folder.resolve())
        return inside and clip.is_file() and len(io.read(clip)[0]) > 0
    except (UserError, *READING):
        return False


def _number(line: dict, name: str) -> float | None:
    value: Any = line
    for part in name.split("/"):
        value = value.get(part) if isinstance(value, dict) else None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < MOST else None


def _flat(config: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
