"""What plots share: charts are SVG that takes on the colours of its page, spectrograms PNG."""

import base64
import importlib
import io
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rvq_jax.audio import spectral
from rvq_jax.errors import UserError, printable
from rvq_jax.typing import Array

# Okabe & Ito's, told apart by colour-blind readers, as dark as a contrast of 3 with a light page
# takes; black is the page's ink. On a dark page the same hues, as light as that takes.
INK = "#000000"
COLOURS = ("#0065a3", "#d55e00", "#008a64", "#b95c97", "#a87000", "#4595c9", INK)
DARK = ("#4aa3df", "#f0813a", "#21b98c", "#dd9cc2", "#e6a92e", "#a9d8f5")


def _variables(ink: str, colours: Sequence[str]) -> str:
    lines = "".join(f" --line-{i}: {colour};" for i, colour in enumerate(colours))
    return f":root {{ color: {ink};{lines} }}"


THEME = f"""
{_variables("#1c1f23", COLOURS[:-1])}
@media (prefers-color-scheme: dark) {{ {_variables("#e4e6e9", DARK)} }}
"""
MARKS = "os^Dv<>"
SIZE = (4.1, 3.2)  # inches of a chart: on a phone as wide as its page, and its letters are read
LETTERS = 11  # pixels of the smallest letters that a chart is ever shown with
ROW = 0.22  # inches of a row of its legend
LETTER, SAMPLE = 6.3, 42  # points of its width that a letter takes, and what stands before a name
# Steps of a decade that a logarithmic axis is marked at: the first that mark it more than once.
STEPS = ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), tuple(np.arange(10, 100) / 10))
RANGE = 60.0  # dB that a spectrogram shows
BANDS = 64  # of mel, that it has
HERTZ = (1000, 4000, 250, 2000, 8000, 500, 16000)  # marked there as far as there is room
APART = 0.15  # of its height, that marks are


class Spectrogram(NamedTuple):
    """A picture, and marks of its axes: texts, and places from 0 at the left or below to 1."""

    image: str  # PNG, a data URI
    hertz: list[tuple[str, float]]
    seconds: list[tuple[str, float]]


def figure():
    """A figure of no global state and no paper, and its axes.

    Raises UserError without matplotlib.
    """
    made = _matplotlib("figure").Figure(figsize=SIZE, layout="constrained", facecolor="none")
    axis = made.subplots()
    axis.patch.set_facecolor("none")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color=INK, alpha=0.15)
    axis.set_axisbelow(True)
    return made, axis


def spectrograms(signals: Sequence[Array], rate: int) -> list[Spectrogram]:
    """Log-mel spectrograms of signals to be compared: one scale of 60 dB for all of them.

    Args:
      signals: `[S]` each.
      rate: hertz.

    Returns:
      Time to the right; mel bands from 0 to rate / 2 upwards.

    Raises:
      UserError: without matplotlib.
    """
    window = 2 ** round(np.log2(0.032 * rate))
    decibels = 20 / np.log(10)
    mels = [
        decibels * np.asarray(spectral.log_mel(np.asarray(x), rate, window, window // 4, BANDS))
        for x in signals
    ]
    # Near silence, the scale would otherwise show the floor as if it were sound.
    top = max(-40.0, *(mel.max() for mel in mels))
    return [
        Spectrogram(_picture(mel, top), _hertz(rate), _seconds(len(x) / rate))
        for mel, x in zip(mels, signals, strict=True)
    ]


def _picture(mel_FB: np.ndarray, top: float) -> str:
    data = io.BytesIO()
    scale = {"vmin": top - RANGE, "vmax": top, "cmap": "magma", "origin": "lower"}
    _matplotlib("image").imsave(data, mel_FB.T, format="png", **scale)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def _hertz(rate: int) -> list[tuple[str, float]]:
    """Frequencies at their places among mel bands, those that are most looked for first."""
    marks: list[tuple[str, float]] = []
    for hertz in HERTZ:
        place = float(spectral.mel_place(hertz, rate, BANDS))
        if 0.05 < place < 0.97 and all(abs(place - other) >= APART for _, other in marks):
            text = f"{hertz // 1000} kHz" if hertz >= 1000 else f"{hertz} Hz"
            marks.append((text, place))
    return sorted(marks, key=lambda mark: mark[1])


def _seconds(length: float) -> list[tuple[str, float]]:
    """Round times, six at most."""
    steps = [s * 10.0**e for e in range(-3, 5) for s in (1, 2, 5)]
    step = next((s for s in steps if length / s <= 5), steps[-1])
    times = np.arange(int(length / step + 1e-6) + 1) * step
    return [(f"{time:.4g} s", float(time / length)) for time in times] if length else []


def log_axis(axis, values: Sequence[float]) -> None:
    """Makes the horizontal axis logarithmic, as long as the values take, with round numbers."""
    low, high = min(values), max(values)
    beyond = max(1.05, (high / low) ** 0.08)
    low, high = low / beyond, high * beyond
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in STEPS:
        ticks = np.unique(np.outer(decades, steps).round(6))
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) > 2:
            break
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()


def legend(figure, names: Sequence[str], title: str | None = None) -> None:
    """Above the axes of a chart, where no line passes, in as many columns as there is room for;
    beyond two rows the figure grows, so that the axes keep their height."""
    longest = max(map(len, names))
    columns = max(1, min(3, len(names), int(72 * SIZE[0] / (LETTER * longest + SAMPLE))))
    rows = -(-len(names) // columns) + (title is not None)
    figure.set_figheight(SIZE[1] + ROW * max(0, rows - 2))
    narrow = {"frameon": False, "columnspacing": 1, "handlelength": 1.5}
    made = figure.legend(loc="outside upper left", ncols=columns, title=title, **narrow)
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


def svg(made) -> str:
    """A figure as an SVG element; equal numbers give equal bytes: no date, no random ids.

    Its colours are the page's (`THEME`) or, alone, those of a light one. Text stays text, in
    whatever fonts a browser has, which are of more scripts than ours. `--least`: how narrow it can
    be shown with letters that are read on a phone.
    """
    matplotlib, data = _matplotlib(), io.BytesIO()
    kept = {"svg.hashsalt": "rvq_jax", "svg.fonttype": "none"}
    with matplotlib.rc_context(kept), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        made.savefig(data, format="svg", dpi=144, metadata={"Date": None})
    text = data.getvalue().decode()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    # Only in tags: a name may be written like a colour.
    text = re.sub(r"<[^>]+>", lambda tag: _themed(tag[0]), text[text.index("<svg") :])
    letters = min(map(float, re.findall(r'style="font-size: ([\d.]+)px', text)), default=10.0)
    least = made.get_figwidth() * 72 * LETTERS / letters
    style = f"--least: {least:.0f}px; fill: currentColor; stroke-linejoin: round; "
    return text.replace("<svg ", f'<svg style="{style}font-family: system-ui, sans-serif" ', 1)


def standalone(chart: str) -> str:
    """What `svg` made as a file of its own, which follows the theme of whoever looks at it."""
    end = chart.index(">") + 1
    return f"{chart[:end]}<style>{THEME}</style>{chart[end:]}"


def _themed(tag: str) -> str:
    """A tag with the page's colours and font, without a name that is another plot's too."""
    tag = tag.replace(INK, "currentColor")
    for i, colour in enumerate(COLOURS[:-1]):
        tag = tag.replace(colour, f"var(--line-{i}, {colour})")
    return re.sub(r' id="[^"]*_\d+"|font-family: [^;"]*;? ?', "", tag)


def _matplotlib(part: str | None = None):
    try:
        return importlib.import_module(f"matplotlib.{part}" if part else "matplotlib")
    except ImportError as error:
        raise UserError("plots need matplotlib: pip install 'rvq_jax[report]'") from error
