"""Each loss has the share that its weight says, whatever its scale and on any mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from signals import noise

from rvq_jax.codec import balancer
from rvq_jax.train import sharding

WEIGHTS = {"adversarial": 3.0, "mel": 1.0}


def gradients(step: int, **scales: float) -> dict:
    """Of every loss `[8, 40, 2]`, another in every step."""
    seeds = {name: 10 * step + i for i, name in enumerate(WEIGHTS)}
    return {name: scales.get(name, 1.0) * noise(8, 40, 2, seed=seeds[name]) for name in WEIGHTS}


def after(steps: int, step=balancer.balance, **scales: float):
    """The balanced gradient of the last of several updates, and the balancer after it."""
    state = balancer.init(WEIGHTS)
    for i in range(steps):
        found, state = step(state, gradients(i, **scales), WEIGHTS)
    return found, state


@pytest.mark.parametrize("per_item", [True, False])
def test_the_scale_of_a_loss_changes_nothing(per_item):
    step = jax.jit(functools.partial(balancer.balance, per_item=per_item))
    want, _ = after(3, step)
    got, state = after(3, step, mel=1000.0)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    norms = state.norms()
    assert 900 < norms["mel"] / norms["adversarial"] < 1100


def test_shares_follow_the_weights_and_add_up_to_the_norm():
    """Of gradients that do not overlap, all of the same length in each item."""
    parts = {"adversarial": np.zeros((2, 4, 1), np.float32), "mel": np.zeros((2, 4, 1), np.float32)}
    parts["adversarial"][:, :2], parts["mel"][:, 2:] = 5.0, 0.01
    got, _ = balancer.balance(balancer.init(WEIGHTS), parts, WEIGHTS, norm=2.0)
    lengths = [np.linalg.norm(x) for x in (got[0, :2], got[0, 2:])]
    np.testing.assert_allclose(lengths, [2.0 * 3 / 4, 2.0 * 1 / 4], rtol=1e-5)


def test_norms_are_means_over_updates_that_begin_unbiased():
    """The mean of 1, 2, 3 weighted by what the decay leaves of each."""
    state, weights = balancer.init(["l1"]), {"l1": 1.0}
    for size in (1.0, 2.0, 3.0):
        _, state = balancer.balance(state, {"l1": jnp.full((2, 1, 1), size)}, weights, decay=0.5)
    np.testing.assert_allclose(state.norms()["l1"], (0.25 + 1.0 + 3.0) / 1.75, rtol=1e-6)


@pytest.mark.parametrize("silent", ["mel", "both"])
def test_a_zero_gradient_gives_no_nan(silent):
    scales = {"mel": 0.0} if silent == "mel" else dict.fromkeys(WEIGHTS, 0.0)
    got, _ = after(2, **scales)
    assert np.isfinite(got).all()
    assert (np.abs(got).max() > 0) == (silent == "mel")


def test_a_loss_of_weight_zero_counts_as_absent():
    """One that starts late takes its share at once: zeros before would have made it large."""
    late, state = jax.jit(balancer.balance), balancer.init(WEIGHTS)
    for i in range(3):
        found = gradients(i) | {"adversarial": jnp.zeros((8, 40, 2))}
        _, state = late(state, found, WEIGHTS | {"adversarial": 0.0})
    alone, _ = balancer.balance(state, {"mel": gradients(3)["mel"]}, WEIGHTS)
    without, _ = late(state, gradients(3), WEIGHTS | {"adversarial": 0.0})
    np.testing.assert_allclose(without, alone, rtol=1e-5, atol=1e-7)
    assert state.norms()["adversarial"] == 0
    got, _ = late(state, gradients(3), WEIGHTS)
    # Two gradients of one length each, nearly at right angles.
    assert 0.7 < np.linalg.norm(got, axis=(1, 2)).mean() < 0.9


def test_eight_devices_give_what_one_gives():
    """Norms are means over the global batch: of shards whose gradients are of different size."""
    uneven = np.arange(1.0, 9.0, dtype=np.float32)[:, None, None]
    found = {name: uneven**i * x for i, (name, x) in enumerate(gradients(0).items())}
    want = balancer.balance(balancer.init(WEIGHTS), found, WEIGHTS)
    placed = sharding.place_batch(found, sharding.make_mesh())
    assert len(placed["mel"].sharding.device_set) == 8
    got = jax.jit(balancer.balance)(balancer.init(WEIGHTS), placed, WEIGHTS)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
