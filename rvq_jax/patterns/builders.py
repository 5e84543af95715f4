"""The named interleaving patterns, each the one line of numpy that defines it.

Copet et al. 2023 (MusicGen) names and compares them; k is the level, f the frame.
"""

import difflib
from collections.abc import Sequence

import numpy as np

from rvq_jax.errors import UserError
from rvq_jax.patterns.pattern import Pattern

BUCKET = 64  # steps and frames in programs are multiples of it


def parallel(levels: int, frames: int) -> Pattern:
    """All levels of a frame at once: step f. F steps; levels are independent given the past."""
    k, f = _grid(levels, frames)
    return Pattern.of(f + 0 * k)


def delay(levels: int, frames: int, delays: Sequence[int] | None = None) -> Pattern:
    """Level k one frame after level k - 1: step f + k, or f + delays[k]. F + max delay steps."""
    k, f = _grid(levels, frames)
    return Pattern.of(f + (k if delays is None else _column(delays, levels, "delays")))


def partial_delay(levels: int, frames: int) -> Pattern:
    """The first level, then all others a frame later: step f + min(k, 1). F + 1 steps."""
    k, f = _grid(levels, frames)
    return Pattern.of(f + np.minimum(k, 1))


def flatten(levels: int, frames: int) -> Pattern:
    """One code per step, levels inside frames: step f · K + k. F · K steps; exact."""
    k, f = _grid(levels, frames)
    return Pattern.of(f * levels + k)


def partial_flatten(levels: int, frames: int) -> Pattern:
    """Each frame in two steps, the first level then the others: step 2f + min(k, 1). 2F steps."""
    k, f = _grid(levels, frames)
    return Pattern.of(f * min(levels, 2) + np.minimum(k, 1))


def coarse_first(levels: int, frames: int, delays: Sequence[int] | None = None) -> Pattern:
    """The whole first level, then all others (VALL-E's order, also called valley): step f at k = 0,
    else F + f, or F + f + delays[k - 1]. 2F + max delay steps."""
    k, f = _grid(levels, frames)
    later = 0 if delays is None else _column([0, *delays], levels, "delays (with level 0's)")
    return Pattern.of(f + np.where(k > 0, frames + later, 0))


def stereo_delay(levels: int, frames: int) -> Pattern:
    """Delays 0, 1, 2, 3, … over levels ordered L, R, L, R …: each channel's level by itself."""
    return delay(_even(levels), frames)


def stereo_partial_delay(levels: int, frames: int) -> Pattern:
    """Delays 0, 0, 1, 1, 2, 2 …: both channels of a level share a step. F + K/2 - 1 steps."""
    return delay(levels, frames, delays=[k // 2 for k in range(_even(levels))])


def musiclm(levels: int, frames: int, group: int = 2) -> Pattern:
    """Groups of `group` levels one after another, flattened inside. F · K steps.

    Raises ValueError unless `group` divides the levels. Agostinelli et al. 2023 (MusicLM).
    """
    if levels % group:
        raise ValueError(f"group must divide the levels: {group} does not divide {levels}")
    k, f = _grid(levels, frames)
    return Pattern.of((k // group) * frames * group + f * group + k % group)


def custom(step_of: np.ndarray) -> Pattern:
    """Any table `[K, F]` with strictly increasing rows."""
    return Pattern.of(step_of)


NAMES = {
    "parallel": parallel,
    "delay": delay,
    "partial_delay": partial_delay,
    "flatten": flatten,
    "partial_flatten": partial_flatten,
    "coarse_first": coarse_first,
    "stereo_delay": stereo_delay,
    "stereo_partial_delay": stereo_partial_delay,
    "musiclm": musiclm,
}
ALIASES = {
    "flattening": "flatten",
    "partial_flattening": "partial_flatten",
    "valley": "coarse_first",
    "valle": "coarse_first",
    "stereo": "stereo_partial_delay",
    "groups": "musiclm",
}


def canonical(name: str) -> str:
    """The pattern's own name for a name or alias; raises UserError if there is none."""
    key = name.strip().lower().replace("-", "_").replace(" ", "_")
    key = ALIASES.get(key, key)
    if key not in NAMES:
        near = difflib.get_close_matches(key, [*NAMES, *ALIASES], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(NAMES)}"
        raise UserError(f"unknown pattern {name!r}; {hint}")
    return key


def named(name: str, levels: int, frames: int) -> Pattern:
    """The pattern of a name or alias; raises UserError for an unknown name."""
    return NAMES[canonical(name)](levels, frames)


def _grid(levels: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    if levels < 1 or frames < 1:
        raise ValueError(f"levels and frames must be at least 1, got {levels} and {frames}")
    return np.arange(levels)[:, None], np.arange(frames)[None, :]


def _column(values: Sequence[int], levels: int, name: str) -> np.ndarray:
    if len(values) != levels:
        raise ValueError(f"{name} must have one entry per level: {len(values)} for {levels}")
    return np.asarray(values)[:, None]


def _even(levels: int) -> int:
    if levels % 2:
        raise ValueError(f"stereo patterns need two levels each, left and right; got {levels}")
    return levels


def padded_pattern(name: str, levels: int, frames: int, *, pad_frames: bool = False) -> Pattern:
    """Builds a named pattern with steps up to a multiple of `BUCKET`: near lengths share programs.

    Args:
      name: name of the pattern, or an alias.
      levels: number of levels K.
      frames: number of frames F.
      pad_frames: pad frames to a multiple of `BUCKET` too; those added have no step, and what is
        read of them means nothing.

    Returns:
      The pattern, T a multiple of `BUCKET`.

    Raises:
      UserError: for an unknown name.
      ValueError: for numbers of levels or frames that the pattern cannot have.
    """
    pattern = named(name, levels, frames)
    padded = pattern.pad(-(-pattern.steps // BUCKET) * BUCKET)
    more = -frames % BUCKET if pad_frames else 0
    return Pattern(np.pad(padded.step_of, [(0, 0), (0, more)]), padded.frame_at)
