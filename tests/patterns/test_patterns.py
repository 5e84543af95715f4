"""What each named pattern is, and the errors of bad tables."""

import numpy as np
import pytest

from rvq_jax import patterns
from rvq_jax.errors import UserError

# The layouts of three levels over two frames, written out by hand from the papers' figures.
DRAWN = {
    "parallel": [[0, 1], [0, 1], [0, 1]],
    "delay": [[0, 1], [1, 2], [2, 3]],
    "partial_delay": [[0, 1], [1, 2], [1, 2]],
    "flatten": [[0, 3], [1, 4], [2, 5]],
    "partial_flatten": [[0, 2], [1, 3], [1, 3]],
    "coarse_first": [[0, 1], [2, 3], [2, 3]],
}


@pytest.mark.parametrize("name", DRAWN)
def test_named_layouts(name):
    assert patterns.named(name, 3, 2).step_of.tolist() == DRAWN[name]


def test_steps_of_thirty_seconds():
    """The step counts published for K = 4 and 1500 frames (Copet et al. 2023)."""
    steps = {name: patterns.named(name, 4, 1500).steps for name in DRAWN}
    assert steps == {
        "parallel": 1500,
        "delay": 1503,
        "partial_delay": 1501,
        "flatten": 6000,
        "partial_flatten": 3000,
        "coarse_first": 3000,
    }
    assert patterns.stereo_partial_delay(8, 1500).steps == 1503
    assert patterns.coarse_first(4, 1500, delays=[0, 1, 2]).steps == 3002
    assert patterns.musiclm(4, 1500, group=2).steps == 6000


def test_groups_one_after_another():
    """MusicLM's order: the first group's codes are all there before the second begins."""
    step_of = patterns.musiclm(4, 5, group=2).step_of
    assert step_of[:2].max() < step_of[2:].min()


@pytest.mark.parametrize("alias, name", patterns.builders.ALIASES.items())
def test_aliases(alias, name):
    got = patterns.named(alias.replace("_", " ").title(), 4, 6)
    assert (got.step_of == patterns.named(name, 4, 6).step_of).all()


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match="unknown pattern 'dellay'; did you mean 'delay'"):
        patterns.named("dellay", 4, 6)


@pytest.mark.parametrize(
    "table, message",
    [
        ([[0, 1], [2, 2]], "level 1 does not"),
        ([[1, 0]], "level 0 does not"),
        ([[-1, 0]], "must lie in"),
        ([0, 1], "levels, frames"),
    ],
)
def test_bad_tables(table, message):
    with pytest.raises(ValueError, match=message):
        patterns.custom(np.array(table))


def test_bad_arguments():
    with pytest.raises(ValueError, match="one entry per level"):
        patterns.delay(4, 5, delays=[0, 1])
    with pytest.raises(ValueError, match="does not divide"):
        patterns.musiclm(4, 5, group=3)
    with pytest.raises(ValueError, match="two levels each"):
        patterns.stereo_delay(3, 5)
    with pytest.raises(ValueError, match="codes must be"):
        patterns.delay(4, 5).interleave(np.zeros((1, 3, 5), int), fill=0)
    with pytest.raises(ValueError, match="at least 1"):
        patterns.flatten(0, 5)
