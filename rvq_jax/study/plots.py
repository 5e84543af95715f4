"""Plots of a study, each an SVG element to put into a page."""

from collections.abc import Sequence

import numpy as np

from rvq_jax.errors import clipped
from rvq_jax.evaluate import plots
from rvq_jax.typing import Array

NAME = 28  # letters of a pattern's name that a legend has room for


def bits_against_steps(rows: Sequence[dict]) -> str:
    """One point per pattern: steps for its frames, bits per frame with the seeds' spread."""
    figure, axis = plots.figure()
    names = [clipped(row["pattern"], NAME) for row in rows]
    for i, row in enumerate(rows):
        bits = row["bits_per_frame"]
        spread = bits["std"] if len(bits["values"]) > 1 else None
        style = {"fmt": plots.mark(i), "color": plots.colour(i), "label": plots.label(names[i])}
        axis.errorbar(row["steps"], bits["mean"], spread, ms=7, capsize=4, **style)
    plots.log_axis(axis, [row["steps"] for row in rows])
    axis.set_xlabel(f"steps for {rows[0]['frames']} frames (fewer is quicker)")
    axis.set_ylabel("held-out bits per frame\n(less is better)")
    plots.legend(figure, names)
    return plots.svg(figure)


def against_levels(levels: Sequence[dict], name: str, label: str) -> str:
    """A number of held-out audio, by its name in results.json, against the number of levels
    decoded."""
    figure, axis = plots.figure()
    x = [row["level"] for row in levels]
    axis.plot(x, [row[name] for row in levels], "o-", color=plots.colour(0))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("levels decoded")
    axis.set_ylabel(label)
    return plots.svg(figure)


def codebook_use(counts_KN: Array) -> str:
    """How often each code is chosen on the training set, most used first, one line per level."""
    figure, axis = plots.figure()
    counts_KN = np.asarray(counts_KN)
    size = counts_KN.shape[1]
    names = ["all alike", *map(_level, range(len(counts_KN)))]
    axis.axhline(100 / size, color="#808080", ls=":", lw=1.2, label=names[0])
    for k, counts in enumerate(counts_KN):
        share = 100 * np.sort(counts[counts > 0])[::-1] / max(1, counts.sum())
        # A mark where the line ends: the codes right of it are never used.
        last = [len(share) - 1] if len(share) else []
        x = np.arange(1, len(share) + 1)
        style = {"color": plots.colour(k), "marker": plots.mark(k), "label": names[k + 1]}
        axis.plot(x, share, markevery=last, **style)
    axis.set_xlim(0, size * 1.03)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_xlabel(f"codes, most used first (of {size})")
    axis.set_ylabel("share of frames, %")
    plots.legend(figure, names)
    return plots.svg(figure)


def shared_in_a_frame(levels_KK: Array) -> str:
    """Bits that levels of a frame share."""
    figure, axis = plots.figure()
    levels = np.asarray(levels_KK, float)
    # The diagonal holds entropies, which would leave nothing of the scale to the rest.
    shared = np.where(np.eye(len(levels), dtype=bool), np.nan, levels)
    most = max(np.nanmax(shared, initial=0.0), 1e-3)
    image = axis.imshow(shared, cmap="cividis", vmin=0.0, vmax=most)
    ticks = np.arange(len(levels))
    axis.set_xticks(ticks, ticks + 1)
    axis.set_yticks(ticks, ticks + 1)
    axis.grid(False)
    axis.set_xlabel("level")
    axis.set_ylabel("level")
    for i, j in np.argwhere(~np.isnan(shared)) if len(levels) <= 6 else ():
        # Not the page's ink: what is behind it is the same on a dark page.
        colour = "#ffffff" if shared[i, j] < 0.5 * most else "#111111"
        axis.text(j, i, f"{max(0.0, shared[i, j]):.2f}", ha="center", va="center", color=colour)
    figure.colorbar(image, ax=axis).set_label("bits shared in a frame")
    return plots.svg(figure)


def shared_over_lags(lags_KL: Array) -> str:
    """Bits that a level shares with itself frames later."""
    figure, axis = plots.figure()
    lags = np.asarray(lags_KL, float)
    names = [_level(k) for k in range(len(lags))]
    for k, row in enumerate(lags):
        x = np.arange(1, len(row) + 1)
        axis.plot(x, row, marker=plots.mark(k), color=plots.colour(k), label=names[k])
    axis.set_xlabel("lag, frames")
    axis.set_ylabel("bits shared with the\nsame level later")
    axis.set_ylim(min(0.0, 1.1 * lags.min(initial=0.0)), None)
    plots.legend(figure, names)
    return plots.svg(figure)


def training_curves(curves: dict[str, Sequence], label: str) -> str:
    """Loss against updates, one line per run.

    Args:
      curves: pairs of an update and its loss, by the run's name.
      label: of the losses.
    """
    figure, axis = plots.figure()
    names = [clipped(name, NAME) for name in curves]
    for i, points in enumerate(curves.values()):
        steps, losses = np.array(points, float).reshape(-1, 2).T
        mark = plots.mark(i) if len(steps) < 3 else None
        style = {"color": plots.colour(i), "marker": mark, "label": plots.label(names[i])}
        axis.plot(steps, losses, lw=1.4, **style)
    axis.set_xlabel("updates")
    axis.set_ylabel(label)
    if len(names) > 1:
        plots.legend(figure, names)
    return plots.svg(figure)


def _level(k: int) -> str:
    return f"level {k + 1}"
