"""Which updates of a run are an optimizer's own, which weights decay, and a rate that shrinks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rvq_jax.codec.mimi import MimiConfig
from rvq_jax.errors import UserError
from rvq_jax.train.optimizers import OptimizerConfig, learning_rate, make_optimizer

PLAIN = OptimizerConfig(0.1, warmup=0, schedule="constant", weight_decay=0.0, clip=1e6)


def replace(**changes) -> OptimizerConfig:
    return OptimizerConfig(**{**vars(PLAIN), **changes})


def moves(tx, state, count: int) -> tuple[list[bool], object]:
    """Which of the next updates move a weight whose gradient is 1."""
    update, found, one = jax.jit(tx.update), [], jnp.ones(3)
    for _ in range(count):
        change, state = update(one, state, one)
        found.append(bool(jnp.abs(change).max() > 0))
    return found, state


def test_drawn_updates_are_the_same_after_a_stop():
    """By their number alone; none before the start, and the share that was asked for after it."""
    tx = make_optimizer(replace(start=10, probability=2 / 3), 400)
    whole, _ = moves(tx, tx.init(jnp.ones(3)), 400)
    found, state = moves(tx, tx.init(jnp.ones(3)), 150)
    # What a checkpoint brings back.
    state = jax.tree.map(lambda x: jnp.asarray(np.array(x)), state)
    assert found + moves(tx, state, 250)[0] == whole
    assert not any(whole[:10]) and abs(np.mean(whole[10:]) - 2 / 3) < 0.08


def test_an_interval_counts_from_the_start():
    tx = make_optimizer(replace(start=3, every=4), 20)
    found, _ = moves(tx, tx.init(jnp.ones(3)), 12)
    assert [i for i, x in enumerate(found) if x] == [3, 7, 11]


def test_weights_decay_by_name():
    """Mimi's transformers, and no other weight of it; all weights where none is named."""
    shapes = nnx.eval_shape(lambda: MimiConfig().build(nnx.Rngs(0)))
    params = jax.tree.map(lambda x: jnp.ones(2), nnx.state(shapes, nnx.Param))
    for names in ((), ("middle",)):
        tx = make_optimizer(replace(weight_decay=0.05, decayed=names), 9)
        nothing = jax.tree.map(jnp.zeros_like, params)
        found, _ = tx.update(nothing, tx.init(params), params)
        for path, change in jax.tree_util.tree_leaves_with_path(found):
            named = "middle" in jax.tree_util.keystr(path)
            want = -0.1 * 0.05 if named or not names else 0.0
            np.testing.assert_allclose(change, want, rtol=1e-5, err_msg=jax.tree_util.keystr(path))


def test_a_rate_shrinks_by_its_factor():
    """As torch's ExponentialLR, to the end of a long run; a cosine has no such factor."""
    rate = learning_rate(replace(gamma=0.999996), 400_000)
    for step in (0, 1, 1000, 399_999):
        np.testing.assert_allclose(rate(jnp.int32(step)), 0.1 * 0.999996**step, rtol=1e-4)
    with pytest.raises(UserError, match=r"optimizer\.gamma is 0\.5, but a cosine"):
        learning_rate(replace(gamma=0.5, schedule="cosine"), 9)
