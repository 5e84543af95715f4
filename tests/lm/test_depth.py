"""The depth transformer and Llama's block: one distribution, whichever way it is computed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from refusals import refused
from small_lm import KEY, draw, filled, of_text
from small_musicgen import codec
from tiers import slow, tried

from rvq_jax import config as configs
from rvq_jax import patterns
from rvq_jax.lm import forms, transformer
from rvq_jax.lm.depth import DepthConfig, DepthHeads
from rvq_jax.lm.llama import LlamaBlock
from rvq_jax.lm.model import LMConfig
from rvq_jax.lm.sampling import PLAIN
from rvq_jax.lm.text_bytes import to_bytes
from rvq_jax.lm.transformer import Block, KVCache
from rvq_jax.systems.decoding.programs import generate_codes, score_codes
from rvq_jax.systems.musicgen import MusicGen

K, N, D, B, F = 4, 5, 6, 3, 3  # levels, codes, the temporal model's features, rows, frames
SIZES = {"dim": 8, "layers": 2, "heads": 2, "mlp_dim": 12}
KINDS = {
    "shared": DepthConfig(**SIZES),
    "of each level": DepthConfig(**SIZES, shared=False, positions="none", norm=False),
    "state first": DepthConfig(**SIZES, kv_heads=1, state="first"),
    "first of each": DepthConfig(**SIZES, kv_heads=1, state="first", shared=False),
}
each_kind = pytest.mark.parametrize("kind", tried(list(KINDS)[1:2], KINDS))


@functools.cache
def heads(kind: str, end: bool = True):
    """Functions of heads with weights large enough for every input to matter."""
    graphdef, state = nnx.split(DepthHeads(KINDS[kind], K, N, D, nnx.Rngs(0), end=end))
    made = nnx.merge(graphdef, jax.device_put(filled(state)))
    return jax.jit(made.bits), jax.jit(made.sample)


def drawn(rows: int = B, branches: int = 2, steps: int = 1):
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(branches, rows, steps, D)).astype(np.float32)
    return hidden, rng.integers(0, N, (rows, K, steps)).astype(np.int32)


@each_kind
def test_a_level_costs_the_same_alone_and_with_all_others(kind):
    """Of forced tokens, empty places and an end among them, under guidance: level by level with a
    cache, and all levels of all steps at once."""
    bits, sample = heads(kind)
    hidden, tokens = drawn(steps=2)
    tokens[0, 1, 0] = tokens[1, 2:, 0] = tokens[2, 0, 0] = N
    whole = bits(hidden, tokens, 2.5)
    keys, valid = jax.random.split(KEY, B), np.ones((B, K), bool)
    for t in range(2):
        again, cost = sample(keys, hidden[:, :, t], tokens[:, :, t], valid, PLAIN, 2.5)
        assert (np.asarray(again) == tokens[:, :, t]).all()
        np.testing.assert_allclose(cost, whole[:, :, t], atol=1e-5, rtol=0)


@each_kind
def test_a_level_reads_the_state_and_the_levels_below_it(kind):
    """All of them, and nothing else: neither its own code nor other steps."""
    bits, _ = heads(kind)
    hidden, tokens = drawn(steps=2)
    before = np.asarray(bits(hidden, tokens, 2.5))
    for k in range(K):
        other = tokens.copy()
        other[0, k, 0] = (other[0, k, 0] + 1) % N
        changed = np.abs(np.asarray(bits(hidden, other, 2.5)) - before) > 1e-6
        assert changed[0, k:, 0].all() and not changed[0, :k, 0].any()
        changed[0, :, 0] = False
        assert not changed.any()
    hidden[1, 0, 0] += 1  # of the branch that guidance goes away from
    changed = np.abs(np.asarray(bits(hidden, tokens, 2.5)) - before) > 1e-6
    assert changed[0, :, 0].all() and changed.sum() == K


@each_kind
def test_a_row_samples_what_it_samples_alone(kind):
    """Whatever rows are beside it and whichever of their places are empty; these become the special
    id, which only the first level may sample."""
    _, sample = heads(kind)
    hidden, forced = drawn(rows=64)[0][:, :, 0], np.full((64, K), -1, np.int32)
    valid, keys = np.random.default_rng(1).random((64, K)) < 0.8, jax.random.split(KEY, 64)
    tokens, cost = sample(keys, hidden, forced, valid, PLAIN, 2.5)
    assert (np.asarray(tokens)[~valid] == N).all()
    assert ((np.asarray(tokens) < N) | ~valid)[:, 1:].all()
    assert (np.asarray(tokens)[:, 0][valid[:, 0]] == N).any()
    some = np.array([5, 60, 7])
    alone = sample(keys[some], hidden[:, some], forced[some], valid[some], PLAIN, 2.5)
    np.testing.assert_array_equal(alone[0], np.asarray(tokens)[some])
    np.testing.assert_allclose(alone[1], np.asarray(cost)[some], atol=1e-5, rtol=0)


LM = LMConfig(
    levels=K, codebook_size=N, dim=16, layers=2, heads=4, mlp_dim=24, caption_bytes=8
)  # fmt: skip
PUBLISHED = dataclasses.replace(
    LM, block="llama", kv_heads=2, rope_theta=50.0, text_as="prefix", end=True
)


@pytest.mark.parametrize(
    "lm, kind, name, guidance",
    [
        (PUBLISHED, "of each level", "delay", 2.0),
        slow(PUBLISHED, "state first", "parallel", None),
        slow(LM, "shared", "parallel", 2.0),
        slow(LM, "first of each", "delay", None),
    ],
)
def test_scores_of_what_is_sampled_are_those_of_sampling_it(lm, kind, name, guidance):
    """Temporal model and depth transformer together, rows of several lengths and their ends."""
    config = dataclasses.replace(lm, depth=KINDS[kind])
    params = draw(config)
    pattern = patterns.named(name, K, F)
    text, lengths = of_text(to_bytes(["a", "", "bc"], 8)), np.array([F, F, 1], np.int32)
    forced = np.full((B, K, F), -1, np.int32)
    forced[:, :, 0], forced[1, 0] = 1, 1
    if lm.end:
        forced[0, 0, 2] = N
    options = {"guidance": guidance}
    found = generate_codes(config, params, pattern, text, KEY, forced, lengths, **options)
    assert (np.asarray(found.lengths) <= lengths).all() and (found.codes[:, :, 0] == 1).all()
    if lm.end:
        assert found.lengths[0] <= 2
    mask = np.arange(F)[None] < np.asarray(found.lengths)[:, None]
    bits = np.asarray(score_codes(config, params, pattern, found.codes, text, mask, guidance))
    # What lies after the frames that were asked for was no choice.
    bits = np.where(np.arange(F)[None, None] < lengths[:, None, None], bits, 0)
    np.testing.assert_allclose(found.bits, bits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kv_heads", [2, slow(None)])
@pytest.mark.parametrize("make", [LlamaBlock, slow(Block)])
def test_a_block_computes_the_same_step_by_step(make, kv_heads):
    """With grouped queries too, its cross-attention among them."""
    T, width = 5, 2
    block = make(8, 4, 12, nnx.Rngs(0), kv_heads=kv_heads, cross=True)
    x_BTD, text_BLD = (
        np.random.default_rng(i).normal(size=(2, n, 8)).astype(np.float32)
        for i, n in enumerate((T, 3))
    )
    angles = jnp.asarray(transformer.rope_angles(T, width))[None]
    cross = block.cross_kv(text_BLD, np.array([[True, True, False], [True, False, False]]))
    whole = block(x_BTD, cross, angles, causal=True)
    assert cross.keys.shape[1] == (kv_heads or 4)
    values = jnp.zeros((2, kv_heads or 4, T, width))
    cache, step = KVCache(values.swapaxes(2, 3), values), jax.jit(type(block).step)
    for t in range(T):
        past = (jnp.arange(T) <= t)[None]
        y_DB, cache = step(block, x_BTD[:, t].T, cache, t, past, cross, angles[:, t : t + 1])
        np.testing.assert_allclose(y_DB.T, whole[:, t], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_and_both_forms_hold_a_depth_transformer(kind, tmp_path):
    """By the config alone; transformers' MusicGen has no words for it."""
    lm = dataclasses.replace(PUBLISHED, levels=3, codebook_size=11, depth=KINDS[kind])
    params = draw(lm)
    jax.tree.map(
        np.testing.assert_array_equal, forms.unstack(lm, forms.stack(lm, params)), params
    )  # fmt: skip
    MusicGen(lm, "parallel", params, codec(), None).save(tmp_path / "model")
    again = MusicGen.load(tmp_path / "model")
    assert again.config == lm
    jax.tree.map(np.testing.assert_array_equal, again.params, params)


def test_sizes_that_do_not_divide_are_refused():
    def made(cls, **fields):
        return lambda: configs.from_dict(cls, fields, "config.json")

    refused(made(DepthConfig, dim=8, heads=3), "config.json: ", "3 heads")
    refused(made(DepthConfig, kv_heads=3), "config.json: ", "kv_heads 3")
    refused(made(DepthConfig, dim=12, heads=4), "config.json: ", "even")
    refused(made(LMConfig, kv_heads=3), "config.json: ", "kv_heads 3")
    refused(made(LMConfig, levels=1, depth={}), "config.json: ", "2 levels")
    refused(made(LMConfig, depth={"layers": 0}), "config.json: depth: layers must be")
