"""Cells of tables: numbers with as many decimals as their intervals justify."""

from collections.abc import Sequence

import numpy as np

NONE = "–"


def column(scores: Sequence[dict | None]) -> list[str]:
    """Means and halves of their intervals, all with as many decimals as the intervals justify."""
    decimals = _decimals([score for score in scores if score])
    return [number(score, decimals) for score in scores]


def number(score: dict | None, decimals: int | None = None) -> str:
    """A mean ± half of its interval; a dash for none."""
    if score is None or score["mean"] is None:
        return NONE
    decimals = _decimals([score]) if decimals is None else decimals
    half = _half(score)
    return f"{score['mean']:.{decimals}f}" + ("" if half is None else f" ± {half:.{decimals}f}")


def spread(std: float | None, count: int, style: str = ".2f") -> str:
    """What stands behind a mean over seeds; nothing behind one seed, which has no spread.

    Args:
      std: standard deviation over the seeds; None for none.
      count: how many seeds there are.
      style: of the number, as of `format`.
    """
    return f" ± {std:{style}}" if count > 1 and std is not None else ""


def rate(kbps: float) -> str:
    return f"{kbps:.2f}"


def short(value: float | None) -> str:
    return NONE if value is None else f"{value:.3g}"


def share(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.0f} %"


def count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def is_number(text: str) -> bool:
    return text == NONE or text.lstrip("-≤ ")[:1].isdecimal()


def _half(score: dict) -> float | None:
    if score["low"] is None or score["high"] is None:
        return None
    return (score["high"] - score["low"]) / 2


def _decimals(scores: Sequence[dict]) -> int:
    """For two digits of the intervals, or three of means without."""
    halves = [half for score in scores if (half := _half(score))]
    means = [abs(score["mean"]) for score in scores if score["mean"]]
    if not halves and not means:
        return 2
    size, digits = (np.median(halves), 1) if halves else (np.median(means), 2)
    return int(np.clip(digits - np.floor(np.log10(size)), 0, 3))
