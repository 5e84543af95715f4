"""What plots share, each a data URI to put into a page: charts are SVG, spectrograms PNG."""

import base64
import io
import warnings
from collections.abc import Sequence

import numpy as np

from rvq_jax.audio import spectral
from rvq_jax.errors import UserError, printable
from rvq_jax.typing import Array

# Okabe & Ito's colours, told apart by colour-blind readers; their yellow is too pale on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKS = "os^Dv<>"
SIZE = (4.8, 3.4)  # inches of a chart: letters are read on a phone too
ROW = 0.22  # inches of a row of its legend
RANGE = 60.0  # dB that a spectrogram shows


def figure(width: float, height: float, columns: int = 1):
    """A figure of no global state, in inches, and its axes: one, or an array of `columns`.

    Raises UserError without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("plots need matplotlib: pip install 'rvq_jax[report]'") from error
    made = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = made.subplots(1, columns)
    for axis in np.atleast_1d(axes):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
    return made, axes


def spectrograms(signals: Sequence[Array], rate: int, clear: bool = False) -> list[str]:
    """Log-mel spectrograms of signals `[S]` to be compared: one scale of 60 dB for all of them.

    rate: hertz. Time to the right, in seconds; mel bands from 0 to rate / 2 upwards. clear: without
    paper, and with numbers that are read on a light page and on a dark one.
    """
    window = 2 ** round(np.log2(0.032 * rate))
    decibels = 20 / np.log(10)
    mels = [
        decibels * np.asarray(spectral.log_mel(np.asarray(x), rate, window, window // 4, 64))
        for x in signals
    ]
    # Near silence, the scale would otherwise show the floor as if it were sound.
    top = max(-40.0, *(mel.max() for mel in mels))
    return [
        _spectrogram(mel, len(x) / rate, top, clear) for mel, x in zip(mels, signals, strict=True)
    ]


def _spectrogram(mel_FB: np.ndarray, seconds: float, top: float, clear: bool) -> str:
    made, axis = figure(3.4, 1.35)
    if clear:
        made.set_facecolor("none")
        axis.tick_params(colors="#808080")
    axis.grid(False)
    extent = (0, seconds, 0, mel_FB.shape[1])
    scale = {"vmin": top - RANGE, "vmax": top}
    axis.imshow(mel_FB.T, origin="lower", aspect="auto", cmap="magma", extent=extent, **scale)
    axis.set_yticks([])
    axis.tick_params(labelsize=8)
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.xaxis.set_major_formatter("{x:g} s")
    return _uri(made, "png")


def legend(figure, names: Sequence[str], title: str | None = None) -> None:
    """Above the axes of a chart, where no line passes, in as many columns as there is room for;
    beyond two rows the figure grows, so that the axes keep their height."""
    longest = max(map(len, names))
    columns = max(1, min(3, len(names), 46 // (longest + 6)))
    rows = -(-len(names) // columns) + (title is not None)
    figure.set_figheight(SIZE[1] + ROW * max(0, rows - 2))
    made = figure.legend(loc="outside upper left", ncols=columns, frameon=False, title=title)
    made.set_alignment("left")


def label(text: str) -> str:
    """A name that is not taken for mathematics, or for a line that no legend shows."""
    return printable(text).replace("$", r"\$").lstrip("_")


def colour(i: int) -> str:
    """The colour of the i-th thing of a plot."""
    return COLOURS[i % len(COLOURS)]


def mark(i: int) -> str:
    """The mark of the i-th thing of a plot."""
    return MARKS[i % len(MARKS)]


def svg(made, letters: bool = False) -> str:
    """A figure as SVG; equal numbers give equal bytes: no date, no random ids.

    letters: text stays text, in whatever fonts a browser has, which are of more scripts than ours.
    """
    import matplotlib

    kept = {"svg.hashsalt": "rvq_jax", "svg.fonttype": "none" if letters else "path"}
    with matplotlib.rc_context(kept), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        return _uri(made, "svg", metadata={"Date": None})


def _uri(made, kind: str, **options) -> str:
    data = io.BytesIO()
    made.savefig(data, format=kind, dpi=144, **options)
    mime = {"svg": "image/svg+xml", "png": "image/png"}[kind]
    return f"data:{mime};base64," + base64.b64encode(data.getvalue()).decode()
