"""Conditions beyond text and melody, and rows that end themselves.

The second user of the seam: a model with two numbers more for every frame, which are added
frame by frame, and that samples where it ends.
"""

import dataclasses
from dataclasses import dataclass

import jax
import numpy as np
import pytest
from small_lm import CAPTIONS, KEY, draw
from small_runs import LM, RUN, code_set
from tiers import slow

from rvq_jax import patterns
from rvq_jax.data import loader
from rvq_jax.lm.conditions import ConditionSpec, condition, drop, text_condition
from rvq_jax.lm.model import LMConfig, frames_of_steps
from rvq_jax.lm.text_bytes import to_bytes
from rvq_jax.plan import programs as plans
from rvq_jax.systems.decoding.programs import generate_codes, score_codes
from rvq_jax.train import sharding
from rvq_jax.train.loop import LoopConfig, fit
from rvq_jax.train.runs import LMRun
from rvq_jax.train.tasks.lm import PREFIX, ConditionDropout, lm_task

K, N, F = 3, 7, 5
PATTERNS = ("parallel", "delay", "flatten", "partial_delay")


@dataclass(frozen=True)
class TempoConfig(LMConfig):
    """A token model that reads a tempo for each frame too."""

    @property
    def conditions(self):
        return *super().conditions, ConditionSpec("tempo", "frame", 2)


CONFIG = TempoConfig(
    levels=K, codebook_size=N, dim=16, layers=2, heads=2, mlp_dim=32, caption_bytes=16, end=True
)
PARAMS = draw(CONFIG)
OPEN = dataclasses.replace(CONFIG, end=False)


def said(tempo_BFE) -> dict:
    text = to_bytes([CAPTIONS[i % 2] for i in range(len(tempo_BFE))], 16)
    return {"text": text_condition(text), "tempo": condition(tempo_BFE)}


def tempo(rows: int = 2, seed: int = 0):
    return np.random.default_rng(seed).normal(size=(rows, F, 2)).astype(np.float32)


def aligned(name: str) -> patterns.Pattern:
    return patterns.named(name, K, F).pad(K * F)


@pytest.mark.parametrize("guidance", [slow(None), 2.0])
@pytest.mark.parametrize("name", PATTERNS)
def test_scores_are_those_of_decoding_step_by_step(name, guidance):
    """Where rows end, the end's own bits are among them."""
    lengths = np.array([3, F])
    codes = np.random.default_rng(0).integers(0, N, (2, K, F)).astype(np.int32)
    inside = np.arange(F)[None] < lengths[:, None]
    forced = np.where(inside[:, None], codes, -1)
    forced[0, 0, 3] = N  # the end
    args = CONFIG, PARAMS, aligned(name)
    stepped = generate_codes(*args, said(tempo()), KEY, forced, guidance=guidance)
    assert stepped.lengths.tolist() == lengths.tolist()
    assert np.array_equal(stepped.codes, np.where(inside[:, None], codes, 0))
    scored = score_codes(*args, codes, said(tempo()), inside, guidance)
    assert scored[0, 0, 3] > 0 and not scored[0, 1:, 3].any() and not scored[0, :, 4].any()
    assert np.isfinite(scored).all()
    np.testing.assert_allclose(stepped.bits, scored, atol=2e-4, rtol=0)
    # The first steps at once, the end of a row among them.
    steps = {"parallel": 4, "delay": 4, "partial_delay": 4, "flatten": 10}[name]
    options = {"guidance": guidance, "prefill_steps": steps}
    at_once = generate_codes(*args, said(tempo()), KEY, forced, **options)
    assert np.array_equal(at_once.codes, stepped.codes)
    np.testing.assert_allclose(at_once.bits, stepped.bits, atol=2e-4, rtol=0)


def test_a_frames_condition_is_of_its_frame_and_later_ones():
    """Codes before it do not know it; left out it is as if there were none."""
    codes = np.random.default_rng(0).integers(0, N, (2, K, F)).astype(np.int32)
    params = draw(OPEN)
    args = OPEN, params, aligned("flatten")
    there = np.asarray(score_codes(*args, codes, said(tempo())))
    changed = tempo()
    changed[:, 3:] += 1.0
    other = np.asarray(score_codes(*args, codes, said(changed)))
    np.testing.assert_allclose(other[:, :, :3], there[:, :, :3], atol=1e-5)
    assert np.abs(other[:, :, 3:] - there[:, :, 3:]).min() > 0
    silent = np.asarray(score_codes(*args, codes, drop(said(tempo()), "tempo")))
    nothing = np.asarray(score_codes(*args, codes, drop(said(changed), "tempo")))
    assert np.array_equal(silent, nothing) and np.abs(silent - there).max() > 1e-3


@pytest.mark.parametrize("name", PATTERNS)
def test_each_step_is_of_the_frame_of_its_first_code(name):
    pattern = patterns.named(name, K, F)
    found = np.asarray(frames_of_steps(pattern))
    for t in range(pattern.steps):
        codes = [(k, f) for k in range(K) for f in range(F) if pattern.step_of[k, f] == t]
        assert found[t] == (min(codes)[1] if codes else -1)


def test_lengths_are_sampled():
    """By the first level alone, within what was asked for, and not all alike; a row that ended is
    as if it had been asked for at that length."""
    rows = 64
    args = CONFIG, PARAMS, aligned("delay")
    free = np.full((rows, K, F), -1, np.int32)
    found = generate_codes(*args, said(tempo(rows)), KEY, free, np.full(rows, 4))
    lengths = np.asarray(found.lengths)
    assert lengths.min() < lengths.max() <= 4
    inside = np.arange(F)[None] < lengths[:, None]
    assert not np.asarray(found.codes)[~np.broadcast_to(inside[:, None], free.shape)].any()
    assert (np.asarray(found.codes) < N).all()
    same = generate_codes(*args, said(tempo(rows)), KEY, free, lengths)
    short = lengths > 0
    assert np.array_equal(np.asarray(same.codes)[short], np.asarray(found.codes)[short])


def test_other_conditions_than_the_models_are_refused():
    with pytest.raises(ValueError, match="conditioned on text, tempo; got text"):
        codes = np.zeros((2, K, F), np.int32)
        score_codes(OPEN, draw(OPEN), aligned("delay"), codes, {"text": said(tempo())["text"]})


@pytest.mark.slow
def test_it_trains_with_a_dropout_of_its_own_and_is_planned(tmp_path):
    lm = TempoConfig(**vars(LM))
    run = LMRun(**vars(RUN) | {"lm": lm, "condition_dropout": ConditionDropout(0.1, others=0.5)})
    pattern = patterns.padded_pattern("delay", 2, RUN.frames)
    task = lm_task(lm, pattern, run.condition_dropout)
    crop = loader.cut_codes(RUN.frames, lm.caption_bytes)

    def cut(record, rng):
        return crop(record, rng) | {f"{PREFIX}tempo": np.ones((RUN.frames, 2), np.float32)}

    loop = LoopConfig(steps=3, log_every=1, checkpoint_every=9)
    state = fit(tmp_path, task, loader.batches(code_set(), cut, 8, 0), loop, RUN.optimizer)
    kernel = state.params["readers"]["tempo"]["project"]["kernel"][...]
    start = task.init(jax.random.key(0))["readers"]["tempo"]["project"]
    assert np.isfinite(kernel).all() and np.any(kernel != start["kernel"][...])
    assert f"{PREFIX}tempo" in run.batch_shapes()
    assert plans.step(run, sharding.make_mesh(fsdp=2, tensor=2)).lower().as_text()
