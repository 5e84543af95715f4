"""Training: the same numbers on any mesh, and after any interruption."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from rvq_jax import config as configs
from rvq_jax.codec.codec import CodecConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.data import loader
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.lm.model import LMConfig
from rvq_jax.train import runs, sharding
from rvq_jax.train.checkpoint import Checkpoints
from rvq_jax.train.codec_task import CodecLossConfig, codec_task
from rvq_jax.train.lm_task import drop, lm_task
from rvq_jax.train.loop import LoopConfig, fit, open_run
from rvq_jax.train.runs import LMRun
from rvq_jax.train.state import OptimizerConfig, Program, Task

LM = LMConfig(levels=2, size=7, dim=16, layers=1, heads=2, hidden=32, caption_bytes=8)
RUN = LMRun(
    lm=LM,
    loop=LoopConfig(steps=6, log_every=1, checkpoint_every=2),
    tuning=OptimizerConfig(warmup=1),
    batch=4,
    frames=6,
    condition_dropout=0.5,
)
TUNING = OptimizerConfig(learning_rate=1e-3, warmup=1)


def code_set(count: int = 9) -> CodeSet:
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, LM.size, (2, 4 + i)).astype(np.int32) for i in range(count)]
    names = [f"song{i}" for i in range(count)]
    return CodeSet(codes, names, [f"cap {i}" for i in range(count)], ["x"] * count, 50.0, LM.size)


def one_device():
    return sharding.make_mesh(devices=jax.devices()[:1])


def bits_of(tree) -> list[bytes]:
    """Every leaf to the last bit; random keys by their data."""

    def raw(x):
        key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if key else x).tobytes()

    return [raw(leaf) for leaf in jax.tree.leaves(tree)]


def log_of(folder: Path) -> list[dict]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{name: line[name] for name in line if name != "seconds"} for line in lines]


# The table of axes.


def test_an_array_lives_where_its_axes_say():
    """The rules applied by hand; axes in front (stacked layers) are whole."""
    mesh = sharding.make_mesh(2, 2, 2)
    cases = {
        (("embed", "mlp"), (16, 32)): PartitionSpec(("fsdp",), ("model",)),
        (("embed", "mlp"), (3, 16, 32)): PartitionSpec(None, ("fsdp",), ("model",)),
        ((None, "vocab", "embed"), (4, 10, 16)): PartitionSpec(None, ("model",), ("fsdp",)),
        (("batch", None), (8, 5)): PartitionSpec(("data", "fsdp"), None),
        (("heads", None, "embed"), (4, 8, 16)): PartitionSpec(("model",), None, ("fsdp",)),
        ((), ()): PartitionSpec(),
        # Two ways do not divide 7 or 1, and four do not divide 6: whole.
        (("embed", "vocab"), (16, 7)): PartitionSpec(("fsdp",), None),
        (("embed",), (1,)): PartitionSpec(None),
        (("batch",), (6,)): PartitionSpec(None),
    }
    for (axes, shape), want in cases.items():
        assert sharding.spec(axes, shape, mesh) == want, (axes, shape)


def test_axes_that_cannot_be_placed_are_errors():
    """Two axes on one mesh axis, or a name the table lacks, would be silent replication."""
    mesh = sharding.make_mesh(2, 2, 2)
    for axes in (("heads", "mlp"), ("batch", "embed"), ("vocab", "vocab")):
        with pytest.raises(ValueError, match="twice"):
            sharding.spec(axes, (8, 8), mesh)
    with pytest.raises(ValueError, match="'emebd'"):
        sharding.spec(("emebd",), (8,), mesh)


def test_a_mesh_uses_every_device_or_says_so():
    assert dict(sharding.make_mesh().shape) == {"data": 8, "fsdp": 1, "model": 1}
    assert dict(sharding.make_mesh(fsdp=2, model=2).shape) == {"data": 2, "fsdp": 2, "model": 2}
    for shape in ((3, 1, 1), (-1, 3, 1), (-1, 16, 1), (1, 1, 1)):
        with pytest.raises(UserError, match="8 devices") as caught:
            sharding.make_mesh(*shape)
        assert "\n" not in str(caught.value)


# One device or eight.


def lm_parts():
    pattern = runs.layout("delay", 2, RUN.frames)
    return lm_task(LM, pattern, 0.5), lambda: loader.batches(
        code_set(), loader.cut_codes(RUN.frames, LM.caption_bytes), 8, 0
    )


def codec_parts():
    seanet = SEANetConfig(filters=4, dim=8, ratios=(4,), lstm_layers=0)
    config = CodecConfig(8_000, seanet, levels=2, size=4)
    rng = np.random.default_rng(0)
    source = [
        {"audio": (0.1 * rng.normal(size=(2048 + 100 * i, 1))).astype(np.float32)} for i in range(9)
    ]
    task = codec_task(config, CodecLossConfig(warm=2), start_batches=1)
    return task, lambda: loader.batches(source, loader.cut_audio(2048), 8, 0)


@pytest.mark.parametrize("parts", [lm_parts, codec_parts])
def test_a_mesh_changes_no_number(parts, tmp_path):
    """One device and eight, split over data alone or over data, fsdp and model: the same losses
    and the same parameters, up to the order of sums."""
    task, batches = parts()
    config = LoopConfig(steps=4, log_every=1)
    meshes = {"one": one_device(), "data": sharding.make_mesh(), "all": sharding.make_mesh(2, 2, 2)}
    done = {
        name: fit(tmp_path / name, task, batches(), config, TUNING, mesh=mesh)
        for name, mesh in meshes.items()
    }
    losses = {name: [line["loss"] for line in log_of(tmp_path / name)] for name in meshes}
    assert len(losses["one"]) == 4
    for name in ("data", "all"):
        np.testing.assert_allclose(losses[name], losses["one"], rtol=1e-4)
        for a, b in zip(
            jax.tree.leaves((done[name].params, done[name].ema, done[name].rest)),
            jax.tree.leaves((done["one"].params, done["one"].ema, done["one"].rest)),
            strict=True,
        ):
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-3)
    check_split(done["all"], meshes["all"])


def check_split(state, mesh) -> None:
    """Parameters, their running mean and both moments lie where the table says, in pieces."""
    moments = [optax.tree.get(state.opt, name) for name in ("mu", "nu")]
    for tree in (state.params, state.ema, *moments):
        wanted = jax.tree.leaves(sharding.of_params(state.params, mesh))
        leaves = jax.tree.leaves(tree)
        assert len(leaves) == len(wanted) > 0
        for leaf, want in zip(leaves, wanted, strict=True):
            assert leaf.sharding.is_equivalent_to(want, leaf.ndim)
    here = sum(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(state.params))
    total = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    named = any(
        axis is not None
        for variable in jax.tree.leaves(state.params, is_leaf=lambda x: isinstance(x, nnx.Param))
        for axis in variable.axes
    )
    assert named and here < 0.6 * total


def test_dropping_captions_is_each_records_own_draw():
    """Whether a caption is dropped depends on the record and the key, not on its batch."""
    text, key = jnp.ones((4, 3), jnp.int32), jax.random.key(0)
    index = jnp.arange(4)
    kept = drop(key, text, index, 0.5)
    assert np.array_equal(drop(key, text, index[::-1], 0.5), kept[::-1])
    assert np.array_equal(drop(key, text[2:], index[2:], 0.5), kept[2:])
    assert (drop(key, text, index, 0.0) == 1).all() and (drop(key, text, index, 1.0) == 0).all()
    many = drop(key, jnp.ones((2000, 1), jnp.int32), jnp.arange(2000), 0.25)
    assert 0.70 < float(many.mean()) < 0.80


# Interruptions.


@pytest.fixture(scope="module")
def program():
    return runs.lm_program(RUN, runs.layout("delay", 2, RUN.frames))


def train(folder: Path, program: Program):
    """A run of the small token model, or what is left of it."""
    task = lm_task(LM, runs.layout("delay", 2, RUN.frames), RUN.condition_dropout)
    cut = loader.cut_codes(RUN.frames, LM.caption_bytes)
    batches = loader.batches(code_set(), cut, RUN.batch, RUN.loop.seed)
    return fit(folder, task, batches, RUN.loop, RUN.tuning, program=program)


@pytest.fixture(scope="module")
def whole(program, tmp_path_factory):
    """The run that was never interrupted: its state and its log."""
    folder = tmp_path_factory.mktemp("whole")
    state = train(folder, program)
    log = log_of(folder)
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    assert len({line["loss"] for line in log}) == 6
    return bits_of(state), log


@pytest.mark.parametrize("last", range(6))
def test_a_run_stopped_at_any_update_ends_in_the_same_bits(program, whole, tmp_path, last):
    """Whatever the state, the log and the data's position were when it stopped."""
    calls = 0

    def failing(state, batch):
        nonlocal calls
        calls += 1
        if calls > last:
            raise RuntimeError("power is out")
        return program.step(state, batch)

    with pytest.raises(RuntimeError, match="power"):
        train(tmp_path, Program(program.init, failing))
    again = train(tmp_path, program)
    assert bits_of(again) == whole[0]
    assert log_of(tmp_path) == whole[1]
    # And a finished run is not trained further.
    assert bits_of(train(tmp_path, program)) == whole[0]
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
    newest = max((tmp_path / "checkpoints").iterdir(), key=lambda path: path.name)
    shutil.rmtree(newest)
    log = tmp_path / "metrics.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join(lines[:4]) + "\n" + lines[4][:17])
    assert bits_of(train(tmp_path, program)) == whole[0]
    assert log_of(tmp_path) == whole[1]


LONG = dataclasses.replace(
    RUN, loop=LoopConfig(steps=60, log_every=1, checkpoint_every=3), pattern="flatten"
)
CONFIG_FILE = """
from rvq_jax.lm.model import LMConfig
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import LMRun
from rvq_jax.train.state import OptimizerConfig

def get_config():
    return {run!r}
"""


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """The unkilled run of LONG in this process, with the program that made it."""
    program = runs.lm_program(LONG, runs.layout("flatten", 2, LONG.frames))
    folder = tmp_path_factory.mktemp("long")
    runs.train_lm(folder, code_set(), LONG, program=program)
    return program, folder


def final_state(folder: Path, program: Program):
    task = lm_task(LM, runs.layout("flatten", 2, LONG.frames), LONG.condition_dropout)
    like = program.init(jax.random.key(0), task.rest)
    cut = loader.cut_codes(LONG.frames, LM.caption_bytes)
    batches = loader.batches(code_set(), cut, LONG.batch, 0)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        assert checkpoints.latest() == LONG.loop.steps
        state = checkpoints.restore(like, batches)
    return bits_of(state), next(batches)["index"].tolist()


@pytest.mark.parametrize("delay", [0.0, 0.37])
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
            while not list((out / "checkpoints").glob("[0-9]*")):
                assert process.poll() is None, (tmp_path / "output").read_text()
                assert time.monotonic() < deadline, "no checkpoint in two minutes"
                time.sleep(0.01)
            time.sleep(delay)
        finally:
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    assert len(log_of(out)) < LONG.loop.steps
    runs.train_lm(out, code_set(), LONG, program=program)
    assert final_state(out, program) == final_state(unkilled, program)
    assert log_of(out) == log_of(unkilled)
    assert (out / "config.json").read_text() == (unkilled / "config.json").read_text()


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
