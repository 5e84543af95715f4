"""Held out while training: what is measured, when, of what data, and which weights are the best."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from small_runs import (
    CONSTANT,
    LM,
    RECORDS,
    RUN,
    TUNING,
    bits_of,
    code_set,
    codec_parts,
    ending,
    log_of,
    mesh_parts,
    one_device,
    one_window,
    point_task,
    points,
)
from tiers import tried

from rvq_jax import metrics, patterns
from rvq_jax.codec import losses
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.data import loader
from rvq_jax.data.stored import Records
from rvq_jax.errors import UserError
from rvq_jax.lm.conditions import text_condition
from rvq_jax.metrics import audio
from rvq_jax.systems.decoding.programs import score_codes
from rvq_jax.train import heldout, runs, sharding
from rvq_jax.train.checkpoint import Checkpoints, _digest
from rvq_jax.train.loop import LoopConfig, fit
from rvq_jax.train.runs.batches import heldout_batches
from rvq_jax.train.runs.lm import heldout_beside
from rvq_jax.train.state import abstract_state, make_program
from rvq_jax.train.tasks.codec import mean_codec
from rvq_jax.train.tasks.codec_losses import CodecLossConfig
from rvq_jax.train.timetable import FORWARD, SHARE, timetable

HELD = dataclasses.replace(code_set(), codes=[x[:, ::-1] for x in code_set().codes])


# What is measured.


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory):
    """A token model on three records, which say nothing of those held out: its folder, its run and
    the parameters it ends with."""
    loop = LoopConfig(24, log_every=3, checkpoint_every=8, evaluate_every=3, keep=1, result="best")
    run = dataclasses.replace(RUN, loop=loop, optimizer=CONSTANT)
    folder = tmp_path_factory.mktemp("overfitted")
    return folder, run, runs.train_lm(folder, code_set(3), run, heldout=HELD)


def scores(run, params) -> np.ndarray:
    """Mean bits per frame by level of what `run` is evaluated on: as models are scored, in numpy
    from there on."""
    cut = loader.cut_codes(run.frames, LM.caption_bytes)
    pattern = patterns.padded_pattern(run.pattern, LM.levels, run.frames)
    bits, frames = np.zeros(LM.levels), 0
    for batch in heldout_batches(HELD, cut, run, one_device()):
        text = {"text": text_condition(batch["text"])}
        bits_BKF = score_codes(LM, params, pattern, batch["codes"], text, batch["mask"])
        bits += np.asarray(bits_BKF, np.float64).sum((0, 2))
        frames += batch["mask"].sum()
    return bits / frames


def test_the_best_of_a_run_that_overfits_is_where_the_held_out_loss_was_least(overfitted):
    """Not where the training loss was; what was measured there is what the model scores."""
    folder, run, params = overfitted
    log = log_of(folder)
    assert [line["step"] for line in log] == [1, *range(3, 25, 3)]
    held = {line["step"]: line["heldout"] for line in log if "heldout" in line}
    assert [*held] == [*range(3, 25, 3)]
    least = min(held, key=lambda step: held[step]["loss"])
    assert held[least]["loss"] < held[24]["loss"] - 0.1, "it does not overfit"
    assert log[-1]["loss"] < log[0]["loss"] - 0.5 and least < 24
    with Checkpoints(folder / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [least, 24]
    found = scores(run, params)
    np.testing.assert_allclose(held[least]["bits_by_level"], found, rtol=1e-5)
    np.testing.assert_allclose(held[least]["bits_per_frame"], found.sum(), rtol=1e-5)
    np.testing.assert_allclose(held[least]["loss"], found.mean(), rtol=1e-5)


# Its twin: what a token model measures, above.
@pytest.mark.slow
def test_what_a_codec_measures_is_what_its_saved_form_does(monkeypatch):
    """Of crops with padding too, which counts for nothing: samples, spectra and ratios of audio
    that the codec encodes and decodes, though its codebooks have not started."""
    monkeypatch.setattr(audio, "MEL_WINDOWS", audio.MEL_WINDOWS[:1])
    # As written: a program of this would stay for tests that want all windows.
    monkeypatch.setattr(metrics, "mel_distance", metrics.mel_distance.__wrapped__)
    config = CodecConfig(8_000, SEANetConfig(filters=4, dim=8, ratios=(4,), lstm_layers=0), 2, 4)
    task, batches = codec_parts()
    params, batch = jax.jit(task.init)(jax.random.key(0)), next(batches())
    batch["mask"][1, 1500:] = False
    batch["audio"][1, 1500:] = 0.0
    mean = task.averaged(params, task.aux)
    codec, weights, mask_BS = mean_codec(config, mean, task.aux), CodecLossConfig(), batch["mask"]
    made = np.where(mask_BS[..., None], codec.decode(codec.encode(batch["audio"])), 0.0)
    with one_window():
        program = jax.jit(task.evaluate)
        found = heldout.evaluate(program, mean, task.aux, [batch] * 2, one_device())["heldout"]
        # A mean over all of the batch, of which the padding is no part.
        mel = float(losses.multi_scale_mel(batch["audio"], made, 8_000)) / mask_BS.mean()
    waveform = np.abs(batch["audio"] - made)[mask_BS].mean()
    signals, share_B = (batch["audio"][..., 0], made[..., 0]), mask_BS.mean(1)
    want = {
        "loss": weights.waveform * waveform + weights.mel * mel,
        "waveform": waveform,
        "mel": mel,
        "si_sdr": np.average(metrics.si_sdr(*signals, mask_BS), weights=share_B),
        "mel_distance": np.average(metrics.mel_distance(*signals, 8_000, mask_BS), weights=share_B),
    }
    assert found.keys() == want.keys()
    for name in want:
        np.testing.assert_allclose(found[name], want[name], rtol=1e-4, err_msg=name)


# Its twin: adapters trained from the command line, in test_finetune.py.
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lm", "codec"])
def test_a_mesh_changes_no_number(kind):
    found = []
    for mesh in (one_device(), sharding.make_mesh(2, 2, 2)):
        task, batches = mesh_parts(kind)
        params = jax.jit(task.init)(jax.random.key(0))
        params = jax.device_put(params, sharding.of_params(params, mesh))
        aux = jax.device_put(task.aux, sharding.replicated(mesh))
        mean = params if task.averaged is None else task.averaged(params, aux)
        held, program = [next(batches) for _ in range(2)], make_program(task, TUNING, 4, mesh)
        found.append(heldout.evaluate(program.evaluate, mean, aux, held, mesh)["heldout"])
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-5, atol=1e-6)


def test_runs_of_all_seeds_are_evaluated_on_the_same_crops():
    """Of a batch in parts, so many parts."""
    cut, found = loader.cut_codes(RUN.frames, LM.caption_bytes), []
    for seed, parts in ((0, 1), (1, 1), (1, 2)):
        loop = dataclasses.replace(RUN.loop, seed=seed)
        tuning = dataclasses.replace(TUNING, accumulate=parts)
        run = dataclasses.replace(RUN, loop=loop, optimizer=tuning)
        batches = heldout_batches(HELD, cut, run, one_device())
        assert len(batches) == parts * heldout.BATCHES
        found.append(np.concatenate([x["codes"] for x in batches]))
    for codes in found[1:]:
        np.testing.assert_array_equal(codes, found[0])


# When.


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("every", [1, 7, 200, 250, 5000])
def test_by_default_evaluating_is_a_small_share_of_the_updates(every, accumulate):
    """Whatever the length, and only at checkpoints or the end; the length says nothing of when
    else, so that a run that is extended is evaluated as a long one."""
    before = None
    for steps in [*range(1, 2000, 7), 10_000, 123_456]:
        config = LoopConfig(steps, checkpoint_every=every)
        table = timetable(config, [TUNING], heldout.BATCHES * accumulate / accumulate)
        shown = [step for step in range(1, min(steps, 30_000)) if table.evaluates(step)]
        many = shown + [steps] * table.evaluates(steps)
        assert len(many) * FORWARD * heldout.BATCHES <= SHARE * steps or steps > 30_000
        assert all(step % every == 0 for step in shown)
        assert bool(many) == table.evaluates_at_all
        assert before is None or before == shown[: len(before)]
        before = shown
    assert len(before) > 3


def test_what_is_asked_for_is_done():
    """Also every update; and nothing at all."""
    for every, want in ((1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5]), (0, [])):
        table = timetable(LoopConfig(5, evaluate_every=every), [TUNING], 8)
        assert [step for step in range(1, 6) if table.evaluates(step)] == want
    assert not timetable(LoopConfig(5, evaluate_every=1), [TUNING], 0).evaluates_at_all


RATE = dataclasses.replace(TUNING, learning_rate=0.1)


@functools.cache
def point_program(steps: int):
    return make_program(point_task(), RATE, steps, one_device())


class PowerCut(Exception):
    """Stands for whatever ends a process."""


def train(folder, last: int | None = None, held: int = 2, steps: int = 6, **options):
    """A point, evaluated on other records; it ends after so many updates."""
    config = LoopConfig(steps, log_every=3, checkpoint_every=2, evaluate_every=2, **options)
    other = [batch for _, batch in zip(range(held), points(RECORDS[::-1] + 1), strict=False)]
    dataset = {"heldout": {"contents": f"{held}"}} if held else {}
    batches = ending(points(RECORDS), steps if last is None else last, PowerCut)

    given = {"heldout": other, "dataset": dataset, "program": point_program(steps)}
    return fit(folder, point_task(), batches, config, RATE, **given)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was not stopped: its bits and its log."""
    folder = tmp_path_factory.mktemp("whole")
    state = train(folder, result="best")
    log = log_of(folder)
    assert [line["step"] for line in log] == [1, 2, 3, 4, 6]
    assert [line["step"] for line in log if "heldout" in line] == [2, 4, 6]
    assert len(log[1]["heldout"]["by_number"]) == 3
    return bits_of(state), log


@pytest.mark.parametrize("last", tried([1, 4], range(6)))
def test_a_run_that_was_stopped_is_evaluated_as_one_that_was_not(tmp_path, whole, last):
    with pytest.raises(PowerCut):
        train(tmp_path, last, result="best")
    assert bits_of(train(tmp_path, result="best")) == whole[0]
    assert log_of(tmp_path) == whole[1]


def test_a_run_too_short_for_it_says_so(tmp_path, capsys):
    held = [next(points(RECORDS))]
    fit(tmp_path, point_task(), points(RECORDS), LoopConfig(4), TUNING, heldout=held)
    assert "too short to be evaluated in 2 % of its time" in capsys.readouterr().err
    assert ["heldout" in line for line in log_of(tmp_path)] == [False, False]


def test_notes_of_before_there_was_anything_held_out_are_read(tmp_path):
    """Without its loss and the length of the run; a run goes on from them, and what was evaluated
    is before what was not."""
    with pytest.raises(PowerCut):
        train(tmp_path, 5)
    for step in (2, 4):
        note = tmp_path / "checkpoints" / f"{step}.json"
        fields = json.loads(note.read_text())
        assert isinstance(fields["heldout"], float) and fields["steps"] == 6
        fields = {n: x for n, x in fields.items() if n not in ("heldout", "steps", "sha256")}
        note.write_text(json.dumps({**fields, "sha256": _digest(fields)}))
    like = abstract_state(point_task(), RATE, 6, one_device())
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        _, found = checkpoints.restore(like)
    assert (found.step, found.heldout, found.steps) == (4, None, None)
    assert int(train(tmp_path, result="best").step) == 6


# Of what.


def test_what_is_trained_on_is_not_held_out(tmp_path, capsys):
    """All of it is refused, some of it told; a caption or a name does not make a record another."""
    renamed = dataclasses.replace(code_set(), names=["x"] * 9, captions=["y"] * 9)
    for same in (code_set(), renamed, code_set(4)):
        with pytest.raises(UserError, match="held-out codes are trained on"):
            runs.train_lm(tmp_path / "a", code_set(), RUN, heldout=same)
    heldout.check_codes(code_set(), HELD)
    assert capsys.readouterr().err == ""
    some = dataclasses.replace(HELD, codes=[*code_set().codes[:2], *HELD.codes[2:]])
    heldout.check_codes(code_set(), some)
    assert "2 of 9 held-out records are trained on too" in capsys.readouterr().err
    for change in ({"codebook_size": 8}, {"codec": "a"}, {"codes": [x[:1] for x in HELD.codes]}):
        with pytest.raises(UserError, match="not of the codec and the kind"):
            other = dataclasses.replace(HELD, **change)
            heldout.check_codes(dataclasses.replace(code_set(), codec="b"), other)


def test_audio_that_is_trained_on_is_not_held_out(tmp_path):
    """By the files that it is in: also where they hold some of it."""
    for name in ("train", "valid", "test"):
        (tmp_path / name).write_text(name)
    train, valid, test = (tmp_path / name for name in ("train", "valid", "test"))
    records = Records([[1]], [train])
    heldout.check_records(records, Records([[1], [1]], [valid, test]))
    (tmp_path / "copy").write_text("train")
    for shards in ([train], [valid, train], [tmp_path / "copy"]):
        with pytest.raises(UserError, match="held-out audio is trained on"):
            heldout.check_records(records, Records([[1]] * len(shards), shards))


def test_other_held_out_data_are_refused_and_none_are_not(tmp_path):
    """Numbers of other data do not compare; a run goes on without any, and so does one that had
    none before."""
    with pytest.raises(PowerCut):
        train(tmp_path, 2)
    with pytest.raises(UserError, match=r"heldout\.contents: 2 there, 1 here"):
        train(tmp_path, held=1)
    with pytest.raises(PowerCut):
        train(tmp_path, 2, held=0)
    train(tmp_path, held=1)
    lines = {line["step"]: "heldout" in line for line in log_of(tmp_path)}
    assert lines == {1: False, 2: True, 3: False, 6: True}


def test_held_out_codes_lie_beside_those_trained_on(tmp_path, capsys):
    """Found by their name, and never the ones that are trained on."""
    place = tmp_path / "train.npz"
    code_set().save(place)
    assert heldout_beside(place) is None
    assert f"no {tmp_path / 'heldout.npz'}: nothing is held out" in capsys.readouterr().err
    HELD.save(tmp_path / "heldout.npz")
    assert heldout_beside(place).describe() == HELD.describe()
    assert capsys.readouterr().err == ""
    (tmp_path / "link.npz").symlink_to(tmp_path / "heldout.npz")
    for same in ("heldout.npz", "link.npz"):
        assert heldout_beside(tmp_path / same) is None
