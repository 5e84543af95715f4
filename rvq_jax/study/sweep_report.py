"""What came of a sweep: means over seeds in a table, one column against another, every curve."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rvq_jax import files
from rvq_jax.errors import UserError
from rvq_jax.evaluate import compare, page, plots, runs
from rvq_jax.evaluate.cells import spread
from rvq_jax.evaluate.runs import SWEEP
from rvq_jax.study.sweep import RESULTS, Axis, Cell, is_done

# Not memory: of a process it is that of the largest run so far.
COLUMNS = [name for name in compare.TITLES if name not in ("memory_gb", "device")]


def results(out: Path, found: Sequence[Cell]) -> dict[str, Any]:
    """What came of a sweep: rows by point of the grid, means over seeds.

    Args:
      out: folder of the sweep.
      found: its cells; those without a model are left out.

    Returns:
      What results.json holds.
    """
    logs = {
        cell.name: runs.open_run_log(cell.name, out / cell.name)
        for cell in found
        if is_done(out, cell)
    }
    rows: dict[tuple, dict] = {}
    for cell in found:
        if cell.name in logs:
            row = rows.setdefault(tuple(cell.values.items()), {"values": cell.values, "runs": {}})
            row["runs"][cell.name] = runs.summary(logs[cell.name])
    for row in rows.values():
        row["means"] = _means([*row["runs"].values()])
    return {"seeds": sorted({cell.seed for cell in found}), "points": [*rows.values()]}


def _means(summaries: Sequence[dict]) -> dict[str, dict[str, float | None]]:
    """Mean and standard deviation over runs of each number that all of them have; no deviation of
    one run."""
    found = {}
    for name in summaries[0]:
        values = [one.get(name) for one in summaries]
        if all(isinstance(x, (int, float)) for x in values):
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
            found[name] = {"mean": float(np.mean(values)), "std": spread}
    return found


def table(found: dict[str, Any]) -> list[list[str]]:
    """Points of a sweep in rows, a head first; best held-out loss, else loss, on top."""
    points = found["points"]
    names = [n for n in COLUMNS if any(n in point["means"] for point in points)]
    chief = "heldout_loss" if "heldout_loss" in names else "loss"
    points = sorted(points, key=lambda x: x["means"].get(chief, {"mean": np.inf})["mean"])
    fields = [*points[0]["values"]] if points else []
    head = [*fields, "runs", *(compare.TITLES[n] for n in names)]
    return [head] + [
        [
            *point["values"].values(),
            f"{len(point['runs'])}",
            *(_said(point["means"].get(n), len(point["runs"])) for n in names),
        ]
        for point in points
    ]


def _said(mean: dict | None, count: int) -> str:
    if mean is None:
        return runs.ABSENT
    return compare.cell(mean["mean"]) + spread(mean["std"] or None, count, ".2g")


def write(
    out: Path, found: Sequence[Cell], done: dict[str, Any], columns: tuple[str, str], command: str
) -> list[Path]:
    """Writes results.json, results.md and sweep.html: a table, a plot of two columns, and curves.

    Args:
      out: folder of the sweep.
      found: its cells.
      done: its results.
      columns: that are plotted, the first to the right.
      command: that asked for it.

    Returns:
      The files.

    Raises:
      UserError: without matplotlib, no such column, or a place that cannot be written to.
    """
    rows = table(done)
    files.write_json(out / "results.json", done)
    with files.writing(out / "results.md") as path:
        path.write_text(page.markdown_table(rows) + "\n", encoding="utf-8")
    drawn = plot(done, *columns)
    alt = f"{columns[1]} against {columns[0]}"
    image = [] if drawn is None else [f"<div class='plots'>{page.plot(drawn, alt)}</div>"]
    logs = [runs.open_run_log(cell.name, out / cell.name) for cell in found if is_done(out, cell)]
    said = "<p class='note'>Means over seeds, ± their standard deviation.</p>"
    note = [said] if len(done["seeds"]) > 1 else []
    head = ["<h2>Means</h2>", page.table(rows), *note, *image]
    title = f"Sweep of {' by '.join(done['points'][0]['values']) or 'seeds'}"
    compare.write(out / "sweep.html", logs, command, title, head)
    return [out / name for name in RESULTS if name != SWEEP]


def columns_of(axes: Sequence[Axis], asked: tuple[str, str] | None) -> tuple[str, str] | None:
    """Two columns to plot as they are called here, before there is anything to plot.

    Args:
      axes: of the grid.
      asked: names of fields or of what runs come to; None for those that fit.

    Returns:
      The names; None to be chosen by what comes of it.

    Raises:
      UserError: without matplotlib, no such column, or one of words upwards.
    """
    plots.figure()
    if asked is None:
        return None
    names = []
    for name in asked:
        field = name.replace("_", "-")
        known = [x.field for x in axes]
        if name not in COLUMNS and field not in known:
            raise UserError(f"no column {name!r} to plot; known: {', '.join([*known, *COLUMNS])}")
        names.append(field if field in known else name)
    if any(x.field == names[1] and not _is_numeric(x.values) for x in axes):
        raise UserError(f"--plot: {names[1]} are words, which go to the right; name it first")
    return names[0], names[1]


def default_columns(axes: Sequence[Axis], done: dict[str, Any]) -> tuple[str, str]:
    """The first axis of numbers, else the first one, and held-out loss, else loss."""
    numeric = [x.field for x in axes if _is_numeric(x.values)]
    across = next(iter([*numeric, *(x.field for x in axes)]), "seconds")
    held = all("heldout_loss" in point["means"] for point in done["points"])
    return across, "heldout_loss" if held else "loss"


def plot(done: dict[str, Any], across: str, up: str) -> str | None:
    """One column of a sweep against another: a line for each value of the other axes.

    Args:
      done: its results.
      across: a field of the grid, or a number that runs came to.
      up: the same, of numbers.

    Returns:
      An SVG element; None where not all points have both.
    """
    points = done["points"]
    places = [(_place(point, across), _place(point, up)) for point in points]
    if any(None in pair for pair in places):
        return None
    lines: dict[str, list[tuple]] = {}
    for point, pair in zip(points, places, strict=True):
        rest = {n: x for n, x in point["values"].items() if n not in (across, up)}
        name = ", ".join(f"{n} {x}" for n, x in rest.items())
        lines.setdefault(name, []).append(pair)
    words = [x for (x, _), _ in places]
    ticks = {} if _is_numeric(words) else {x: float(i) for i, x in enumerate(dict.fromkeys(words))}
    figure, made = plots.figure()
    for i, (name, line) in enumerate(lines.items()):
        placed = [(ticks.get(x, x), x_error, y, y_error) for (x, x_error), (y, y_error) in line]
        values = np.array(sorted([tuple(map(float, row)) for row in placed])).T
        made.errorbar(
            values[0], values[2], values[3], values[1], fmt=plots.mark(i), ls="" if ticks else "-",
            lw=1.4, capsize=3, color=plots.colour(i), label=plots.label(name),
        )  # fmt: skip
    if ticks:
        made.set_xticks([*ticks.values()], [plots.label(word) for word in ticks])
        made.set_xlim(-0.5, len(ticks) - 0.5)
    made.set_xlabel(plots.label(compare.TITLES.get(across, across)))
    made.set_ylabel(plots.label(compare.TITLES.get(up, up)))
    if len(lines) > 1:
        plots.legend(figure, [*lines])
    return plots.svg(figure)


def _place(point: dict, name: str) -> tuple | None:
    """Where a point lies on an axis, and how far its runs are spread there."""
    if name in point["values"]:
        return point["values"][name], 0.0
    mean = point["means"].get(name)
    return mean and (mean["mean"], mean["std"] or 0.0)


def _is_numeric(values: Sequence) -> bool:
    try:
        return all(np.isfinite(float(value)) for value in values)
    except ValueError:
        return False
