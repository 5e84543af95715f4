"""Plots of a study, each an SVG as a data URI to put into a page."""

from collections.abc import Sequence

import numpy as np

from rvq_jax.evaluate import plots
from rvq_jax.typing import Array


def bits_against_steps(rows: Sequence[dict]) -> str:
    """One point per pattern: steps for its frames, bits per frame with the seeds' spread."""
    figure, axis = plots.figure(7.2, 4.2)
    order = sorted(rows, key=lambda row: (row["steps"], row["bits_per_frame"]["mean"]))
    most = max(row["steps"] for row in rows)
    ends = [b["mean"] + sign * b["std"] for b in _bits(rows) for sign in (-1, 1)]
    low, high = min(ends), max(ends)
    height = max(high - low, 0.02 * abs(high), 1e-6)
    places = _spread([row["bits_per_frame"]["mean"] for row in order], order, 0.08 * height, most)
    # Labels stand right of their points, so a third of the width is left for the last.
    axis.set_xlim(-0.04 * most, 1.34 * most)
    low, high = min(low, *places), max(high, *places)
    axis.set_ylim(low - 0.15 * height, high + 0.15 * height)
    for row, place in zip(order, places, strict=True):
        i = rows.index(row)
        x, bits, colour = row["steps"], row["bits_per_frame"], plots.colour(i)
        spread = bits["std"] or None
        axis.errorbar(x, bits["mean"], spread, fmt=plots.mark(i), ms=7, color=colour, capsize=4)
        axis.annotate(
            plots.label(row["pattern"]),
            (x, bits["mean"]),
            xytext=(x + 0.035 * most, place),
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.8, "shrinkA": 1, "shrinkB": 4},
        )
    axis.set_xlabel(f"steps for {rows[0]['frames']} frames (fewer is quicker)")
    axis.set_ylabel("held-out bits per frame (less is better)")
    return plots.svg(figure)


def distortion_against_levels(levels: Sequence[dict]) -> str:
    """SI-SDR and mel distance of held-out audio against the number of levels decoded."""
    figure, (left, right) = plots.figure(7.6, 3.2, columns=2)
    x = [row["level"] for row in levels]
    left.plot(x, [row["si_sdr_db"] for row in levels], "o-", color=plots.colour(0))
    left.set_ylabel("SI-SDR, dB (more is better)")
    right.plot(x, [row["mel_distance"] for row in levels], "s-", color=plots.colour(1))
    right.set_ylabel("mel distance (less is better)")
    for axis in (left, right):
        axis.set_xlabel("levels decoded")
        axis.set_xticks(x)
    return plots.svg(figure)


def codebook_use(counts_KN: Array) -> str:
    """How often each code is chosen on the training set, most used first, one line per level."""
    figure, axis = plots.figure(7.2, 3.6)
    counts_KN = np.asarray(counts_KN)
    size = counts_KN.shape[1]
    axis.axhline(100 / size, color="#666666", ls=":", lw=1.2, label="all alike")
    for k, counts in enumerate(counts_KN):
        share = 100 * np.sort(counts[counts > 0])[::-1] / max(1, counts.sum())
        # A mark where the line ends: the codes right of it are never used.
        last = [len(share) - 1] if len(share) else []
        x = np.arange(1, len(share) + 1)
        axis.plot(
            x, share, color=plots.colour(k), marker=plots.mark(k), markevery=last, label=_level(k)
        )
    axis.set_xlim(0, size * 1.03)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_xlabel(f"codes, most used first (of {size})")
    axis.set_ylabel("share of frames, %")
    axis.legend(frameon=False)
    return plots.svg(figure)


def mutual_information(levels_KK: Array, lags_KL: Array) -> str:
    """Bits that levels of a frame share, and that a level shares with itself frames later."""
    levels, lags = np.asarray(levels_KK, float), np.asarray(lags_KL, float)
    figure, (left, right) = plots.figure(8.4, 3.6, columns=2)
    # The diagonal holds entropies, which would leave nothing of the scale to the rest.
    shared = np.where(np.eye(len(levels), dtype=bool), np.nan, levels)
    most = max(np.nanmax(shared, initial=0.0), 1e-3)
    image = left.imshow(shared, cmap="cividis", vmin=0.0, vmax=most)
    ticks = np.arange(len(levels))
    left.set_xticks(ticks, ticks + 1)
    left.set_yticks(ticks, ticks + 1)
    left.grid(False)
    left.set_xlabel("level")
    left.set_ylabel("level")
    left.set_title("bits shared in a frame", fontsize="medium")
    for i, j in np.argwhere(~np.isnan(shared)) if len(levels) <= 10 else ():
        colour = "white" if shared[i, j] < 0.5 * most else "black"
        text = f"{max(0.0, shared[i, j]):.2f}"
        left.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=left)
    for k, row in enumerate(lags):
        x = np.arange(1, len(row) + 1)
        right.plot(x, row, marker=plots.mark(k), color=plots.colour(k), label=_level(k))
    right.set_title("bits shared with the same level later", fontsize="medium")
    right.set_xlabel("lag, frames")
    right.set_ylim(min(0.0, 1.1 * lags.min(initial=0.0)), None)
    right.legend(frameon=False)
    return plots.svg(figure)


def training_curves(curves: dict[str, Sequence]) -> str:
    """Loss against updates: token models, and left of them the run "codec" if there is one."""
    if "codec" in curves:
        figure, (left, right) = plots.figure(8.4, 3.4, columns=2)
        left.set_ylabel("codec's loss")
    else:
        figure, right = plots.figure(7.2, 3.4)
        left = None
    for name, points in curves.items():
        axis = left if name == "codec" else right
        # Counted by panel, so that a pattern keeps the colour it has among the patterns.
        i = len(axis.lines)
        steps, losses = np.array(points, float).reshape(-1, 2).T
        mark = plots.mark(i) if len(steps) < 3 else None
        axis.plot(
            steps, losses, color=plots.colour(i), marker=mark, label=plots.label(name), lw=1.4
        )
    right.set_ylabel("token models' loss, bits per code")
    for axis in figure.axes:
        axis.set_xlabel("updates")
        if axis.lines:
            axis.legend(frameon=False, fontsize="small")
        else:
            axis.text(0.5, 0.5, "no such run", ha="center", transform=axis.transAxes)
    return plots.svg(figure)


def _spread(wanted: list[float], rows: Sequence[dict], gap: float, most: int) -> list[float]:
    """Heights of labels: each the wanted one, or the nearest that writes over no earlier one."""
    places: list[float] = []
    for y, row in zip(wanted, rows, strict=True):
        near = [
            place
            for place, other in zip(places, rows, strict=False)
            if abs(other["steps"] - row["steps"]) < 0.3 * most
        ]
        tries = [y + sign * i * gap / 4 for i in range(200) for sign in (1, -1)]
        places.append(next(t for t in tries if all(abs(t - p) >= gap for p in near)))
    return places


def _bits(rows: Sequence[dict]) -> list[dict]:
    return [row["bits_per_frame"] for row in rows]


def _level(k: int) -> str:
    return f"level {k + 1}"
