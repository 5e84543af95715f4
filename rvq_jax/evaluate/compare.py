"""Runs beside each other on one page: what they came to, their curves, what they sound like."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rvq_jax import files
from rvq_jax.errors import clipped, printable
from rvq_jax.evaluate import page, plots, runs
from rvq_jax.evaluate.runs import RunLog
from rvq_jax.evaluate.sounds import sounds

CLIPS = 4  # that are heard
NAME = 28  # letters of a name that a legend has room for
LEGEND = 14  # lines that it tells apart
# Titles of what runs came to, by their names in `runs.summary`.
TITLES = {
    "updates": "updates",
    "loss": "training loss",
    "heldout_loss": "held-out loss",
    "best_heldout_loss": "least held-out loss",
    "best_update": "at update",
    "bits_per_frame": "held-out bits per frame",
    "si_sdr": "held-out SI-SDR, dB",
    "mel_distance": "held-out mel distance",
    "seconds": "seconds after the first update",
    "examples_per_second": "examples per second",
    "memory_gb": "memory, GB",
    "device": "device",
}


def write(
    path: str | Path,
    found: Sequence[RunLog],
    command: str,
    title: str = "Runs compared",
    head: Sequence[str] = (),
) -> dict:
    """Writes a page of runs, whole or not at all.

    Args:
      path: of the page; it needs nothing else unless there is much to hear.
      found: runs of any kinds, finished or not.
      command: that asked for it.
      title: of the page.
      head: parts in HTML that come first.

    Returns:
      The rows of its table, by run.

    Raises:
      UserError: without matplotlib, or where no page can be written.
    """
    path = Path(path)
    rows = {run.name: runs.summary(run) for run in found}
    charts = [
        ("heldout/loss", "step", "held-out loss", "updates"),
        ("loss", "step", "training loss", "updates"),
        ("heldout/loss", "seconds", "held-out loss", "seconds of training"),
        *((name, "step", name.replace("_", " "), "updates") for name in _rates(found)),
    ]
    drawn = [
        page.plot(_curves(found, *chart), f"{chart[2]} against {chart[3]}")
        for chart in charts
        if any(len(runs.curve(run, *chart[:2])) > 1 for run in found)
    ]
    clips = runs.players(found, CLIPS)
    for clip in clips:
        clip["original"] = clip["original"] and os.path.relpath(clip["original"], path.parent)
        clip["systems"] = {n: os.path.relpath(x, path.parent) for n, x in clip["systems"].items()}
    head_row, *body = table(rows)
    main = [
        *head,
        "<h2>Table</h2>",
        page.table([head_row, *[[name.replace(",", ", "), *row] for name, *row in body]]),
        *(["<h2>Curves</h2>", f"<div class='plots'>{''.join(drawn)}</div>"] if drawn else []),
        *sounds(path.parent, clips, [*rows], "What they sound like"),
        *_configs(found),
        "<h2>What next</h2>",
        page.commands(_next(found, rows, command)),
    ]
    date = runs.newest(found)
    footer = page.terms([("Command", command), ("Newest update", date)])
    said = f"{len(found)} run{'s' * (len(found) > 1)}, the newest update of {date}"
    with files.writing(path) as target:
        text = page.frame(title, said, main, f"<h2>Provenance</h2>{footer}")
        target.write_text(text, encoding="utf-8", errors="backslashreplace")
    return rows


def table(rows: dict[str, dict[str, Any]]) -> list[list[str]]:
    """What runs came to, a head first; columns that no run has are left out."""
    names = [n for n in TITLES if any(row.get(n) is not None for row in rows.values())]
    names += [n for n in _all_names(rows) if n not in TITLES]
    body = [[name, *(cell(row.get(n)) for n in names)] for name, row in rows.items()]
    return [["run", *(TITLES.get(n, n.replace("_", " ")) for n in names)], *body]


def cell(value: Any) -> str:
    """A value as a table has it."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return runs.ABSENT if value is None else f"{value}"


def short_names(names: Sequence[str]) -> tuple[str | None, list[str]]:
    """Names for a legend, and its title: of runs of a sweep, such as lm.dim=16,seed=0, the values
    under a title of the fields."""
    parts = [[part.partition("=") for part in name.split(",")] for name in names]
    fields = [[field for field, *_ in part] for part in parts]
    if any(field != fields[0] for field in fields) or not all(x[1] for p in parts for x in p):
        return None, [clipped(name, NAME) for name in names]
    values = [", ".join(value for *_, value in part) for part in parts]
    return clipped(", ".join(fields[0]), 2 * NAME), [clipped(value, NAME) for value in values]


def _rates(found: Sequence[RunLog]) -> list[str]:
    """Names of learning rates: of runs of several networks one each."""
    names = dict.fromkeys(name for run in found for line in run.lines for name in line)
    return [name for name in names if name.startswith("learning_rate")]


def _all_names(rows: dict[str, dict[str, Any]]) -> list[str]:
    return [*dict.fromkeys(name for row in rows.values() for name in row)]


def _curves(found: Sequence[RunLog], name: str, over: str, label: str, axis_label: str) -> str:
    """A line for each run, on a logarithmic axis where its numbers are of different sizes."""
    figure, axis = plots.figure()
    values, (keys, names) = [], short_names([run.name for run in found])
    for i, run in enumerate(found):
        points = runs.curve(run, name, over)
        if not len(points):
            continue
        values += [*points[:, 1]]
        style = {"color": plots.colour(i), "ls": "-" if i < len(plots.COLOURS) else "--"}
        marks = {"marker": plots.mark(i), "ms": 4} if len(points) < 12 else {}
        axis.plot(*points.T, lw=1.3, label=plots.label(names[i]), **style, **marks)
    low, high = np.min(values), np.max(values)
    if low > 0 and high > 8 * low:
        axis.set_yscale("log")
    axis.set_xlabel(axis_label)
    axis.set_ylabel(label)
    if 1 < len(found) <= LEGEND:
        plots.legend(figure, names, keys)
    return plots.svg(figure)


def _next(found: Sequence[RunLog], rows: dict[str, dict], command: str) -> list[tuple[str, str]]:
    """Commands that run as they stand."""
    steps = [("Look again while they train", command)]
    models = [run for run in found if (run.folder / "model").is_dir()]
    if models:
        best = min(models, key=lambda run: rows[run.name]["best_heldout_loss"] or np.inf)
        told = shlex.join(["rvq-jax", "info", f"{best.folder}"])
        steps.append((f"See what {best.name} holds", told))
    return steps


def _configs(found: Sequence[RunLog]) -> list[str]:
    """In what the configs differ, a column for each run."""
    differ = runs.differences(found)
    if not differ:
        return []
    head = ["field", *(run.name for run in found)]
    rows = [[name, *(printable(f"{x}") for x in values)] for name, values in differ.items()]
    return ["<h2>In what their configs differ</h2>", page.table([head, *rows])]
