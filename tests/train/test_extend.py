"""A run that is given more updates: as if it had been asked for them from the start."""

import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import optax
import pytest
import small_runs
from small_networks import AdversarialRun
from small_runs import RECORDS, RUN, bits_of, code_set, log_of, one_device, point_task, points
from tiers import slow

from rvq_jax import config as configs
from rvq_jax.errors import UserError
from rvq_jax.train import guards, runs
from rvq_jax.train.checkpoint import Checkpoints
from rvq_jax.train.loop import NEW_FIELDS, LoopConfig, fit, open_run
from rvq_jax.train.optimizers import OptimizerConfig, cooldown_start, learning_rate
from rvq_jax.train.state import make_program
from rvq_jax.train.timetable import timetable

CONSTANT = OptimizerConfig(0.1, warmup=3, schedule="constant")
COOLED = dataclasses.replace(CONSTANT, cooldown=2)


@pytest.mark.parametrize("warmup, cooldown", [(0, 0), (3, 0), (3, 4), (0, 8), (6, 4)])
def test_a_constant_rate_rises_stays_and_falls_to_zero(warmup, cooldown):
    """By its definition; a longer run has the same rates before the shorter one cools down."""
    config = dataclasses.replace(CONSTANT, warmup=warmup, cooldown=cooldown)
    steps = np.arange(8)
    rise = np.minimum(1.0, steps / warmup) if warmup else np.ones(8)
    fall = np.minimum(1.0, (8 - steps) / cooldown) if cooldown else np.ones(8)
    found = [jax.jit(learning_rate(config, n))(steps) * np.ones(8) for n in (8, 11)]
    np.testing.assert_allclose(found[0], 0.1 * rise * fall, rtol=1e-6)
    common = cooldown_start([config], 8)
    assert common == (8 - cooldown if cooldown else None)
    np.testing.assert_array_equal(found[0][:common], found[1][:common])


def test_schedules_count_the_optimizers_own_updates():
    """Of one that moves every third update, and of the earliest of several."""
    third = dataclasses.replace(COOLED, every=3)
    # Updates 0, 3, 6 and 9 of ten are its own; from that of 6 on it cools down.
    assert cooldown_start([third], 10) == 6
    assert cooldown_start([third, COOLED, CONSTANT], 10) == 6
    assert cooldown_start([COOLED, CONSTANT], 10) == 8
    assert cooldown_start([CONSTANT], 10) is None
    np.testing.assert_allclose(
        learning_rate(third, 10)(np.arange(5)), [0, 0.1 / 3, 0.2 / 3, 0.05, 0]
    )


@pytest.mark.parametrize(
    ("change", "say"),
    [
        ({"schedule": "cosine"}, "cools down by itself"),
        ({"cooldown": 9}, "cooldown is 9 of 8 updates"),
    ],
)
def test_cool_downs_that_cannot_be_are_told(change, say):
    with pytest.raises(UserError, match=say):
        learning_rate(dataclasses.replace(COOLED, **change), 8)


@functools.cache
def point_program(tuning: OptimizerConfig, steps: int):
    return make_program(point_task(), tuning, steps, one_device())


def opened(folder, steps: int, tuning: OptimizerConfig, every: int = 2, log_every: int = 3, **more):
    loop = LoopConfig(steps, 0, log_every, checkpoint_every=every, evaluate_every=2, **more)
    open_run(folder, {"loop": dataclasses.asdict(loop), "optimizer": dataclasses.asdict(tuning)})
    return loop


def go(folder, steps: int, tuning: OptimizerConfig, *rest, **options):
    loop = opened(folder, steps, tuning, *rest, **options)
    held, program = [next(points(RECORDS[::-1] + 1))], point_program(tuning, steps)
    given = {"heldout": held, "program": program}
    return fit(folder, point_task(), points(RECORDS), loop, tuning, **given)


@pytest.mark.parametrize(
    ("tuning", "every", "result", "goes_on"),
    [
        slow(CONSTANT, 2, "last", "on from 5\n"),
        (CONSTANT, 9, "best", "on from 5\n"),
        (COOLED, 2, "best", "on from 3, before its cool-down\n"),
        slow(COOLED, 9, "last", "on from 3, before its cool-down\n"),
        slow(dataclasses.replace(COOLED, cooldown=1, every=2), 9, "best", "on from 4, before"),
    ],
    ids=["constant", "constant-best", "cooled-best", "cooled", "every-other"],
)
def test_five_updates_and_three_are_eight(tmp_path, capsys, tuning, every, result, goes_on):
    """To the bit and the line; what the end of five added of its own is not there."""
    whole = go(tmp_path / "whole", 8, tuning, every, result=result)
    go(tmp_path / "run", 5, tuning, every, result=result)
    assert "on from" not in capsys.readouterr().err
    again = go(tmp_path / "run", 8, tuning, every, result=result)
    assert goes_on in capsys.readouterr().err
    assert bits_of(again) == bits_of(whole)
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")
    assert [line["step"] for line in log_of(tmp_path / "run")] == [1, 2, 3, 4, 6, 8]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["loop"]["steps"] == 8
    # Nothing is trained further, nor said again.
    assert bits_of(go(tmp_path / "run", 8, tuning, every, result=result)) == bits_of(whole)
    assert "on from" not in capsys.readouterr().err
    # Nothing of the shorter run's cool-down stays.
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        assert not tuning.cooldown or 5 not in checkpoints.steps()


def test_an_evaluation_out_of_turn_makes_no_checkpoint_the_best():
    """That at the end of a shorter run; one whose turn it was counts, and so does any other."""
    table = timetable(LoopConfig(8, evaluate_every=2), [CONSTANT], 1)
    for ended, step, counts in ((5, 5, False), (6, 6, True), (5, 4, True), (8, 8, True)):
        note = {"steps": ended, "step": step, "heldout": 1.0}
        assert table.adopt(note) == {**note, "heldout": 1.0 if counts else None}


# Its twins: points, above.
@pytest.mark.slow
@pytest.mark.parametrize("cooldown", [0, 2])
def test_a_token_model_is_extended(tmp_path, cooldown):
    """By weights, moments, running mean and data."""
    tuning = dataclasses.replace(small_runs.CONSTANT, cooldown=cooldown)
    params = {}
    for name, lengths in {"whole": (8,), "run": (5, 8)}.items():
        for steps in lengths:
            loop = dataclasses.replace(RUN.loop, steps=steps)
            run = dataclasses.replace(RUN, loop=loop, optimizer=tuning)
            params[name] = runs.train_lm(tmp_path / name, code_set(), run)
    assert bits_of(params["run"]) == bits_of(params["whole"])
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")
    configs_of = [(tmp_path / name / "config.json").read_text() for name in params]
    assert configs_of[0] == configs_of[1]


def test_a_run_is_extended_again_and_shortened_to_what_it_has_not_done(tmp_path):
    """From eight planned and five done to six; and a killed extension goes on from where it was."""
    want = go(tmp_path / "whole", 6, COOLED)
    go(tmp_path / "run", 5, COOLED)
    # Killed before its first save, and asked for less.
    opened(tmp_path / "run", 9, COOLED)
    assert bits_of(go(tmp_path / "run", 6, COOLED)) == bits_of(want)
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")
    longer = go(tmp_path / "run", 8, COOLED)
    assert bits_of(longer) == bits_of(go(tmp_path / "other", 8, COOLED))


def test_what_cannot_be_extended_is_told_in_a_line(tmp_path):
    """And stays as it is."""
    cosine = dataclasses.replace(CONSTANT, schedule="cosine")
    network = AdversarialRun(optimizer=CONSTANT, critic=cosine)
    longer = dataclasses.replace(network, loop=dataclasses.replace(network.loop, steps=9))
    open_run(tmp_path / "networks", configs.to_dict(network))
    cases = {
        "cosine": (lambda: go(tmp_path / "a", 8, cosine), "a run of 5 updates, along a cosine"),
        "less": (lambda: go(tmp_path / "b", 4, CONSTANT), "has done 5 updates: set loop.steps to"),
        "more": (lambda: go(tmp_path / "c", 8, CONSTANT, log_every=9), "made with another config"),
        "one of two": (
            lambda: open_run(tmp_path / "networks", configs.to_dict(longer)),
            "a run of 6 updates, along a cosine",
        ),
    }
    for name, tuning in (("a", cosine), ("b", CONSTANT), ("c", CONSTANT)):
        go(tmp_path / name, 5, tuning)
    before = [path.read_bytes() for path in sorted(tmp_path.glob("*/config.json"))]
    for refused, say in cases.values():
        with pytest.raises(UserError, match=say) as caught:
            refused()
        assert "\n" not in str(caught.value)
    assert [path.read_bytes() for path in sorted(tmp_path.glob("*/config.json"))] == before


def test_without_what_was_before_the_cool_down_nothing_begins_anew(tmp_path):
    go(tmp_path, 5, COOLED, every=9)
    shutil.rmtree(tmp_path / "checkpoints" / "3")
    (tmp_path / "checkpoints" / "3.json").unlink()
    with pytest.raises(UserError, match="no checkpoint of before the cool-down"):
        go(tmp_path, 8, COOLED, every=9)
    assert int(go(tmp_path, 5, COOLED, every=9).step) == 5


def test_a_run_at_work_is_not_extended(tmp_path):
    go(tmp_path, 5, CONSTANT)
    before = (tmp_path / "config.json").read_bytes()
    with guards.alone(tmp_path), pytest.raises(UserError, match="another run is at work"):
        go(tmp_path, 8, CONSTANT)
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_config_of_before_there_were_schedules_is_the_same(tmp_path):
    """A run goes on whose config lacks fields that came later; with another value it is another."""
    old = json.loads(json.dumps(configs.to_dict(RUN)))
    del old["loop"]["evaluate_every"], old["optimizer"]["schedule"], old["optimizer"]["cooldown"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    open_run(tmp_path, configs.to_dict(RUN))
    other = dataclasses.replace(RUN, optimizer=dataclasses.replace(RUN.optimizer, cooldown=1))
    with pytest.raises(UserError, match=r"optimizer\.cooldown: 0 there, 1 here"):
        open_run(tmp_path, configs.to_dict(other))


@pytest.mark.parametrize("run", [runs.LMRun(), runs.SemanticRun()])
def test_a_config_without_any_of_the_fields_that_came_later_is_the_same(run, tmp_path):
    """By their defaults."""

    def older(part: dict) -> dict:
        return {
            name: older(value) if isinstance(value, dict) else value
            for name, value in part.items()
            if name not in NEW_FIELDS
        }

    (tmp_path / "config.json").write_text(json.dumps(older(configs.to_dict(run))))
    open_run(tmp_path, configs.to_dict(run))


def test_the_cosine_is_what_it_was():
    found = learning_rate(OptimizerConfig(0.1, warmup=50), 8)(np.arange(8))
    want = optax.warmup_cosine_decay_schedule(0.0, 0.1, 7, 8)(np.arange(8))
    np.testing.assert_array_equal(found, want)
