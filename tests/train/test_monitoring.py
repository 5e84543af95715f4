"""What is kept of a run for people: rates and speeds in its log, trackers, clips, Ctrl-C."""

import contextlib
import dataclasses
import itertools
import json
import signal
import struct
import sys
import types

import jax
import numpy as np
import pytest
import small_codec_runs
import small_folders
import soundfile
from small_runs import (
    CONSTANT,
    RECORDS,
    TUNING,
    code_set,
    log_of,
    point_task,
    points,
)

from rvq_jax import builtin
from rvq_jax.errors import UserError
from rvq_jax.systems.codec import Codec, Coded
from rvq_jax.train import sampling, trackers
from rvq_jax.train.hosts import Interrupted, Preempted
from rvq_jax.train.loop import LoopConfig, fit
from rvq_jax.train.monitoring import LABELS, ORIGINAL, SAMPLES, Monitoring, Sample
from rvq_jax.train.optimizers import learning_rate

LOOP = LoopConfig(steps=6, log_every=1, checkpoint_every=3)


def logged(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_rate_in_the_log_is_the_schedules(tmp_path):
    """Of the update that the line is of; one that is skipped moves no schedule."""
    records = RECORDS.copy()
    records[3] = np.nan
    config = dataclasses.replace(LOOP, skips=100)
    fit(tmp_path, point_task(), points(records), config, TUNING)
    wanted = learning_rate(TUNING, LOOP.steps)
    lines, done = logged(tmp_path), 0
    assert lines[-1]["skipped"] > 0
    for line in lines:
        np.testing.assert_allclose(line["learning_rate"], wanted(done), rtol=1e-6)
        done = line["step"] - line["skipped"]


def test_speed_memory_and_device_are_in_every_line(tmp_path):
    fit(tmp_path, point_task(), points(RECORDS), LOOP, CONSTANT)
    lines = logged(tmp_path)
    assert all(line["examples_per_second"] > 0 and line["memory_gb"] > 0 for line in lines)
    assert {line["device"] for line in lines} == {"1 cpu"}
    # What was trained between two lines, in the time between them.
    for before, line in itertools.pairwise(lines):
        passed = line["seconds"] - before["seconds"]
        assert line["examples_per_second"] >= 2 / (passed + 1e-3)


# Trackers.


class Module(types.ModuleType):
    """A service's package that keeps what it is told."""

    def __init__(self, fails: str | None = None):
        super().__init__("service")
        self.said, self.fails = [], fails

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args, **options):
            if name == self.fails:
                raise RuntimeError("offline")
            self.said.append((name, args, options))
            return name

        return call


def test_numbers_of_a_line_have_names_of_their_own():
    line = {"step": 3, "loss": 1.5, "heldout": {"loss": 2.0, "by_level": [0.5, None]}, "x": "cpu"}
    assert dict(trackers.numbers(line)) == {
        "step": 3,
        "loss": 1.5,
        "heldout/loss": 2.0,
        "heldout/by_level/0": 0.5,
    }


@pytest.mark.parametrize("name", trackers.SERVICES)
def test_a_service_is_told_each_line_once_and_goes_on_as_the_same_run(tmp_path, monkeypatch, name):
    service = Module()
    monkeypatch.setitem(sys.modules, name, service)
    own = {"monitoring": Monitoring(track=(name,))}
    fit(tmp_path, point_task(), points(RECORDS), LOOP, CONSTANT, **own)
    longer = dataclasses.replace(LOOP, steps=8)
    fit(tmp_path, point_task(), points(RECORDS), longer, CONSTANT, **own)
    lines = [(options["step"], args[0]) for word, args, options in service.said if word == "log"]
    assert [step for step, _ in lines] == [*range(1, 9)]
    for (_, told), line in zip(lines, logged(tmp_path), strict=True):
        assert told == dict(trackers.numbers(line))
    begun = [options for word, _, options in service.said if word == "init"]
    assert begun[0] == begun[1] and begun[0]["name"].startswith(tmp_path.name)
    trackers.open_tracker(name, tmp_path / "other" / tmp_path.name, 0)
    key = "id" if name == "wandb" else "name"
    assert service.said[-1][2][key] != begun[0][key]
    assert [word for word, *_ in service.said].count("finish") == 2


@pytest.mark.parametrize("fails", ["log", "finish"])
def test_a_tracker_that_fails_is_told_once_and_ends_no_run(tmp_path, monkeypatch, capsys, fails):
    monkeypatch.setitem(sys.modules, "wandb", Module(fails))
    fit(
        tmp_path, point_task(), points(RECORDS), LOOP, CONSTANT,
        monitoring=Monitoring(track=("wandb",)),
    )  # fmt: skip
    assert log_of(tmp_path)[-1]["step"] == LOOP.steps
    assert capsys.readouterr().err.count("wandb: RuntimeError: offline") == 1


@pytest.mark.parametrize(
    ("name", "module", "say"),
    [
        ("wandb", Module("init"), "log in"),
        ("tensorboard", Module("SummaryWriter"), "look at its folder"),
        ("wandb", None, "pip install wandb"),
        ("tensorboard", None, r"rvq_jax\[track\]"),
        ("mlflow", None, "known: tensorboard, wandb, trackio"),
    ],
)
def test_a_tracker_that_cannot_begin_is_told(tmp_path, monkeypatch, name, module, say):
    monkeypatch.setitem(sys.modules, "tensorboardX" if name == "tensorboard" else name, module)
    with pytest.raises(UserError, match=say):
        trackers.open_tracker(name, tmp_path, 0)


def scalars(folder) -> list[tuple[int, str, float]]:
    """What event files hold, by their format: length, its checksum, an event, its checksum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="no tensorboardX")
    found = []
    for path in sorted(folder.glob("events*")):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + size])
            if event.HasField("session_log"):
                found.append((event.step, "START", 0.0))
            found += [(event.step, x.tag, x.simple_value) for x in event.summary.value]
            data = data[16 + size :]
    return found


def test_tensorboard_has_the_numbers_of_the_log(tmp_path):
    pytest.importorskip("tensorboardX", reason="the package is not installed")
    own = {"monitoring": Monitoring(track=("tensorboard",))}
    fit(tmp_path, point_task(), points(RECORDS), LOOP, CONSTANT, **own)
    told = {(step, tag): value for step, tag, value in scalars(tmp_path / "tensorboard")}
    for line in logged(tmp_path):
        for name, value in trackers.numbers(line):
            np.testing.assert_allclose(told[line["step"], name], value, rtol=1e-6)


def test_services_that_greet_spoil_no_output(tmp_path, monkeypatch, capsys):
    service = types.SimpleNamespace(
        init=lambda **_: print("hello"),
        log=lambda *_, **__: print("log"),
        finish=lambda: print("x"),
    )
    monkeypatch.setitem(sys.modules, "trackio", service)
    own = {"monitoring": Monitoring(track=("trackio",))}
    fit(tmp_path, point_task(), points(RECORDS), LOOP, CONSTANT, **own)
    assert capsys.readouterr().out == ""


def test_tensorboard_forgets_what_is_done_again(tmp_path):
    pytest.importorskip("tensorboardX", reason="the package is not installed")
    tracker = trackers.open_tracker("tensorboard", tmp_path, 0)
    for step in (1, 2, 3):
        tracker.line(step, {"loss": 1.0 * step})
    tracker.go_back(1)
    tracker.line(2, {"loss": 20.0})
    tracker.close()
    seen: dict[int, float] = {}
    for step, tag, value in scalars(tmp_path / "tensorboard"):
        if tag == "START":  # of a session: what stands at this step and after it is dropped
            seen = {at: x for at, x in seen.items() if at < step}
        else:
            seen[step] = value
    assert seen == {1: 1.0, 2: 20.0}


# Clips.


def test_clips_that_cannot_be_made_end_no_run(tmp_path, capsys):
    def sample(state):
        raise ValueError("the text has letters that this model was not trained on")

    own = {"sample": sample, "monitoring": Monitoring(listened=1)}
    fit(tmp_path, point_task(), points(RECORDS), LOOP, CONSTANT, **own)
    assert log_of(tmp_path)[-1]["step"] == LOOP.steps
    assert capsys.readouterr().err.count("no clips are made: ValueError: the text") == 1


def test_clips_that_nobody_can_make_are_told(tmp_path, capsys):
    own = {"monitoring": Monitoring(listened=1)}
    fit(tmp_path, point_task(), points(RECORDS), LOOP, CONSTANT, **own)
    assert "no clips are kept" in capsys.readouterr().err


def test_clips_are_kept_at_every_evaluation_and_shown_to_trackers(tmp_path, monkeypatch):
    """Where nothing is held out at every checkpoint; they change nothing that is trained."""
    service = Module()
    monkeypatch.setitem(sys.modules, "wandb", service)

    def sample(state) -> list[Sample]:
        audio = np.full((40, 1), 0.01 * float(state.step), np.float32)
        return [Sample("a", audio, 8000, audio), Sample("b", audio, 8000)]

    plain = fit(tmp_path / "plain", point_task(), points(RECORDS), LOOP, CONSTANT)
    state = fit(
        tmp_path / "run", point_task(), points(RECORDS), LOOP, CONSTANT, sample=sample,
        monitoring=Monitoring(listened=2, track=("wandb",)),
    )  # fmt: skip
    np.testing.assert_array_equal(state.ema["w"][...], plain.ema["w"][...])
    place = tmp_path / "run" / SAMPLES
    assert json.loads((place / LABELS).read_text()) == ["a", "b"]
    assert sorted(p.name for p in place.iterdir()) == ["0000003", "0000006", LABELS, ORIGINAL]
    for step in (3, 6):
        audio, rate = soundfile.read(place / f"{step:07d}" / "1.flac")
        assert rate == 8000 and np.allclose(audio, 0.01 * step, atol=1e-4)
    assert [p.name for p in (place / ORIGINAL).iterdir()] == ["0.flac"]
    shown = [args[0] for word, args, _ in service.said if word == "log" and len(args[0]) == 1]
    assert [[*x] for x in shown] == [["samples/0"], ["samples/1"]] * 2


def test_a_codecs_clips_are_its_held_out_records_decoded():
    codec, held = small_folders.codec(2, 16), small_codec_runs.sounds(count=3)
    found = sampling.decoded(codec, held, 2)
    for sample, record in zip(found, held, strict=False):
        audio, rate = record["audio"], codec.config.rate
        padded = np.pad(audio, [(0, -len(audio) % rate), (0, 0)])
        wanted = np.asarray(codec.decode(codec.encode(padded[None])))[0, : len(audio)]
        np.testing.assert_array_equal(sample.audio, wanted)
        np.testing.assert_array_equal(sample.original, audio)
        assert (sample.label, sample.rate) == (record["name"], rate)
    assert len(found) == 2


def test_a_token_models_clips_are_one_of_each_held_out_text():
    model, frames = small_folders.own(), 6
    rng = np.random.default_rng(0)
    shape = model.config.levels, 9
    codes = [rng.integers(0, model.config.codebook_size, shape) for _ in range(5)]
    held = dataclasses.replace(code_set(5), codes=codes, captions=["b", "b", "a", "c", "a"])
    held = dataclasses.replace(held, frame_rate=model.codec.config.frame_rate)
    found = sampling.generated(model, held, 2, frames)
    assert [sample.label for sample in found] == ["b", "a"]
    wanted = model.generate(["b", "a"], frames / held.frame_rate, jax.random.key(0))
    np.testing.assert_array_equal([sample.audio for sample in found], wanted)
    kept = model.codec.decode(
        Coded(codes[2][None, :, :frames], None, frames * model.codec.config.hop)
    )
    np.testing.assert_allclose(found[1].original, kept[0], atol=1e-6)


# Ctrl-C.


class Signalling:
    """Batches that send this process signals before the one of a number."""

    def __init__(self, at: int, *signals: int):
        self.batches, self.at, self.signals = points(RECORDS), at, signals
        self.get_state, self.set_state = self.batches.get_state, self.batches.set_state

    def __next__(self):
        self.at -= 1
        if self.at == 0:
            for number in self.signals:
                signal.raise_signal(number)
        return next(self.batches)


@pytest.fixture
def interruptible():
    """As of a process in the foreground: of one behind `&` Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, Interrupted), (signal.SIGTERM, Preempted)]
)
def test_a_signal_saves_the_update_and_the_run_goes_on(tmp_path, interruptible, number, raised):
    before = signal.getsignal(number)
    with pytest.raises(raised, match="saved at step 4"):
        fit(tmp_path / "a", point_task(), Signalling(4, number), LOOP, CONSTANT)
    assert signal.getsignal(number) is before
    state = fit(tmp_path / "a", point_task(), points(RECORDS), LOOP, CONSTANT)
    whole = fit(tmp_path / "b", point_task(), points(RECORDS), LOOP, CONSTANT)
    np.testing.assert_array_equal(state.params["w"][...], whole.params["w"][...])
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")


def test_a_signal_in_the_last_update_is_not_lost(tmp_path, interruptible):
    """All is saved, and what would come next does not begin."""

    def sample(state) -> list[Sample]:
        if int(state.step) == LOOP.steps:
            signal.raise_signal(signal.SIGINT)
        return []

    own = {"sample": sample, "monitoring": Monitoring(listened=1)}
    with pytest.raises(Interrupted, match="saved at step 6"):
        fit(tmp_path, point_task(), points(RECORDS), LOOP, CONSTANT, **own)
    fit(tmp_path, point_task(), points(RECORDS), LOOP, CONSTANT)
    assert log_of(tmp_path)[-1]["step"] == LOOP.steps


def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        fit(tmp_path, point_task(), Signalling(4, signal.SIGINT), LOOP, CONSTANT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert log_of(tmp_path)[-1]["step"] == LOOP.steps


def test_the_second_ctrl_c_ends_it_at_once(tmp_path, interruptible):
    with pytest.raises(KeyboardInterrupt):
        batches = Signalling(4, signal.SIGINT, signal.SIGINT)
        fit(tmp_path, point_task(), batches, LOOP, CONSTANT)
    with contextlib.suppress(Preempted):  # nothing is left of the signals
        fit(tmp_path, point_task(), points(RECORDS), LOOP, CONSTANT)
    assert log_of(tmp_path)[-1]["step"] == LOOP.steps


def test_the_built_in_codec_is_known_by_its_codes():
    assert Codec.load(builtin.WORD).fingerprint().hex() == builtin.FINGERPRINT
