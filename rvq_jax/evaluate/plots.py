"""Plots of a study, each a data URI to put into a page."""

import base64
import io

import numpy as np

from rvq_jax.audio import spectral
from rvq_jax.errors import UserError

# Okabe & Ito's colours, told apart by colour-blind readers.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def bits_against_steps(rows: list[dict]) -> str:
    """One point per pattern: steps for its frames, bits per frame with the seeds' spread."""
    figure, axis = _figure(6.4, 4.0)
    taken: list[tuple[float, float]] = []
    spread = [row["bits_per_frame"]["mean"] for row in rows]
    height = max(max(spread) - min(spread), 1e-6)
    order = sorted(rows, key=lambda row: (row["steps"], row["bits_per_frame"]["mean"]))
    for i, row in enumerate(order):
        x, bits = row["steps"], row["bits_per_frame"]
        axis.errorbar(x, bits["mean"], bits["std"], fmt="o", color=_colour(i), capsize=4)
        # Points at nearly the same place would write over each other: each takes a line below.
        near = [y for at, y in taken if abs(at - x) < 0.15 * max(r["steps"] for r in rows)]
        y = bits["mean"]
        while any(abs(y - other) < 0.07 * height for other in near):
            y += 0.02 * height
        taken.append((x, y))
        axis.annotate(
            row["pattern"],
            (x, y),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=_colour(i),
        )
    axis.margins(0.22, 0.15)
    axis.set_xlabel(f"steps for {rows[0]['frames']} frames (cost)")
    axis.set_ylabel("bits per frame, held-out (less is better)")
    return _uri(figure)


def distortion_against_levels(levels: list[dict]) -> str:
    """SI-SDR and mel distance of held-out audio against the number of levels decoded."""
    figure, (left, right) = _figure(7.6, 3.2, columns=2)
    x = [row["level"] for row in levels]
    left.plot(x, [row["si_sdr_db"] for row in levels], "o-", color=COLOURS[0])
    left.set_ylabel("SI-SDR, dB (more is better)")
    right.plot(x, [row["mel_distance"] for row in levels], "o-", color=COLOURS[1])
    right.set_ylabel("mel distance (less is better)")
    for axis in (left, right):
        axis.set_xlabel("levels decoded")
        axis.set_xticks(x)
    return _uri(figure)


def codebook_use(counts_KN) -> str:
    """How often each code is chosen on the training set, sorted, one line per level."""
    figure, axis = _figure(6.4, 3.4)
    for k, counts in enumerate(np.asarray(counts_KN)):
        share = np.sort(counts / counts.sum())[::-1]
        axis.plot(100 * share, color=_colour(k), label=f"level {k + 1}")
    size = len(np.asarray(counts_KN)[0])
    axis.axhline(100 / size, color="#888", ls=":", lw=1, label="uniform")
    axis.set_xlabel("codes, most used first")
    axis.set_ylabel("share of frames, %")
    axis.legend(frameon=False)
    return _uri(figure)


def mutual_information(levels_KK, lags_KL) -> str:
    """Bits that levels of a frame share, and that a level shares with itself frames later."""
    levels, lags = np.asarray(levels_KK), np.asarray(lags_KL)
    figure, (left, right) = _figure(8.2, 3.4, columns=2)
    shared = np.where(np.eye(len(levels), dtype=bool), np.nan, levels)
    image = left.imshow(shared, cmap="viridis")
    ticks = np.arange(len(levels))
    left.set_xticks(ticks, ticks + 1)
    left.set_yticks(ticks, ticks + 1)
    left.set_xlabel("level")
    left.set_ylabel("level")
    middle = (np.nanmin(shared) + np.nanmax(shared)) / 2 if len(levels) > 1 else 0.0
    for i, j in np.argwhere(~np.isnan(shared)):
        colour = "white" if shared[i, j] < middle else "black"
        left.text(j, i, f"{shared[i, j]:.2f}", ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=left, label="bits, same frame")
    for k, row in enumerate(lags):
        right.plot(np.arange(1, len(row) + 1), row, "o-", color=_colour(k), label=f"level {k + 1}")
    right.set_xlabel("lag, frames")
    right.set_ylabel("bits, same level")
    right.set_ylim(bottom=0)
    right.legend(frameon=False)
    return _uri(figure)


def training_curves(curves: dict[str, list]) -> str:
    """Loss against updates: the codec's, and those of the token models together."""
    figure, (left, right) = _figure(8.2, 3.2, columns=2)
    for i, (name, points) in enumerate(curves.items()):
        axis = left if name == "codec" else right
        steps, losses = np.array(points).T
        axis.plot(steps, losses, color=_colour(i), label=name, lw=1.2)
    left.set_ylabel("codec loss")
    left.set_yscale("log")
    right.set_ylabel("bits per code")
    for axis in (left, right):
        axis.set_xlabel("updates")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8)
    return _uri(figure)


def spectrogram(audio_S, rate: int) -> str:
    """Log-mel spectrogram of a signal, time to the right, low bands at the bottom."""
    mel = np.asarray(spectral.log_mel(np.asarray(audio_S), rate, 512, 128, 64)) * (20 / np.log(10))
    figure, axis = _figure(3.0, 1.1)
    seconds = len(audio_S) / rate
    axis.imshow(
        mel.T,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=mel.max() - 80,
        extent=(0, seconds, 0, 64),
    )
    axis.set_axis_off()
    return _uri(figure, pad=0.0)


def _figure(width: float, height: float, columns: int = 1):
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("plots need matplotlib: pip install 'rvq_jax[report]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns)
    for axis in np.atleast_1d(axes):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, axes


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _uri(figure, pad: float = 0.05) -> str:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=144, bbox_inches="tight", pad_inches=pad)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
