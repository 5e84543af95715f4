"""Mutual information where it is known: nothing, everything, and a channel in between."""

import numpy as np
import pytest

from rvq_jax.metrics import information


def entropy(p):
    p = p[p > 0]
    return -(p * np.log2(p)).sum()


def noisy_copy(size, count, keep, seed=0):
    """Codes, copies that are redrawn with probability 1 - keep, and the bits they share."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(size))
    a, other = rng.choice(size, (2, count), p=p)
    b = np.where(rng.random(count) < keep, a, other)
    joint = (1 - keep) * np.outer(p, p) + keep * np.diag(p)
    return a, b, 2 * entropy(p) - entropy(joint.ravel())


@pytest.mark.parametrize("size", [2, 128, 1024])
def test_independent_codes_share_nothing(size):
    """Within five standard errors over seeds: the correction leaves no bias, however few pairs."""
    found = []
    for seed in range(8):
        a, b, _ = noisy_copy(size, 20000, keep=0.0, seed=seed)
        found.append(information.mutual_information(a, b, size))
    assert abs(np.mean(found)) < 5 * np.std(found, ddof=1) / np.sqrt(8)
    assert np.abs(found).max() < 0.05


@pytest.mark.parametrize("size", [2, 128, 1024])
def test_equal_codes_share_their_entropy(size):
    a, _, _ = noisy_copy(size, 20000, keep=1.0)
    want = entropy(np.bincount(a) / len(a))
    assert information.mutual_information(a, a, size) == pytest.approx(want, rel=1e-9)
    renamed = np.random.default_rng(1).permutation(size)[a]
    assert information.mutual_information(a, renamed, size) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("size", [128, 1024])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_noisy_copies_share_what_the_channel_carries(size, keep):
    """Within the 0.3 bits that the module states, where the plug-in estimate errs by up to 2."""
    a, b, want = noisy_copy(size, 100_000, keep)
    found = information.mutual_information(a, b, size)
    assert abs(found - want) < 0.3
    assert information.mutual_information(b, a, size) == pytest.approx(found, abs=0.02)


def test_a_level_of_one_code_tells_nothing():
    constant, varied = np.zeros(100, int), np.arange(100) % 4
    assert information.mutual_information(constant, varied, 4) == 0
    assert information.mutual_information(constant, constant, 4) == 0


def test_between_levels_finds_which_levels_depend():
    """Level 3 is a noisy copy of level 1; level 2 is drawn alone."""
    a, b, want = noisy_copy(32, 20000, keep=0.5)
    alone = np.random.default_rng(9).integers(0, 32, 20000)
    codes = np.stack([a, alone, b])
    table = information.between_levels([codes[:, :5000], codes[:, 5000:]], 32)
    np.testing.assert_array_equal(table, table.T)
    np.testing.assert_allclose(table[0, 2], want, atol=0.1)
    np.testing.assert_allclose(table[[0, 1], [1, 2]], 0, atol=0.02)
    np.testing.assert_allclose(table[1, 1], 5, atol=0.01)


def test_between_lags_finds_the_period_within_records_only():
    """Level 1 repeats after three frames, level 2 does not. Records follow each other so that a
    pair across their border would break the period."""
    rng = np.random.default_rng(3)
    records = []
    for _ in range(400):
        period = rng.integers(0, 8, 3)
        records.append(np.stack([np.tile(period, 10), rng.integers(0, 8, 30)]))
    table = information.between_lags(records, 8, lags=4)
    assert table.shape == (2, 4)
    np.testing.assert_allclose(table[0], [0, 0, 3, 0], atol=0.06)
    np.testing.assert_allclose(table[1], 0, atol=0.02)


def test_between_lags_ends_where_records_do():
    codes = np.arange(12).reshape(2, 6) % 3
    assert information.between_lags([codes, codes[:, :2]], 3, lags=8).shape == (2, 5)
    assert information.between_lags([codes[:, :1]], 3).shape == (2, 0)
