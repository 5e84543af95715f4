"""What an update is: by its definition, and of a batch worked through in parts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import (
    RECORDS,
    RUN,
    TUNING,
    code_set,
    lm_parts,
    log_of,
    one_device,
    point_task,
    points,
)

from rvq_jax import patterns
from rvq_jax.errors import UserError
from rvq_jax.lm.model import LMConfig
from rvq_jax.train import runs, sharding
from rvq_jax.train.loop import LoopConfig, fit
from rvq_jax.train.state import OptimizerConfig, Task, abstract_state, make_program
from rvq_jax.train.tasks.lm import lm_task


def test_updates_follow_their_definition(tmp_path):
    """Gradient, its norm, clipping, AdamW, schedule and running mean in plain numpy. The norm in
    the log is that before clipping: it is what tells of trouble."""
    steps, optimizer = 4, OptimizerConfig(learning_rate=0.1, warmup=2, clip=5.0, ema=0.2)
    config = LoopConfig(steps=steps, log_every=1)
    state = fit(tmp_path, point_task(), points(RECORDS), config, optimizer)
    w, m, v, ema = (np.zeros(3) for _ in range(4))
    norms, data = [], points(RECORDS)
    for i in range(steps):
        gradient = w - np.asarray(next(data)["x"], np.float64).mean(0)
        norms.append(np.linalg.norm(gradient))
        gradient *= min(1.0, optimizer.clip / norms[-1])
        m = optimizer.b1 * m + (1 - optimizer.b1) * gradient
        v = optimizer.b2 * v + (1 - optimizer.b2) * gradient**2
        rise = i / 2 if i < 2 else 0.5 * (1 + np.cos(np.pi * (i - 2) / (steps - 2)))
        m_hat, v_hat = m / (1 - optimizer.b1 ** (i + 1)), v / (1 - optimizer.b2 ** (i + 1))
        update = m_hat / (np.sqrt(v_hat) + 1e-8) + optimizer.weight_decay * w
        w = w - optimizer.learning_rate * rise * update
        decay = min(optimizer.ema, (1 + i) / (10 + i))
        ema = decay * ema + (1 - decay) * w
    assert min(norms) < optimizer.clip < max(norms), "clipping is not exercised"
    np.testing.assert_allclose([line["gradient_norm"] for line in log_of(tmp_path)], norms, 1e-4)
    np.testing.assert_allclose(state.params["w"][...], w, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.ema["w"][...], ema, rtol=1e-4, atol=1e-6)
    assert int(state.step) == steps


def masked_task() -> Task:
    """`point_task` of which each record counts for as much as its first number says."""

    def loss(params, aux, batch, key):
        distance = jnp.sum((params["w"][...][None] - batch["x"][:, 1:]) ** 2, axis=1)
        value = jnp.sum(batch["x"][:, 0] * distance) / jnp.maximum(weight(batch), 1)
        return value, (aux, {"double": 2 * value})

    def weight(batch, key=None):
        return batch["x"][:, 0].sum()

    return dataclasses.replace(point_task(2), loss=loss, weight=weight)


def test_a_batch_in_parts_is_the_whole_batch(tmp_path):
    """Accumulated over two, four or eight parts, on one device or eight, updates are those of the
    whole: a mean over all that counts, though some parts have more of it and some none."""
    records = np.concatenate([[[0], [3], [1], [7], [0], [2], [2], [5]], RECORDS[:, 1:]], axis=1)
    records = records.astype(np.float32)
    config = LoopConfig(steps=4, log_every=1)
    whole = fit(tmp_path / "whole", masked_task(), points(records, 8), config, TUNING)
    for parts, mesh in ((2, None), (8, None), (2, sharding.make_mesh(2, 2, 1, jax.devices()[:4]))):
        optimizer = dataclasses.replace(TUNING, accumulate=parts)
        place = tmp_path / f"{parts} {mesh is None}"
        state = fit(place, masked_task(), points(records, 8), config, optimizer, mesh=mesh)
        np.testing.assert_allclose(state.params["w"][...], whole.params["w"][...], rtol=1e-5)
        for mine, theirs in zip(log_of(place), log_of(tmp_path / "whole"), strict=True):
            assert mine.keys() == theirs.keys()
            np.testing.assert_allclose([*mine.values()], [*theirs.values()], rtol=1e-5)


def test_a_token_models_loss_is_the_mean_of_its_parts_by_their_weights():
    """Parts have unlike numbers of frames, and each record drops its caption by itself."""
    task, batches = lm_parts()
    batch = next(batches())
    params, key = jax.jit(task.init)(jax.random.key(0)), jax.random.key(1)
    loss = jax.jit(lambda batch: task.loss(params, task.aux, batch, key)[0])
    parts = [{name: x[i::2] for name, x in batch.items()} for i in range(2)]
    weights = [int(task.weight(part, key)) for part in parts]
    assert weights[0] != weights[1]
    mean = np.average([loss(part) for part in parts], weights=weights)
    np.testing.assert_allclose(mean, loss(batch), rtol=1e-5)


def test_what_cannot_be_worked_through_in_parts_is_told(tmp_path):
    """A loss that changes its rest, as a codec's codebooks; a batch that cannot be cut."""
    config = LoopConfig(steps=2)
    optimizer = dataclasses.replace(TUNING, accumulate=2)
    with pytest.raises(UserError, match=r"optimizer\.accumulate must be 1$"):
        fit(tmp_path / "a", point_task(), points(RECORDS), config, optimizer)
    with pytest.raises(UserError, match=r"optimizer\.accumulate must be 1 or more"):
        fit(tmp_path / "b", lm_parts()[0], None, config, dataclasses.replace(TUNING, accumulate=0))
    task, batches = lm_parts()
    optimizer = dataclasses.replace(TUNING, accumulate=3)
    with pytest.raises(UserError, match="a batch of 8 cannot be cut in 3"):
        fit(tmp_path / "c", task, batches(), config, optimizer)
    run = dataclasses.replace(RUN, batch=7, optimizer=dataclasses.replace(TUNING, accumulate=2))
    with pytest.raises(UserError, match="batch is 7 and must be a multiple of 2"):
        runs.train_lm(tmp_path / "d", code_set(), run)


def test_an_update_copies_no_weights(compiled_anew):
    """Beside its state an update has room for gradients: weights, moments and mean change where
    they lie, and no layer's weights are kept a second time for the backward pass."""
    lm = LMConfig(2, 8, dim=256, layers=4, heads=4, mlp_dim=512, text_dim=8)
    task = lm_task(lm, patterns.named("delay", 2, 3))
    optimizer, mesh = OptimizerConfig(), one_device()
    state = abstract_state(task, optimizer, 10, mesh)
    shapes = {"codes": (1, 2, 3), "index": (1,), "states": (1, 2, 8)}
    masks = {"mask": (1, 3), "text_mask": (1, 2)}
    batch = {name: jnp.zeros(shape, jnp.int32) for name, shape in shapes.items()}
    batch |= {name: jnp.ones(shape, bool) for name, shape in masks.items()}
    batch["states"] = batch["states"].astype(jnp.float32)
    compiled = make_program(task, optimizer, 10, mesh).step.lower(state, batch).compile()
    weights = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.params))
    used = compiled.memory_analysis()
    assert used.alias_size_in_bytes > 4 * weights, "the state is not given away"
    assert weights < used.temp_size_in_bytes < 1.5 * weights
