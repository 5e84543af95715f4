"""Intervals hold the truth as often as they say, and pairing takes away what files share."""

import numpy as np
import pytest

from rvq_jax.evaluate.intervals import difference, interval, share


def test_they_hold_the_truth_as_often_as_they_say():
    """Of 200 samples of 30 values each: 95 % but for chance (and a little less, as n is small)."""
    rng = np.random.default_rng(0)
    found = [interval(rng.exponential(2.0, 30)) for _ in range(200)]
    assert 0.86 < np.mean([x.low < 2.0 < x.high for x in found]) < 0.99


@pytest.mark.parametrize("count", [2, 3, 5, 6, 10])
def test_what_is_alike_is_seldom_called_different(count):
    """Also of few values: 5 % but for chance, which is 2 of 300 samples' standard deviations."""
    rng = np.random.default_rng(count)
    found = [interval(rng.normal(size=count)).excludes_zero for _ in range(300)]
    assert np.mean(found) < 0.05 + 0.04


def test_a_few_files_that_all_say_the_same_suffice():
    assert not interval([1.0, 1.1, 0.9, 1.2, 0.8]).excludes_zero
    assert interval([1.0, 1.1, 0.9, 1.2, 0.8, 1.3]).excludes_zero


def test_pairing_takes_away_what_files_share():
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 10, 30)
    a, b = hard + rng.normal(0, 0.1, 30), hard + 1 + rng.normal(0, 0.1, 30)
    paired = difference(a, b)
    assert paired.excludes_zero and paired.high - paired.low < 0.2
    assert interval(a).high > interval(b).low  # apart they say nothing


def test_a_weighted_mean_is_that_of_the_parts_it_is_made_of():
    values, weights = np.array([1.0, 2.0, 4.0]), np.array([1, 3, 2])
    whole = interval(np.repeat(values, weights))
    parts = interval(values, weights)
    assert parts.mean == pytest.approx(whole.mean)
    assert parts.low < parts.mean < parts.high


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([], (np.nan, np.nan, np.nan, 0, 0)),
        ([np.nan, np.inf], (np.nan, np.nan, np.nan, 0, 2)),
        ([3.0, np.nan], (3.0, np.nan, np.nan, 1, 1)),
        ([3.0, 3.0, 3.0], (3.0, 3.0, 3.0, 3, 0)),
    ],
)
def test_few_values_say_what_they_can(values, want):
    np.testing.assert_equal(tuple(interval(values)), want)


def test_a_share_of_none_or_all_is_not_certain():
    """Wilson's ends solve (p - share)² = z² p (1 - p) / n, here with his own numbers."""
    z = 1.959963984540054
    for hits, n in ((0, 4), (4, 4), (3, 12)):
        found = share(np.arange(n) < hits)
        for p in (found.low, found.high):
            assert (p - hits / n) ** 2 == pytest.approx(z**2 * p * (1 - p) / n, abs=1e-9)
        assert 0 <= found.low <= found.mean <= found.high <= 1 and found.low < found.high


def test_the_same_values_give_the_same_interval():
    values = np.random.default_rng(2).normal(size=20)
    assert interval(values) == interval(values)
