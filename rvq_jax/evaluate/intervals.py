"""How sure a mean over files is: bootstrap intervals, paired where two systems are compared."""

import itertools
import warnings
from typing import NamedTuple

import numpy as np

from rvq_jax.typing import Array

CONFIDENCE = 0.95
RESAMPLES = 2000
FEWEST = 6  # values of which an exact test of signs can find a difference, at 1 in 32


class Interval(NamedTuple):
    """A mean, and where it may lie; NaN where fewer values than two say nothing of it."""

    mean: float
    low: float
    high: float
    count: int  # values that are defined
    undefined: int = 0  # values that are not

    @property
    def excludes_zero(self) -> bool:
        """Whether a mean difference is one beyond chance.

        Of fewer than six values never: all are on one side by chance too often, of two every other
        time, and no bootstrap reaches beyond its values.
        """
        return bool(self.count >= FEWEST and (self.low > 0 or self.high < 0))

    def as_json(self) -> dict[str, float | None]:
        """Its fields by name, null for what is not defined."""
        return {name: x if np.isfinite(x) else None for name, x in self._asdict().items()}


def interval(values_M: Array, weights_M: Array | None = None, seed: int = 0) -> Interval:
    """Estimates a mean and its 95 % interval, by the bias-corrected bootstrap over values.

    Args:
      values_M: `[M]`, one for each file; NaN where a file has none.
      weights_M: `[M]`, at least 0, what each counts for, as a clip's frames; None for all alike.
      seed: of the resampling.

    Returns:
      The weighted mean of the values that are defined, and its interval: Efron 1987, with ends as
      much further out as Student's are beyond the normal ones (Hesterberg 2015, 5.3), without which
      the bootstrap of few values holds the truth too seldom.
    """
    values_M = np.asarray(values_M, np.float64)
    weights_M = np.ones_like(values_M) if weights_M is None else np.asarray(weights_M, np.float64)
    kept = np.isfinite(values_M) & (weights_M > 0)
    lacking = int(len(values_M) - kept.sum())
    values, weights = values_M[kept], weights_M[kept]
    if len(values) == 0:
        return Interval(np.nan, np.nan, np.nan, 0, lacking)
    mean = float(_mean(values, weights))
    if len(values) == 1:
        return Interval(mean, np.nan, np.nan, 1, lacking)
    if np.ptp(values) == 0:  # of which the bootstrap has no spread to correct by
        return Interval(mean, mean, mean, len(values), lacking)
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (values, weights),
            _mean,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=max(1, 10_000_000 // len(values)),
            confidence_level=_expanded(len(values)),
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), len(values), lacking)


def share(hits_M: Array) -> Interval:
    """The share of ones among `[M]` of 0 and 1, with its 95 % interval, which is no point where all
    are alike. Wilson 1927."""
    hits_M = np.asarray(hits_M, np.float64)
    if len(hits_M) == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    from scipy import stats

    found = stats.binomtest(int(hits_M.sum()), len(hits_M))
    low, high = found.proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(hits_M.mean()), float(low), float(high), len(hits_M))


def difference(a_M: Array, b_M: Array, weights_M: Array | None = None, seed: int = 0) -> Interval:
    """Estimates the mean of a - b over files that both have a value for, as `interval`.

    Paired: what makes a file hard for both of them cancels.

    Args:
      a_M: `[M]`, values of one system, file by file.
      b_M: `[M]`, those of the other, of the same files.
      weights_M: `[M]`, what each file counts for; None for all alike.
      seed: of the resampling.

    Returns:
      The mean difference and its interval.
    """
    return interval(np.asarray(a_M, np.float64) - np.asarray(b_M, np.float64), weights_M, seed)


def pairs(metric: str, values: dict[str, Array], weights_M: Array | None = None) -> list[dict]:
    """Every two systems compared by a metric, as results.json has it.

    Args:
      metric: its name.
      values: `[M]` of each system by name, of the same files.
      weights_M: `[M]`, what each file counts for; None for all alike.

    Returns:
      A dict for each two that have a file in common.
    """
    made = []
    for a, b in itertools.combinations(values, 2):
        found = difference(values[a], values[b], weights_M)
        if found.count:
            words = {"metric": metric, "a": a, "b": b, "different": found.excludes_zero}
            made.append(words | found.as_json())
    return made


def _expanded(count: int) -> float:
    """The confidence to ask the bootstrap of so many values for, to get what is wanted."""
    from scipy import stats

    tail = (1 - CONFIDENCE) / 2
    reach = np.sqrt(count / (count - 1)) * stats.t.isf(tail, count - 1)
    # Beyond six deviations the bootstrap has none but its least and its greatest value.
    return float(1 - 2 * stats.norm.sf(min(reach, 6.0)))


def _mean(values: np.ndarray, weights: np.ndarray, axis: int = -1) -> np.ndarray:
    return (values * weights).sum(axis) / weights.sum(axis)
