"""How sure a mean over files is: bootstrap intervals, paired where two systems are compared."""

import warnings
from typing import NamedTuple

import numpy as np

from rvq_jax.typing import Array

CONFIDENCE = 0.95
RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean, and where it may lie; NaN where fewer values than two say nothing of it."""

    mean: float
    low: float
    high: float
    count: int  # values that are defined
    undefined: int = 0  # values that are not

    @property
    def excludes_zero(self) -> bool:
        """Whether a mean difference is one beyond chance."""
        return self.low > 0 or self.high < 0


def interval(values_M: Array, weights_M: Array | None = None, seed: int = 0) -> Interval:
    """Estimates a mean and its 95 % interval, by the bias-corrected bootstrap over values.

    Args:
      values_M: `[M]`, one for each file; NaN where a file has none.
      weights_M: `[M]`, at least 0, what each counts for, as a clip's frames; None for all alike.
      seed: of the resampling.

    Returns:
      The weighted mean of the values that are defined, and its interval. Efron 1987.
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
            confidence_level=CONFIDENCE,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), len(values), lacking)


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


def _mean(values: np.ndarray, weights: np.ndarray, axis: int = -1) -> np.ndarray:
    return (values * weights).sum(axis) / weights.sum(axis)
