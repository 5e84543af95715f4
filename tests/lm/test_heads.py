"""Heads that depend on each other take the place of independent ones without another word.

The second user of the seam is the depth transformer, with guidance inside.
"""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from small_lm import KEY, draw, of_text
from small_runs import LM, RUN, code_set, log_of
from tiers import slow

from rvq_jax import patterns
from rvq_jax.lm import forms
from rvq_jax.lm.depth import DepthConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.lm.sampling import Sampling
from rvq_jax.lm.text_bytes import to_bytes
from rvq_jax.plan import programs as plans
from rvq_jax.systems.decoding.programs import generate_codes, score_codes
from rvq_jax.train import runs, sharding

K, N, F = 2, 3, 2
DEPTH = DepthConfig(dim=16, layers=1, heads=2, mlp_dim=32)
CONFIG = LMConfig(
    levels=K,
    codebook_size=N,
    dim=16,
    layers=1,
    heads=2,
    mlp_dim=32,
    caption_bytes=8,
    depth=DEPTH,
)
PARAMS = draw(CONFIG)
PATTERNS = ("parallel", "delay", "flatten")
GUIDANCE = (slow(None), 2.5)


def aligned(name: str) -> patterns.Pattern:
    """All in the steps of the longest, so that they share their programs."""
    return patterns.named(name, K, F).pad(K * F)


def texts(rows: int) -> dict:
    return of_text(to_bytes(["a b"] * rows, 8))


@pytest.mark.parametrize("guidance", GUIDANCE)
@pytest.mark.parametrize("name", PATTERNS)
def test_bits_are_of_a_proper_distribution(name, guidance):
    """Over every sequence of K · F codes, guided or not, probabilities sum to one."""
    every = np.array(list(itertools.product(range(N), repeat=K * F)), np.int32).reshape(-1, K, F)
    bits = score_codes(CONFIG, PARAMS, aligned(name), every, texts(len(every)), None, guidance)
    assert 2.0 ** -np.asarray(bits).sum((1, 2)) @ np.ones(len(every)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("guidance", GUIDANCE)
@pytest.mark.parametrize("name", PATTERNS)
def test_sampled_codes_cost_what_scoring_says(name, guidance):
    """Of sampled codes, and of those a prompt forces: stepwise bits are teacher-forced ones."""
    forced = np.full((6, K, F), -1, np.int32)
    forced[:3, :, 0] = [1, 2]
    args = CONFIG, PARAMS, aligned(name)
    found = generate_codes(*args, texts(6), KEY, forced, guidance=guidance)
    assert (np.asarray(found.codes)[:3, :, 0] == [1, 2]).all()
    scored = score_codes(*args, found.codes, texts(6), None, guidance)
    np.testing.assert_allclose(found.bits, scored, atol=1e-4, rtol=0)


def test_codes_are_sampled_as_often_as_their_bits_say():
    """Both levels of a frame together, where the second depends on the first."""
    rows, frame = 4000, np.array(list(itertools.product(range(N), repeat=K)), np.int32)
    pattern = patterns.parallel(K, 1)
    args = CONFIG, PARAMS, pattern
    bits = np.asarray(score_codes(*args, frame[:, :, None], texts(len(frame)), None, 2.5))
    want = 2.0 ** -bits.sum((1, 2))
    drawn = generate_codes(*args, texts(rows), KEY, np.full((rows, K, 1), -1), guidance=2.5).codes
    index = np.asarray(drawn)[:, 0, 0] * N + np.asarray(drawn)[:, 1, 0]
    share = np.bincount(index, minlength=N**K) / rows
    assert (np.abs(share - want) < 4 * np.sqrt(want * (1 - want) / rows) + 1e-3).all()
    # Levels that did not see each other would have the product of their shares.
    joint = want.reshape(N, N)
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    assert np.abs(joint / apart - 1).max() > 0.05


def test_the_likeliest_code_is_taken_level_by_level():
    found = generate_codes(
        CONFIG, PARAMS, aligned("parallel"), texts(1), KEY, np.full((1, K, F), -1),
        sampling=Sampling(0.0),
    )  # fmt: skip
    codes = np.asarray(found.codes)[0]
    for f, k in itertools.product(range(F), range(K)):
        others = np.tile(codes, (N, 1, 1))
        others[:, k, f] = np.arange(N)
        bits = score_codes(CONFIG, PARAMS, aligned("parallel"), others, texts(N))
        assert np.argmin(np.asarray(bits)[:, k, f]) == codes[k, f]


def test_what_handles_a_model_asks_its_config():
    """Stacked or as lists of layers, those of the heads too."""
    stacked = forms.stack(CONFIG, PARAMS)
    again = forms.unstack(CONFIG, stacked)
    jax.tree.map(np.testing.assert_array_equal, again, PARAMS)
    shapes = forms.abstract(CONFIG, stacked=True)
    assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(np.shape, stacked)


@pytest.mark.slow
def test_it_trains_and_is_planned_by_its_config_alone(tmp_path):
    lm = dataclasses.replace(LM, depth=DEPTH)
    run = runs.LMRun(**vars(RUN) | {"lm": lm})
    params = runs.train_lm(tmp_path, code_set(), run)
    assert np.isfinite([line["loss"] for line in log_of(tmp_path)]).all()
    before = forms.unstack(lm, forms.init(lm, jax.random.key(run.loop.seed)))
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before["heads"], params["heads"])
    assert all(jax.tree.leaves(moved))
    assert plans.step(run, sharding.make_mesh(fsdp=2, tensor=2)).lower().as_text()
