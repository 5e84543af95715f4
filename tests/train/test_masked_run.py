"""Masked models are trained, resumed, planned and kept as every other run."""

import dataclasses

import jax
import numpy as np
import pytest
import small_musicgen
import small_parallel as small
from small_lm import KEY
from small_runs import log_of
from tiers import slow, wide

from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.plan import programs as plans
from rvq_jax.systems.magnet import MAGNeT
from rvq_jax.systems.soundstorm import SoundStorm
from rvq_jax.train import sharding
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import MaskedRun
from rvq_jax.train.runs.batches import one_device
from rvq_jax.train.state import OptimizerConfig

FRAMES = 12
KINDS = {"soundstorm": (small.STORM, SoundStorm), "magnet": (small.MAGNET, MAGNeT)}
each = pytest.mark.parametrize("kind", ["soundstorm", wide("magnet")])


def code_set(rows: int = 9, seed: int = 0, **changes) -> CodeSet:
    """Codes that follow from their semantic token and caption, finer levels from coarser ones."""
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(0, small.TOKENS, 4).astype(np.int32) for _ in range(rows)]
    captions = [["a", "bb"][i % 2] for i in range(rows)]
    level = np.arange(small.K)[:, None]
    codes = [
        ((np.repeat(x, small.RATIO)[None] + level + len(caption)) % small.N).astype(np.int32)
        for x, caption in zip(tokens, captions, strict=True)
    ]
    names = [f"{i}" for i in range(rows)]
    codec = small_musicgen.codec().fingerprint().hex()
    made = CodeSet(
        codes, names, captions, names, 100.0, small.N, codec,
        semantics=tokens, semantic_size=small.TOKENS, semantic_ratio=small.RATIO,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def run_of(kind: str, steps: int = 40, **changes) -> MaskedRun:
    loop = LoopConfig(steps=steps, checkpoint_every=20, log_every=10, evaluate_every=0)
    optimizer = OptimizerConfig(learning_rate=1e-2, warmup=5, weight_decay=0.0)
    run = MaskedRun(KINDS[kind][0], loop, optimizer, frames=FRAMES)
    return dataclasses.replace(run, **changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Codes, and the folders of their codec and of a semantic model."""
    place = tmp_path_factory.mktemp("masked")
    code_set().save(place / "train.npz")
    code_set(4, seed=1).save(place / "heldout.npz")
    small_musicgen.codec().save(place / "codec")
    small.semantic().save(place / "semantic")
    return place


@each
def test_a_run_makes_a_model_that_is_heard(data, tmp_path, kind):
    """It learns, is evaluated on what is held out, and is stopped and resumed to the same bits."""
    more = {"semantic": str(data / "semantic")} if kind == "soundstorm" else {}
    run = run_of(kind, **more)
    run = dataclasses.replace(run, loop=dataclasses.replace(run.loop, evaluate_every=20))
    model = run.train(tmp_path / "run", data / "train.npz", one_device(), codec=data / "codec")
    assert isinstance(model, KINDS[kind][1]) and model.config.window == FRAMES
    lines = log_of(tmp_path / "run")
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    held = [line["heldout"]["loss"] for line in lines if "heldout" in line]
    assert len(held) == 2 and held[1] < held[0]
    model.save(tmp_path / "model")
    again = KINDS[kind][1].load(tmp_path / "model")
    audio = again.generate(["a"], 0.1, KEY, iterations=(2, 1, 1))
    assert audio.shape == (1, 100, 1) and np.isfinite(audio).all()


@pytest.mark.parametrize("kind", [slow("soundstorm"), wide("magnet")])
def test_a_run_that_was_stopped_ends_in_the_same_bits(data, tmp_path, kind):
    run = run_of(kind)
    run = dataclasses.replace(
        run, optimizer=dataclasses.replace(run.optimizer, schedule="constant")
    )
    half = dataclasses.replace(run, loop=dataclasses.replace(run.loop, steps=20))
    once = run.train(tmp_path / "once", data / "train.npz", one_device())
    for part in (half, run):
        twice = part.train(tmp_path / "twice", data / "train.npz", one_device())
    jax.tree.map(np.testing.assert_array_equal, once.params, twice.params)


@pytest.mark.parametrize("kind", [slow("soundstorm"), wide("magnet")])
def test_a_mesh_changes_no_number(data, tmp_path, kind):
    run = run_of(kind, steps=10)
    alone = run.train(tmp_path / "one", data / "train.npz", one_device())
    mesh = sharding.make_mesh(2, 2, 2)
    split = run.train(tmp_path / "eight", data / "train.npz", mesh)
    for a, b in zip(*(jax.tree.leaves(x.params) for x in (alone, split)), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=1e-5)


@each
def test_it_is_planned_by_its_config_alone(kind):
    run = run_of(kind)
    assert plans.step(run, sharding.make_mesh(fsdp=2, tensor=2)).lower().as_text()
    decoding = run.decoding(jax.devices()[0])
    assert decoding.steps == (18 if kind == "soundstorm" else 40)


@pytest.mark.parametrize(
    ("kind", "change", "words", "say"),
    [
        ("soundstorm", {"semantics": None}, {}, "--semantic"),
        ("soundstorm", {"semantic_size": 6}, {}, "6 semantic tokens"),
        ("soundstorm", {"codebook_size": 12}, {}, "of 12"),
        ("magnet", {}, {"frames": 17}, "the longest record 16"),
        ("soundstorm", {}, {"frames": 10}, "a multiple of"),
        ("magnet", {}, {"semantic": "semantic"}, "leave --semantic out"),
        ("magnet", {"codec": "00"}, {}, "another codec"),
    ],
)
def test_what_does_not_fit_is_refused(data, tmp_path, kind, change, words, say):
    code_set(**change).save(tmp_path / "train.npz")
    if "semantic" in words:
        words = {"semantic": str(data / words["semantic"])}
    with pytest.raises(UserError, match=say):
        run_of(kind, **words).train(
            tmp_path / "run", tmp_path / "train.npz", one_device(), codec=data / "codec"
        )
    assert not (tmp_path / "run").exists()
