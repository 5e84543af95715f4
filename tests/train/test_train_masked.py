"""Training masked token models: what the loss is of, and that it falls."""

import functools

import jax
import numpy as np
import pytest
from small_masked import CONFIGS, KEY, PARAMS, F, K, N, conditions
from tiers import slow

from rvq_jax.lm import forms
from rvq_jax.lm.text_bytes import to_bytes
from rvq_jax.train.tasks.lm import PREFIX, ConditionDropout
from rvq_jax.train.tasks.masked import drawn_masks, masked_task

ROWS = 16
INDEX = np.arange(ROWS) * 7
LENGTHS = np.where(np.arange(ROWS) % 3, F, 4)
each_model = pytest.mark.parametrize("name", ["soundstorm", slow("magnet")])


def batch(config) -> dict:
    """Codes that are easily learned: each level of a row one code."""
    codes = np.random.default_rng(0).integers(0, N, (1, K, 1)).repeat(ROWS, 0).repeat(F, 2)
    found = {"codes": codes, "mask": np.arange(F)[None] < LENGTHS[:, None], "index": INDEX}
    found["text"] = to_bytes(["a", ""] * (ROWS // 2), 8)
    if config.semantic_size is not None:
        found[f"{PREFIX}semantic"] = conditions(config, ROWS)["semantic"].states
    return found


@functools.cache
def program(name: str):
    """Loss, gradients and weight of a batch."""
    task = masked_task(CONFIGS[name], ConditionDropout(0.2))

    def found(params, batch, key):
        loss, grads = jax.value_and_grad(lambda p: task.loss(p, task.aux, batch, key)[0])(params)
        updated = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        return loss, updated, task.weight(batch, key)

    stacked = forms.stack(CONFIGS[name], PARAMS[name])
    return task, stacked, jax.jit(found)


@each_model
def test_the_loss_falls(name):
    _, params, step = program(name)
    whole = batch(CONFIGS[name])
    first = np.mean([step(params, whole, jax.random.key(i))[0] for i in range(5)])
    for i in range(40):
        _, params, _ = step(params, whole, jax.random.key(i))
    assert np.mean([step(params, whole, jax.random.key(i))[0] for i in range(5)]) < 0.5 * first


@each_model
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(name):
    """They weigh what is masked in them, as their records' draws say."""
    (_, params, step), whole = program(name), batch(CONFIGS[name])
    loss, _, count = step(params, whole, KEY)
    values, weights = [], []
    for part in (np.arange(ROWS) < 5, np.arange(ROWS) >= 5):
        # In place of the others' rows such as padding has: of no frames, in one program.
        some = whole | {"mask": whole["mask"] & part[:, None]}
        value, _, weight = step(params, some, KEY)
        values.append(value), weights.append(int(weight))
    assert sum(weights) == count and min(weights) > 0
    np.testing.assert_allclose(np.average(values, weights=weights), loss, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_held_out_batches_are_always_masked_alike(name):
    """Bits of the codes that a fixed key masks, and their number."""
    task, params, _ = program(name)
    whole = batch(CONFIGS[name])
    evaluate = jax.jit(task.evaluate)
    (one, count), (two, _) = (evaluate(params, task.aux, whole) for _ in range(2))
    masks = drawn_masks(CONFIGS[name], whole, jax.random.key(0))
    assert count == masks.scored.sum() and one["loss"] == two["loss"]
    assert 0.1 * np.log2(N) < one["loss"] / count < 10 * np.log2(N)
