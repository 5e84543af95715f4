"""VALL-E is trained, resumed, scored and kept as every other run; words for SoundStorm are too."""

import dataclasses

import jax
import numpy as np
import pytest
import small_musicgen
import small_parallel as small
from small_lm import KEY
from small_runs import log_of

from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.evaluate.bits import clip_bits
from rvq_jax.lm import forms
from rvq_jax.plan import programs as plans
from rvq_jax.systems.generators import forwards, load_generator
from rvq_jax.systems.semantic import SemanticModel
from rvq_jax.systems.valle import VALLE
from rvq_jax.train import sharding
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import SemanticRun, VALLERun
from rvq_jax.train.runs.batches import one_device
from rvq_jax.train.state import OptimizerConfig

FRAMES = 14
SAID = {"a": 2, "b": 4, "ab": 6, "Ba": 6}  # frames that each text takes
CODES = {"a": [1, 1], "b": [3, 3, 3, 3]}  # of the first level


def codes_of(text: str) -> np.ndarray:
    """Letters one after another; each level is the one below it plus one."""
    first = np.concatenate([CODES[letter] for letter in text.lower()])
    return ((first + np.arange(small.K)[:, None]) % small.N).astype(np.int32)


def code_set(rows: int = 8, **changes) -> CodeSet:
    words = [list(SAID)[i % len(SAID)] for i in range(rows)]
    names = [f"{i}" for i in range(rows)]
    codec = small_musicgen.codec().fingerprint().hex()
    codes = [codes_of(text) for text in words]
    made = CodeSet(codes, names, words, names, 100.0, small.N, codec)
    return dataclasses.replace(made, **changes)


def run_of(steps: int = 120, **changes) -> VALLERun:
    run = VALLERun(
        first=dataclasses.replace(small.FIRST, dim=32, mlp_dim=64),
        rest=dataclasses.replace(small.REST, dim=32, mlp_dim=64),
        loop=LoopConfig(steps=steps, checkpoint_every=20, log_every=20, evaluate_every=0),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup=5, weight_decay=0.0),
        frames=FRAMES,
    )
    return dataclasses.replace(run, **changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Codes, some of them held out, and the folder of their codec."""
    place = tmp_path_factory.mktemp("valle")
    code_set().save(place / "train.npz")
    small_musicgen.codec().save(place / "codec")
    return place


@pytest.fixture(scope="module")
def trained(data) -> VALLE:
    model = run_of().train(data / "run", data / "train.npz", one_device(), codec=data / "codec")
    model.save(data / "model")
    assert {"bits_first", "bits_rest"} <= log_of(data / "run")[-1].keys()
    return load_generator(data / "model")


@pytest.mark.wide  # its twin: its bits, below
def test_it_says_what_it_read_and_ends(trained):
    """All levels, each row its own text; what comes after a voice too."""
    words = list(SAID)
    found = trained.first.sample(words, 0.12, KEY, temperature=0.0)
    assert found.lengths.tolist() == list(SAID.values()) and found.ended.all()
    forced = np.full((len(words), small.K, 12), -1)
    inside = np.arange(12)[None] < found.lengths[:, None]
    forced[:, 0] = np.where(inside, found.tokens, -1)
    codes = trained.refine(words, forced, found.lengths, KEY)
    for row, text in zip(codes, words, strict=True):
        np.testing.assert_array_equal(row[:, : SAID[text]], codes_of(text))
    after = trained.first.sample(["ab"], 0.12, KEY, temperature=0.0, prompt=[[1, 1]])
    np.testing.assert_array_equal(after.tokens[0, :6], codes_of("ab")[0])


@pytest.mark.slow
def test_its_bits_are_the_held_out_loss(trained, data):
    """Few for what it learned; of its words as they are written for it."""
    held = code_set(4)
    found = clip_bits(trained, held)
    assert found.variance is None and found.per_frame.mean() < 1.0
    run = run_of()
    batch = {
        "codes": np.stack([np.pad(x, ((0, 0), (0, FRAMES - x.shape[1]))) for x in held.codes]),
        "mask": np.stack([np.arange(FRAMES) < x.shape[1] for x in held.codes]),
        "text": np.asarray(trained.encode_conditions(held.captions)["text"].states),
        "index": np.arange(4),
    }
    stacked = {
        "first": forms.stack(run.first, trained.first.lm.params),
        "rest": forms.stack(run.rest, trained.params),
    }
    task = run.task()
    sums, frames = jax.jit(task.evaluate)(stacked, task.aux, batch)
    assert float(sums["loss"]) == pytest.approx(found.levels.sum(), rel=1e-4, abs=1e-3)
    assert int(frames) == found.frames.sum()
    assert forwards(trained, 10) == 10 + small.K - 1


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_with_the_same_bits(data, tmp_path):
    run, args = run_of(40), (data / "train.npz", one_device())
    steady = dataclasses.replace(run.optimizer, schedule="constant")
    run = dataclasses.replace(run, optimizer=steady)
    half = dataclasses.replace(run, loop=dataclasses.replace(run.loop, steps=20))
    once = run.train(tmp_path / "once", *args)
    for part in (half, run):
        twice = part.train(tmp_path / "twice", *args)
    for a, b in ((once, twice), (once.first.lm, twice.first.lm)):
        jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


@pytest.mark.wide  # its twin: SoundStorm on a mesh, in test_masked_run.py
def test_a_mesh_changes_no_number(data, tmp_path):
    run = run_of(10)
    alone = run.train(tmp_path / "one", data / "train.npz", one_device())
    split = run.train(tmp_path / "eight", data / "train.npz", sharding.make_mesh(2, 2, 2))
    for one, eight in ((alone, split), (alone.first.lm, split.first.lm)):
        for a, b in zip(*(jax.tree.leaves(x.params) for x in (one, eight)), strict=True):
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=1e-5)


def test_a_plan_knows_it():
    run = run_of()
    assert plans.step(run, one_device()).lower().as_text()
    assert run.decoding(jax.devices()[0]).steps == FRAMES and run.splits_over(2)


def test_words_become_semantic_tokens(tmp_path):
    """The model keeps how they are written, and longer utterances are left out."""
    tokens = [np.full(n, 1, np.int32) for n in SAID.values()]
    codes = code_set(4, semantics=tokens, semantic_size=small.TOKENS, semantic_ratio=1)
    codes.save(tmp_path / "train.npz")
    lm = dataclasses.replace(small.FIRST, codebook_size=small.TOKENS)
    loop = LoopConfig(steps=2, checkpoint_every=2, evaluate_every=0)
    run = SemanticRun(speech=True, lm=lm, loop=loop, frames=5)
    model = run.train(tmp_path / "run", tmp_path / "train.npz", one_device())
    model.save(tmp_path / "model")
    again = SemanticModel.load(tmp_path / "model")
    assert again.spelling.letters == "ab" and again.spelling == model.spelling
    assert len(again.sample([" A"], 0.05, KEY).tokens) == 1
    with pytest.raises(ValueError, match="'c'"):
        again.sample(["c"], 0.05, KEY)


@pytest.mark.parametrize(
    ("changes", "codes", "say"),
    [
        ({"frames": 2}, {}, "the shortest utterance of train has 2 frames"),
        ({}, {"captions": ["a", " "] * 4}, "1 has no words"),
        ({}, {"captions": ["a" * 30] * 8}, "longer than the 24 bytes"),
        ({"first": dataclasses.replace(small.FIRST, end=False)}, {}, "first.end True"),
        ({"rest": dataclasses.replace(small.REST, masking="prompts")}, {}, "rest.masking levels"),
        ({"first": dataclasses.replace(small.FIRST, caption_bytes=8)}, {}, "caption_bytes differ"),
        ({"batch": 0}, {}, "batch is 0"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(changes, codes, say, tmp_path):
    code_set(**codes).save(tmp_path / "train.npz")
    with pytest.raises(UserError, match=say):
        run_of(**changes).train(tmp_path / "run", tmp_path / "train.npz", one_device())
    assert not (tmp_path / "run").exists()
