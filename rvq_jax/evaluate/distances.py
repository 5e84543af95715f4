"""Fréchet distances between sets of clips, and how sure they are."""

from collections.abc import Sequence

import numpy as np

from rvq_jax.evaluate.intervals import CONFIDENCE, Interval
from rvq_jax.metrics import frechet
from rvq_jax.typing import Array

RESAMPLES = 400
VECTORS = 10  # that every feature of a distance needs at least


def distance(real: Sequence[Array], other: Sequence[Array], seed: int = 0) -> Interval:
    """Measures the Fréchet distance of two sets of clips, with a 95 % interval.

    The interval is by the bootstrap over clips of both sets: vectors of one clip are alike, and
    resampled one by one they would make it too narrow. A resampled set has some clips twice, which
    raises every distance; so the interval is the spread of resampled distances, around the one that
    was measured. It is of distances between sets of this size, which are themselves too large.

    Args:
      real: features `[m, D]` of each clip.
      other: those of the other set.
      seed: of the resampling.

    Returns:
      The distance and its interval, NaN where a set has one clip only; count is that of `other`.
    """
    a, b = (_moments(clips) for clips in (real, other))
    found = float(_distances(a, b, np.ones((1, len(real))), np.ones((1, len(other))))[0])
    if min(len(real), len(other)) < 2:
        return Interval(found, np.nan, np.nan, len(other))
    rng = np.random.default_rng(seed)
    counts = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) for n in (len(real), len(other)))
    resampled = _distances(a, b, *counts)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail]) - resampled.mean()
    return Interval(found, max(0.0, found + float(low)), found + float(high), len(other))


def reduced(sets: list[list[np.ndarray]], real: int) -> list[list[np.ndarray]]:
    """Features of sets of clips, of which there are at most a tenth as many as vectors of a set.

    Args:
      sets: of each set the features `[m, D]` of its clips.
      real: how many of the sets, the first, are of real audio, whose principal components are kept
        (see `metrics.frechet.reduction`).

    Returns:
      The same in fewer features; as they are where there are vectors enough.
    """
    vectors = min(sum(len(clip) for clip in clips) for clips in sets)
    every = np.concatenate([clip for clips in sets[:real] for clip in clips])
    reduce = frechet.reduction(every, max(2, vectors // VECTORS))
    return [[reduce(clip) for clip in clips] for clips in sets]


def _moments(clips: Sequence[Array]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each clip the number of vectors, their sum and the sum of their outer products, around
    the mean of all, which comes last."""
    clips = [np.asarray(clip, np.float64) for clip in clips]
    centre = np.concatenate(clips).mean(0)
    counts = np.array([len(clip) for clip in clips], float)
    sums = np.stack([(clip - centre).sum(0) for clip in clips])
    products = np.stack([(clip - centre).T @ (clip - centre) for clip in clips])
    return counts, sums, products, centre


def _distances(a: tuple, b: tuple, times_a: np.ndarray, times_b: np.ndarray) -> np.ndarray:
    """Distances `[R]` of sets in which clips are so many times `[R, n]`."""
    return frechet.frechet_of_gaussians(*_gaussian(a, times_a), *_gaussian(b, times_b))


def _gaussian(moments: tuple, times_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts, sums, products, centre = moments
    vectors = times_RN @ counts
    mean = times_RN @ sums / vectors[:, None]
    square = np.tensordot(times_RN, products, 1) / vectors[:, None, None]
    return mean + centre, square - mean[:, :, None] * mean[:, None, :]
