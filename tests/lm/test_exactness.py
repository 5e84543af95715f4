"""Trained models against the enumerated optimum of their pattern, on a smaller source."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from tiers import slow, wide

from rvq_jax import patterns
from rvq_jax.lm.depth import DepthConfig

PATH = Path(__file__).parents[2] / "experiments" / "exactness" / "run.py"
spec = importlib.util.spec_from_file_location("exactness", PATH)
exactness = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exactness)


def test_the_source_is_a_distribution_with_its_dependencies():
    joint = exactness.source(2, 3, 3)
    assert joint.shape == (3,) * 6
    assert joint.sum() == pytest.approx(1.0)
    # Frame 2 of the first level depends on frame 0 through frame 1 alone: given it, no more.
    p = joint.sum(axis=(3, 4, 5))
    given = p / p.sum(axis=2, keepdims=True)
    assert np.allclose(given, given.mean(axis=0, keepdims=True), atol=1e-9)


TWO = ("delay", "flatten")


@pytest.mark.parametrize("name", [slow(x) if x in TWO else wide(x) for x in exactness.SIX])
def test_a_trained_model_reaches_its_patterns_optimum(name):
    """Within 1 % above, and never below: cross-entropy over all sequences has no sampling error,
    so less than the optimum would mean that a prediction saw what its pattern hides."""
    check(name, frames=3, updates=200, layers=2)


# Its twins in the fast tier: bits that sum to one by enumeration, in test_heads.py, and scores that
# are those of decoding step by step, in test_lm.py.
@pytest.mark.wide
@pytest.mark.parametrize("name", ["parallel", "flatten"])
def test_a_small_model_of_two_frames_reaches_its_patterns_optimum(name):
    """As above, in half the steps."""
    check(name, frames=2, updates=100, layers=1)


# Its twin is of any weights: the bits of all sequences sum to one, in test_heads.py.
@pytest.mark.slow
def test_a_depth_transformer_reaches_flattens_optimum_in_a_step_for_each_frame():
    depth = DepthConfig(dim=32, layers=1, heads=4, mlp_dim=64)
    check("parallel", frames=3, updates=200, layers=1, exact="flatten", depth=depth)


def check(
    name: str, frames: int, updates: int, layers: int, exact: str | None = None, **fields
) -> None:
    """exact: the pattern whose optimum it is; its own for None."""
    sizes = {"dim": 32, "layers": layers, "heads": 4, "mlp_dim": 64, **fields}
    joint = exactness.source(2, frames, 3)
    best = patterns.analyse(patterns.named(exact or name, 2, frames), joint).bits_per_frame
    trained = exactness.train(name, joint, 2, frames, updates, sizes=sizes)
    reached = exactness.cross_entropy(*trained, joint)
    assert best * (1 - 1e-5) <= reached <= best * 1.01
