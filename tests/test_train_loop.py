"""The loop: what an update is, what stops it, and whose folder it is."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_runs import LM, RUN, TUNING, bits_of, code_set, lm_parts, log_of

from rvq_jax import config as configs
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.data import loader
from rvq_jax.errors import UserError
from rvq_jax.train import runs, sharding
from rvq_jax.train.checkpoint import Checkpoints
from rvq_jax.train.loop import LoopConfig, fit, open_run
from rvq_jax.train.runs import LMRun
from rvq_jax.train.state import OptimizerConfig, Task

# A model of three numbers, for what does not need a large one.


class Point(nnx.Module):
    def __init__(self, size: int = 3):
        self.w = nnx.Param(jnp.zeros(size), axes=(None,))


def point_task(size: int = 3) -> Task:
    """Half the mean squared distance of a point to the records: its gradient is w - mean(x)."""

    def init(key):
        return nnx.state(Point(size), nnx.Param)

    def loss(params, rest, batch, key):
        w = params["w"][...]
        return 0.5 * jnp.mean(jnp.sum((w[None] - batch["x"]) ** 2, axis=1)), (rest, {})

    return Task(init, jnp.zeros(()), loss)


def points(records: np.ndarray, batch: int = 2):
    return loader.batches(records, lambda record, rng: {"x": record}, batch, 0)


RECORDS = np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32) * [1.0, 10.0, 100.0]
RECORDS = RECORDS.astype(np.float32)


def test_updates_follow_their_definition(tmp_path):
    """Gradient, its norm, clipping, AdamW, schedule and running mean in plain numpy. The norm in
    the log is that before clipping: it is what tells of trouble."""
    steps, tuning = 4, OptimizerConfig(learning_rate=0.1, warmup=2, clip=5.0, ema=0.2)
    config = LoopConfig(steps=steps, log_every=1)
    state = fit(tmp_path, point_task(), points(RECORDS), config, tuning)
    w, m, v, ema = (np.zeros(3) for _ in range(4))
    norms, data = [], points(RECORDS)
    for i in range(steps):
        gradient = w - np.asarray(next(data)["x"], np.float64).mean(0)
        norms.append(np.linalg.norm(gradient))
        gradient *= min(1.0, tuning.clip / norms[-1])
        m = tuning.b1 * m + (1 - tuning.b1) * gradient
        v = tuning.b2 * v + (1 - tuning.b2) * gradient**2
        rise = i / 2 if i < 2 else 0.5 * (1 + np.cos(np.pi * (i - 2) / (steps - 2)))
        m_hat, v_hat = m / (1 - tuning.b1 ** (i + 1)), v / (1 - tuning.b2 ** (i + 1))
        update = m_hat / (np.sqrt(v_hat) + 1e-8) + tuning.weight_decay * w
        w = w - tuning.learning_rate * rise * update
        decay = min(tuning.ema, (1 + i) / (10 + i))
        ema = decay * ema + (1 - decay) * w
    assert min(norms) < tuning.clip < max(norms), "clipping is not exercised"
    np.testing.assert_allclose([line["gradient_norm"] for line in log_of(tmp_path)], norms, 1e-4)
    np.testing.assert_allclose(state.params["w"][...], w, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.ema["w"][...], ema, rtol=1e-4, atol=1e-6)
    assert int(state.step) == steps


def test_nan_stops_a_run_and_names_the_records(tmp_path):
    """The error says which update and which examples; the checkpoint before stays, and once the
    example is mended the run goes on from it to where it would have been."""
    order = [
        index
        for _, batch in zip(range(4), points(RECORDS), strict=False)
        for index in batch["index"]
    ]
    guilty = int(order[5])  # in the third batch
    broken = RECORDS.copy()
    broken[guilty, 1] = np.nan
    config = LoopConfig(steps=4, log_every=1, checkpoint_every=1)

    def go(folder, records):
        def names(index):
            return [f"song{int(i)}.wav" for i in index]

        return fit(folder, point_task(), points(records), config, TUNING, names=names)

    with pytest.raises(UserError) as caught:
        go(tmp_path / "run", broken)
    message = str(caught.value)
    assert "step 3" in message and f"song{guilty}.wav" in message and "\n" not in message
    assert message.count(".wav") == 2 and "checkpoint of step 2" in message
    assert [line["step"] for line in log_of(tmp_path / "run")] == [1, 2]
    mended = go(tmp_path / "run", RECORDS)
    assert bits_of(mended) == bits_of(go(tmp_path / "never", RECORDS))
    assert log_of(tmp_path / "run") == log_of(tmp_path / "never")


def test_nan_is_found_between_the_steps_that_are_logged(tmp_path):
    """Every update is looked at, also where nothing is logged or saved."""
    broken = np.full_like(RECORDS, np.inf)
    config = LoopConfig(steps=20, log_every=50, checkpoint_every=50)
    with pytest.raises(UserError, match=r"step 1, on #\d, #\d; no checkpoint yet"):
        fit(tmp_path, point_task(), points(broken), config, TUNING)


def test_checkpoints_of_another_model_are_told(tmp_path):
    """Orbax's own message has many lines; ours is one that names the folder."""
    config = LoopConfig(steps=2)
    fit(tmp_path, point_task(), points(RECORDS), config, TUNING)
    wide = np.ones((8, 5), np.float32)
    with pytest.raises(UserError, match="another model") as caught:
        fit(tmp_path, point_task(5), points(wide), config, TUNING)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    """A file where the folder should be: every place a run writes to raises the user's error."""
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError):
            open_run(folder, {})
        with pytest.raises(UserError):
            Checkpoints(folder / "checkpoints")


# Whose folder it is.


def test_a_run_folder_belongs_to_one_config(tmp_path):
    """The same config opens it again; another is refused with the fields that differ."""
    open_run(tmp_path, configs.to_dict(RUN))
    before = (tmp_path / "config.json").read_bytes()
    open_run(tmp_path, configs.to_dict(RUN))
    others = {
        "lm.layers: 1 there, 3 here": dataclasses.replace(
            RUN, lm=dataclasses.replace(LM, layers=3)
        ),
        "loop.seed: 0 there, 1 here": dataclasses.replace(
            RUN, loop=dataclasses.replace(RUN.loop, seed=1)
        ),
        "pattern: delay there, flatten here": dataclasses.replace(RUN, pattern="flatten"),
    }
    for words, other in others.items():
        with pytest.raises(UserError) as caught:
            open_run(tmp_path, configs.to_dict(other))
        assert words in str(caught.value) and "\n" not in str(caught.value)
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "\x00"])
def test_a_damaged_config_is_told(tmp_path, text):
    """Anything but an object of fields is refused and named."""
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError) as caught:
        open_run(tmp_path, {"a": 1})
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_config_comes_back_from_its_dict():
    """Through JSON, nested, with tuples as lists in between."""
    again = configs.from_dict(LMRun, json.loads(json.dumps(configs.to_dict(RUN))), "here")
    assert again == RUN
    seanet = SEANetConfig(ratios=(4, 2))
    data = json.loads(json.dumps(configs.to_dict(seanet)))
    assert configs.from_dict(SEANetConfig, data, "here") == seanet
    with pytest.raises(UserError, match=r"here: lm: unknown field 'layerz'; .*'layers'"):
        configs.from_dict(LMRun, {"lm": {"layerz": 1}}, "here")


def test_codes_that_do_not_fit_the_model_are_told(tmp_path):
    run = dataclasses.replace(RUN, lm=dataclasses.replace(LM, levels=3))
    with pytest.raises(UserError, match="2 levels of 7, the model 3 of 7"):
        runs.train_lm(tmp_path, code_set(), run)


# A batch in parts.


def masked_task() -> Task:
    """`point_task` of which each record counts for as much as its first number says."""

    def loss(params, rest, batch, key):
        distance = jnp.sum((params["w"][...][None] - batch["x"][:, 1:]) ** 2, axis=1)
        value = jnp.sum(batch["x"][:, 0] * distance) / jnp.maximum(weight(batch), 1)
        return value, (rest, {"double": 2 * value})

    def weight(batch):
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
        tuning = dataclasses.replace(TUNING, accumulate=parts)
        place = tmp_path / f"{parts} {mesh is None}"
        state = fit(place, masked_task(), points(records, 8), config, tuning, mesh=mesh)
        np.testing.assert_allclose(state.params["w"][...], whole.params["w"][...], rtol=1e-5)
        for mine, theirs in zip(log_of(place), log_of(tmp_path / "whole"), strict=True):
            assert mine.keys() == theirs.keys()
            np.testing.assert_allclose([*mine.values()], [*theirs.values()], rtol=1e-5)


def test_a_token_models_loss_is_the_mean_of_its_parts_by_their_weights():
    """Parts have unlike numbers of frames, and each record drops its caption by itself."""
    task, batches = lm_parts()
    batch = next(batches())
    params, key = jax.jit(task.init)(jax.random.key(0)), jax.random.key(1)
    loss = jax.jit(lambda batch: task.loss(params, task.rest, batch, key)[0])
    parts = [{name: x[i::2] for name, x in batch.items()} for i in range(2)]
    weights = [int(task.weight(part)) for part in parts]
    assert weights[0] != weights[1]
    mean = np.average([loss(part) for part in parts], weights=weights)
    np.testing.assert_allclose(mean, loss(batch), rtol=1e-5)


def test_what_cannot_be_worked_through_in_parts_is_told(tmp_path):
    """A loss that changes its rest, as a codec's codebooks; a batch that cannot be cut."""
    config = LoopConfig(steps=2)
    tuning = dataclasses.replace(TUNING, accumulate=2)
    with pytest.raises(UserError, match=r"tuning\.accumulate must be 1$"):
        fit(tmp_path / "a", point_task(), points(RECORDS), config, tuning)
    with pytest.raises(UserError, match=r"tuning\.accumulate must be 1 or more"):
        fit(tmp_path / "b", lm_parts()[0], None, config, dataclasses.replace(TUNING, accumulate=0))
    task, batches = lm_parts()
    tuning = dataclasses.replace(TUNING, accumulate=3)
    with pytest.raises(UserError, match="a batch of 8 cannot be cut in 3"):
        fit(tmp_path / "c", task, batches(), config, tuning)
    run = dataclasses.replace(RUN, batch=7, tuning=dataclasses.replace(TUNING, accumulate=2))
    with pytest.raises(UserError, match="batch is 7 and must be a multiple of 2"):
        runs.train_lm(tmp_path / "d", code_set(), run)
