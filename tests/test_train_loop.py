"""The loop: what an update is, what stops it, and whose folder it is."""

import dataclasses
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from small_runs import (
    LM,
    RUN,
    TUNING,
    bits_of,
    code_set,
    lm_parts,
    log_of,
    one_device,
)

from rvq_jax import config as configs
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.data import loader
from rvq_jax.errors import UserError
from rvq_jax.train import guards, runs, sharding
from rvq_jax.train.checkpoint import Checkpoints
from rvq_jax.train.loop import LoopConfig, fit, open_run
from rvq_jax.train.runs import LMRun
from rvq_jax.train.state import OptimizerConfig, Task, make_program

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


def test_an_update_that_is_not_finite_changes_nothing_and_is_counted(tmp_path):
    """Parameters, moments and running mean are those of a run without the batch; its key and data
    go on. The log has no number for the loss of such an update."""
    order = [batch["index"] for _, batch in zip(range(4), points(RECORDS), strict=False)]
    broken = RECORDS.copy()
    broken[order[2]] = np.nan
    config = LoopConfig(steps=4, log_every=1)
    state = fit(tmp_path / "broken", point_task(), points(broken), config, TUNING)
    program = make_program(point_task(), TUNING, 4, one_device())
    want = program.init(jax.random.key(0), jnp.zeros(()))
    for i, batch in zip(range(4), points(RECORDS), strict=False):
        if i != 2:
            want, _ = program.step(want, batch)
    assert bits_of(state.params) == bits_of(want.params)
    assert bits_of(optax.tree.get(state.opt, "nu")) == bits_of(optax.tree.get(want.opt, "nu"))
    assert int(state.step) == 4 and state.skips.tolist() == [0, 1]
    lines = log_of(tmp_path / "broken")
    assert [line["skipped"] for line in lines] == [0, 0, 1, 1]
    assert lines[2]["loss"] is None and lines[3]["loss"] > 0


def test_too_many_in_a_row_stop_a_run_and_name_the_records(tmp_path):
    """The error says which update and which examples; the checkpoint before stays, and once the
    examples are mended the run goes on from it to where it would have been."""
    order = [batch["index"] for _, batch in zip(range(6), points(RECORDS), strict=False)]
    broken = RECORDS.copy()
    broken[np.concatenate(order[2:4])] = np.inf
    config = LoopConfig(steps=6, log_every=1, checkpoint_every=2, skips=2)

    def go(folder, records):
        def names(index):
            return [f"song{int(i)}.wav" for i in index]

        return fit(folder, point_task(), points(records), config, TUNING, names=names)

    with pytest.raises(UserError) as caught:
        go(tmp_path / "run", broken)
    message = str(caught.value)
    guilty = [f"song{i}.wav" for i in np.concatenate(order[2:4])]
    assert "step 4" in message and ", ".join(guilty) in message and "\n" not in message
    assert message.count(".wav") == 4
    mended = go(tmp_path / "run", RECORDS)
    assert bits_of(mended) == bits_of(go(tmp_path / "never", RECORDS))
    assert log_of(tmp_path / "run") == log_of(tmp_path / "never")


def test_every_update_is_looked_at(tmp_path):
    """Also where nothing is logged or saved."""
    broken = np.full_like(RECORDS, np.inf)
    config = LoopConfig(steps=20, log_every=50, checkpoint_every=50)
    with pytest.raises(UserError, match=r"step 3, as in all of the last 3, on (#\d, ){5}#\d;"):
        fit(tmp_path, point_task(), points(broken), config, TUNING)


def test_a_spike_leads_back_and_past_its_data(tmp_path, capsys):
    """From the checkpoint before it with the batches after it, as if those between were not there;
    killed and started again it goes the same way."""
    steps, bad = 24, 17
    records = np.tile(RECORDS, (8, 1))
    order = [batch["index"] for _, batch in zip(range(steps + 4), points(records), strict=False)]
    records[order[bad - 1]] = 1e6
    config = LoopConfig(steps=steps, log_every=1, checkpoint_every=4, spike=1e3)
    state = fit(tmp_path / "run", point_task(), points(records), config, TUNING)
    assert "the loss leapt at step 17: back to step 16" in capsys.readouterr().err
    # By hand: updates 1 to 16, then those that read batches from 19 on: 18 was under way.
    program = make_program(point_task(), TUNING, steps, one_device())
    want = program.init(jax.random.key(0), jnp.zeros(()))
    for i, batch in zip(range(steps + 2), points(records), strict=False):
        if i not in (16, 17):
            want, _ = program.step(want, batch)
    assert bits_of(state.params) == bits_of(want.params)
    assert [line["step"] for line in log_of(tmp_path / "run")] == list(range(1, steps + 1))
    # Everything after the checkpoint is lost, and it spikes again.
    for path in (tmp_path / "run" / "checkpoints").glob("2[04]*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    again = fit(tmp_path / "run", point_task(), points(records), config, TUNING)
    assert bits_of(again) == bits_of(state)


def test_spikes_without_an_end_stop_a_run(tmp_path):
    records = np.tile(RECORDS, (8, 1))
    order = [batch["index"] for _, batch in zip(range(32), points(records), strict=False)]
    records[np.concatenate(order[16:])] = 1e6
    config = LoopConfig(steps=24, log_every=1, checkpoint_every=4, spike=1e3)
    with pytest.raises(UserError, match="leapt 4 times after step 16"):
        fit(tmp_path, point_task(), points(records), config, TUNING)


def test_the_result_can_be_the_best_checkpoint(tmp_path):
    """That of least mean loss since the one before, kept though newer ones are."""
    records = np.concatenate([np.zeros((4, 3)), 100 * np.ones((12, 3))]).astype(np.float32)

    class InOrder:  # the easy ones last
        at = 0

        def __next__(self):
            self.at += 1
            place = 8 if self.at > 8 else 0
            return {"x": records[place : place + 2] * (1 + abs(self.at - 6)), "index": np.arange(2)}

        def get_state(self):
            return {"at": self.at}

        def set_state(self, state):
            self.at = state["at"]

    config = LoopConfig(steps=12, checkpoint_every=2, keep=1, result="best")
    tuning = dataclasses.replace(TUNING, learning_rate=0.1)
    state = fit(tmp_path, point_task(), InOrder(), config, tuning)
    assert int(state.step) < 12
    kept = Checkpoints(tmp_path / "checkpoints").steps()
    assert kept == [int(state.step), 12]


def test_data_that_changed_are_refused_with_the_difference(tmp_path):
    config = LoopConfig(steps=2, checkpoint_every=1)
    before = {"records": 8, "contents": "ab"}
    fit(tmp_path, point_task(), points(RECORDS), config, TUNING, dataset=before)
    for now, words in (
        ({"records": 7, "contents": "cd"}, "contents: ab there, cd here; records: 8 there, 7 here"),
        ({"records": 8, "contents": "cd"}, r"changed \(contents: ab there, cd here\)"),
    ):
        with pytest.raises(UserError, match=words):
            fit(tmp_path, point_task(), points(RECORDS), config, TUNING, dataset=now)


def test_codes_are_told_apart():
    """A code, a name, a caption, an order, a record less: each is other data."""
    one = code_set()
    told = [one.describe()]
    codes = [x.copy() for x in one.codes]
    codes[3][1, 2] += 1
    told.append(dataclasses.replace(one, codes=codes).describe())
    told.append(dataclasses.replace(one, codes=one.codes[::-1]).describe())
    told.append(dataclasses.replace(one, captions=["other", *one.captions[1:]]).describe())
    told.append(dataclasses.replace(one, names=["other", *one.names[1:]]).describe())
    told.append(code_set(8).describe())
    assert code_set().describe() == told[0] and len({str(x) for x in told}) == len(told)
    assert told[0]["records"] == 9 and told[-1]["records"] == 8


def test_two_runs_in_one_folder_are_refused(tmp_path):
    """The second is told who is at work; after the first the folder is free."""
    with (
        guards.alone(tmp_path),
        pytest.raises(UserError, match=rf"another run .*process {os.getpid()} on"),
        guards.alone(tmp_path),
    ):
        pass
    with guards.alone(tmp_path):
        pass


def test_nothing_compiles_after_the_first_updates(tmp_path):
    """Counted by JAX itself: all that an update, the log and a save need is compiled by then."""
    compiled = []

    def count(name, *_, **__):
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(name)

    counts = []

    class Counting:
        def __init__(self, batches):
            self.batches = batches
            self.get_state, self.set_state = batches.get_state, batches.set_state

        def __next__(self):
            counts.append(len(compiled))
            return next(self.batches)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        task, batches = lm_parts()
        config = LoopConfig(steps=12, log_every=2, checkpoint_every=2)
        fit(tmp_path, task, Counting(batches()), config, TUNING)
        assert counts[0] < counts[2] == counts[-1], counts
    finally:
        jax.monitoring.clear_event_listeners()


def test_updates_are_traced_on_request(tmp_path):
    config = LoopConfig(steps=6)
    fit(tmp_path, point_task(), points(RECORDS), config, TUNING, profile=2)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


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
