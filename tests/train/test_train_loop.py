"""What the loop does while it goes: what it skips, goes back from, ends at, and what it costs."""

import dataclasses
import shutil
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_runs import RECORDS, TUNING, bits_of, lm_parts, log_of, one_device, point_task, points

from rvq_jax.errors import UserError
from rvq_jax.train.checkpoint import Checkpoints
from rvq_jax.train.loop import LoopConfig, fit
from rvq_jax.train.monitoring import Monitoring
from rvq_jax.train.state import make_program


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
    optimizer = dataclasses.replace(TUNING, learning_rate=0.1)
    state = fit(tmp_path, point_task(), InOrder(), config, optimizer)
    assert int(state.step) < 12
    kept = Checkpoints(tmp_path / "checkpoints").steps()
    assert kept == [int(state.step), 12]


def test_nothing_compiles_after_the_first_updates(tmp_path):
    """Counted by JAX itself: all that an update, the log, a save and an evaluation need is compiled
    by then."""
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
        config = LoopConfig(steps=12, log_every=2, checkpoint_every=2, evaluate_every=2)
        held = [next(batches()) for _ in range(2)]
        fit(tmp_path, task, Counting(batches()), config, TUNING, heldout=held)
        assert counts[0] < counts[2] == counts[-1], counts
    finally:
        jax.monitoring.clear_event_listeners()


def test_updates_are_traced_on_request(tmp_path, monkeypatch):
    """And nothing else ends with the trace."""
    told: list = []
    service = types.SimpleNamespace(
        init=lambda **_: None,
        log=lambda fields, step: told.append(step),
        finish=lambda: told.append("end"),
    )
    monkeypatch.setitem(sys.modules, "wandb", service)
    config = LoopConfig(steps=6)
    monitoring = Monitoring(profile=2, track=("wandb",))
    fit(tmp_path, point_task(), points(RECORDS), config, TUNING, monitoring=monitoring)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert told == [1, 6, "end"]
