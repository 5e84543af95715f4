"""After any interruption a run ends with the bits of one never interrupted."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from small_runs import (
    CONFIG_FILE,
    LM,
    RUN,
    TUNED_SLOWLY,
    TUNING,
    bits_of,
    code_set,
    codec_parts,
    lm_parts,
    log_of,
    one_device,
    one_window,
)
from tiers import slow, tried, wide

from rvq_jax import patterns
from rvq_jax.data import loader
from rvq_jax.train import runs, sharding
from rvq_jax.train.checkpoint import Checkpoints
from rvq_jax.train.loop import LoopConfig, fit
from rvq_jax.train.state import Program, make_program, shared_program
from rvq_jax.train.tasks.lm import lm_task


class PowerCut(Exception):
    """Stands for whatever ends a process."""


def stopping(program: Program, after: int) -> Program:
    """The program, which ends after so many updates."""
    steps = iter(range(after))

    def step(state, batch):
        if next(steps, None) is None:
            raise PowerCut
        return program.step(state, batch)

    return Program(program.init, step)


@pytest.fixture(scope="module")
def program():
    task = lm_task(LM, patterns.padded_pattern("delay", 2, RUN.frames), RUN.condition_dropout)
    return make_program(task, RUN.optimizer, RUN.loop.steps, one_device())


def train(folder: Path, program: Program, workers: int = 0):
    """A run of the small token model, or what is left of it."""
    task = lm_task(LM, patterns.padded_pattern("delay", 2, RUN.frames), RUN.condition_dropout)
    cut = loader.cut_codes(RUN.frames, LM.caption_bytes)
    batches = loader.batches(code_set(), cut, RUN.batch, RUN.loop.seed, workers=workers)
    return fit(folder, task, batches, RUN.loop, RUN.optimizer, program=program)


@pytest.fixture(scope="module")
def whole(program, tmp_path_factory):
    """The run that was never interrupted: its state and its log."""
    folder = tmp_path_factory.mktemp("whole")
    state = train(folder, program)
    log = log_of(folder)
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    assert len({line["loss"] for line in log}) == 6
    return bits_of(state), log


@pytest.mark.parametrize("last", tried([0, 2, 5], range(6)))
def test_a_run_stopped_at_any_update_ends_in_the_same_bits(program, whole, tmp_path, last):
    """Whatever the state, the log and the data's position were when it stopped."""
    with pytest.raises(PowerCut):
        train(tmp_path, stopping(program, last))
    again = train(tmp_path, program)
    assert bits_of(again) == whole[0]
    assert log_of(tmp_path) == whole[1]
    # And a finished run is not trained further.
    assert bits_of(train(tmp_path, program)) == whole[0]
    assert log_of(tmp_path) == whole[1]


@pytest.mark.parametrize(("before", "after"), [(0, 2), slow(2, 0)])
def test_a_run_goes_on_with_other_workers(program, whole, tmp_path, before, after):
    with pytest.raises(PowerCut):
        train(tmp_path, stopping(program, 4), before)
    assert bits_of(train(tmp_path, program, after)) == whole[0]
    assert log_of(tmp_path) == whole[1]


def test_a_lost_checkpoint_costs_time_alone(program, whole, tmp_path):
    """Without the newest one the run goes on from the one before; the log is not doubled."""
    train(tmp_path, program)
    folders = sorted(path for path in (tmp_path / "checkpoints").iterdir() if path.is_dir())
    assert len(folders) == RUN.loop.keep
    shutil.rmtree(folders[-1])
    assert bits_of(train(tmp_path, program)) == whole[0]
    assert log_of(tmp_path) == whole[1]


def test_a_log_line_cut_in_two_does_not_stop_a_run(program, whole, tmp_path):
    """A process that dies while it writes leaves half a line; it belongs to an update done again
    or to nothing."""
    train(tmp_path, program)
    shutil.rmtree(tmp_path / "checkpoints" / "6")
    log = tmp_path / "metrics.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join(lines[:4]) + "\n" + lines[4][:17])
    assert bits_of(train(tmp_path, program)) == whole[0]
    assert log_of(tmp_path) == whole[1]


@pytest.fixture(scope="module")
def codec_run(tmp_path_factory):
    """A codec's program, whose codebooks start after two updates, and the state it ends in."""
    task, batches = codec_parts()
    config = LoopConfig(steps=4, log_every=1, checkpoint_every=1)
    program = make_program(task, TUNING, config.steps, one_device())
    folder = tmp_path_factory.mktemp("codec")

    def go(folder, program):
        return fit(folder, task, batches(), config, TUNING, program=program)

    with one_window():
        state = go(folder, program)
    assert program.step._cache_size() == 1, "the start compiled the step again"
    return program, go, bits_of(state), log_of(folder)


@pytest.mark.parametrize("after", [wide(1), slow(2), wide(3)])
def test_a_codec_stopped_around_its_codebooks_start_ends_in_the_same_bits(
    codec_run, tmp_path, after
):
    """The start takes batches of its own: before, at and after it the data must go on in place."""
    program, go, whole, log = codec_run
    with pytest.raises(PowerCut):
        go(tmp_path, stopping(program, after))
    assert bits_of(go(tmp_path, program)) == whole
    assert log_of(tmp_path) == log


# Its twins: a checkpoint is of any mesh, in test_train_checkpoint.py; in tests/faults a run that is
# killed goes on on another.
@pytest.mark.wide
def test_a_run_goes_on_on_another_mesh(tmp_path):
    """Stopped on one device, ended on eight: a checkpoint says nothing of where its arrays lay."""
    task, batches = lm_parts()
    # The tuning and the updates of a test of meshes, for then its programs serve here too.
    config = LoopConfig(steps=10, log_every=1, checkpoint_every=5)
    meshes = one_device(), sharding.make_mesh(2, 2, 2)
    one, eight = (make_program(task, TUNED_SLOWLY, config.steps, mesh) for mesh in meshes)

    def go(folder, program, mesh):
        return fit(folder, task, batches(), config, TUNED_SLOWLY, mesh=mesh, program=program)

    whole = go(tmp_path / "whole", one, meshes[0])
    with pytest.raises(PowerCut):
        go(tmp_path / "moved", stopping(one, 8), meshes[0])
    moved = go(tmp_path / "moved", eight, meshes[1])
    for a, b in zip(jax.tree.leaves(moved.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=1e-5)
    lines = [log_of(tmp_path / name) for name in ("moved", "whole")]
    assert [line["step"] for line in lines[0]] == [*range(1, 11)]
    losses = [[line["loss"] for line in log] for log in lines]
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-5)


LONG = dataclasses.replace(
    RUN, loop=LoopConfig(steps=60, log_every=1, checkpoint_every=3), pattern="flatten"
)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """The unkilled run of LONG in this process, with the program that made it."""
    folder = tmp_path_factory.mktemp("long")
    runs.train_lm(folder, code_set(), LONG)
    task = lm_task(LM, patterns.padded_pattern("flatten", 2, LONG.frames), LONG.condition_dropout)
    program = shared_program(task, LONG.optimizer, LONG.loop.steps, one_device())
    return program, folder


def final_state(folder: Path, program: Program):
    task = lm_task(LM, patterns.padded_pattern("flatten", 2, LONG.frames), LONG.condition_dropout)
    like = program.init(jax.random.key(0), task.aux)
    cut = loader.cut_codes(LONG.frames, LM.caption_bytes)
    batches = loader.batches(code_set(), cut, LONG.batch, 0)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        assert checkpoints.latest() == LONG.loop.steps
        state, note = checkpoints.restore(like)
    batches.set_state(note.data)
    return bits_of(state), next(batches)["index"].tolist()


# Its twin: a run stopped at any update, above.
@pytest.mark.parametrize("delay", [wide(0.0), wide(0.37)])
def test_a_killed_process_started_again_ends_in_the_same_bits(long_run, tmp_path, delay):
    """SIGKILL gives no chance to clean up: whatever lies in the folder must be enough to end
    with the state, the data's position and the log of a run never killed."""
    program, unkilled = long_run
    (tmp_path / "config.py").write_text(CONFIG_FILE.format(run=LONG))
    code_set().save(tmp_path / "codes.npz")
    out = tmp_path / "run"
    command = [sys.executable, "-m", "rvq_jax", "train", str(tmp_path / "config.py")]
    command += ["--data", str(tmp_path / "codes.npz"), "--out", str(out)]
    # XLA_FLAGS stay as they are here: other optimizations round otherwise.
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + 120
            while not list((out / "checkpoints").glob("[0-9]*.json")):
                assert process.poll() is None, (tmp_path / "output").read_text()
                assert time.monotonic() < deadline, "no checkpoint in two minutes"
                time.sleep(0.01)
            time.sleep(delay)
        finally:
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    assert len(log_of(out)) < LONG.loop.steps
    runs.train_lm(out, code_set(), LONG)
    assert final_state(out, program) == final_state(unkilled, program)
    assert log_of(out) == log_of(unkilled)
    assert (out / "config.json").read_text() == (unkilled / "config.json").read_text()
