"""The exact optimum of a pattern on sources whose answer is known."""

import numpy as np
import pytest

from rvq_jax import patterns


def entropy(p):
    p = p[p > 0]
    return -(p * np.log2(p)).sum()


def random_joint(levels, frames, size, seed=0):
    joint = np.random.default_rng(seed).gamma(0.3, size=(size,) * (levels * frames))
    return joint / joint.sum()


def test_flattening_reaches_the_entropy():
    """One code at a time is the chain rule: the optimum is the joint's own entropy."""
    joint = random_joint(2, 3, 3)
    for pattern in (patterns.flatten(2, 3), patterns.musiclm(2, 3, 2)):
        assert patterns.analyse(pattern, joint).bits_per_frame == pytest.approx(entropy(joint) / 3)


def test_every_pattern_costs_at_least_the_entropy():
    joint = random_joint(2, 3, 3)
    for name in patterns.NAMES:
        got = patterns.analyse(patterns.named(name, 2, 3), joint).bits_per_frame
        assert got >= entropy(joint) / 3 - 1e-12


def test_parallel_on_equal_levels_pays_for_both():
    """Two levels always equal, one fair bit a frame: parallel codes it twice, delay once."""
    joint = np.zeros((2, 2, 2, 2))
    for a in range(2):
        for b in range(2):
            joint[a, b, a, b] = 0.25
    assert patterns.analyse(patterns.parallel(2, 2), joint).bits_per_frame == pytest.approx(2.0)
    assert patterns.analyse(patterns.delay(2, 2), joint).bits_per_frame == pytest.approx(1.0)


def test_independent_codes_cost_the_same_everywhere():
    p = np.array([0.5, 0.3, 0.2])
    joint = np.einsum("a,b,c,d->abcd", p, p, p, p)
    for name in ("parallel", "delay", "flatten", "coarse_first"):
        got = patterns.analyse(patterns.named(name, 2, 2), joint).bits_per_frame
        assert got == pytest.approx(2 * entropy(p))


def test_who_is_predicted_together():
    got = patterns.analyse(patterns.partial_delay(3, 2))
    assert got.steps == 3
    assert got.together == [[(0, 0)], [(0, 1), (1, 0), (2, 0)], [(1, 1), (2, 1)]]
    assert got.bits_per_frame is None


def test_a_joint_of_another_size():
    with pytest.raises(ValueError, match="4 axes"):
        patterns.analyse(patterns.parallel(2, 2), np.ones((2, 2)) / 4)
