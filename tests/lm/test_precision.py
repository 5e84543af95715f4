"""Models in fewer bits: what is kept in which type, and how far all is from float32."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_lm import CONFIG, KEY, PARAMS, TEXT, K, N, aligned_pattern, draw, of_text, random_codes
from tiers import slow, tried

from rvq_jax import files
from rvq_jax.errors import UserError
from rvq_jax.lm import depth, filled, forms, precision, transformer
from rvq_jax.lm.conditions import Condition
from rvq_jax.lm.depth import DepthConfig
from rvq_jax.lm.sampling import Sampling
from rvq_jax.systems.decoding.programs import generate_codes, score_codes
from rvq_jax.train.runs import LMRun

SMALL = ("bfloat16", "int8")
RNG = np.random.default_rng(0)


def kept(kind: str, config=CONFIG, params=PARAMS):
    """Config and parameters in a precision."""
    return precision.computed(config, kind), precision.cast(params, kind)


def normal(*shape) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("shape", "axes_in"), [((5, 7), 1), ((2, 3, 4, 7), 1), ((6, 3, 4), 2)])
def test_int8_is_within_half_a_step_of_each_weight(shape, axes_in):
    """Every output has its own scale, the largest of its weights is kept exactly, and zeros stay:
    of numpy and of jax alike."""
    weight = normal(*shape)
    weight[0] = 0
    for given in (weight, jnp.asarray(weight)):
        found = precision.to_int8(given, axes_in)
        assert found.values.dtype == np.int8 and found.shape == shape
        assert found.scale.shape == shape[:-axes_in] and found.scale.dtype == np.float32
        scale = np.expand_dims(np.asarray(found.scale), tuple(range(-axes_in, 0)))
        back = np.asarray(found.values, np.float32) * scale
        assert (np.abs(back - weight) <= 0.5001 * scale).all() and not back[0].any()
        last = tuple(range(-axes_in, 0))
        np.testing.assert_allclose(np.abs(back).max(last), np.abs(weight).max(last), rtol=1e-6)


def test_products_of_int8_are_within_the_bound_that_follows():
    """An output is off by at most half a step times the sum of |x|: columns, rows, heads together
    and a matrix for each level."""
    weight, x_BTD = normal(2, 3, 4, 8), normal(5, 6, 8)
    small = precision.to_int8(weight, 1)
    bound = 0.51 * small.scale[None, None] * np.abs(x_BTD).sum(-1)[:, :, None, None, None]
    whole = np.einsum("btd,ihed->btihe", x_BTD, weight)
    assert (np.abs(transformer.project(x_BTD, small) - whole) <= bound).all()
    columns = transformer.product(small, jnp.asarray(x_BTD[:, 0].T))
    assert (np.abs(np.moveaxis(columns, -1, 0) - whole[:, 0]) <= bound[:, 0]).all()
    out = precision.to_int8(normal(8, 2, 4), 2)
    np.testing.assert_array_equal(transformer.flat(out).values, out.values.reshape(8, 8))
    x_BKD, each = normal(5, 2, 8), precision.to_int8(weight.reshape(2, 12, 8), 1)
    found, whole = depth.project_each(x_BKD, each), weight.reshape(2, 12, 8)
    bound = 0.51 * each.scale[None] * np.abs(x_BKD).sum(-1)[..., None]
    assert (np.abs(found - np.einsum("bkd,ked->bke", x_BKD, whole)) <= bound).all()


@pytest.mark.parametrize("kind", SMALL)
def test_what_is_kept_in_which_type(kind):
    """No float32 array but the scales; int8 are the blocks' matrices alone; the cache is bfloat16
    and hidden states too, logits are float32. Nothing is cast again."""
    config, params = kept(kind)
    named = files.named(params)
    assert precision.of(params) == kind and precision.of(PARAMS) == "float32"
    wide = [name for name, x in named.items() if x.dtype == np.float32]
    assert all(name.endswith("scale") and kind == "int8" for name in wide if "norm" not in name)
    assert not [name for name in wide if "norm" in name]
    whole = {name for name, x in named.items() if x.dtype == np.int8}
    assert (kind == "int8") == bool(whole)
    assert all(name.startswith("blocks/") for name in whole) and len(whole) == 16 * bool(whole)
    model = forms.model(config, jax.tree.map(jnp.asarray, params))
    conditions = of_text(TEXT)
    hidden, cache = jax.eval_shape(
        lambda: model.prefill(jnp.zeros((2, K, 2), jnp.int32), 5, conditions)
    )
    kinds = {x.dtype.name for x in jax.tree.leaves((cache.self_kv, hidden))}
    assert kinds == {"bfloat16"}
    text = str(jax.make_jaxpr(lambda x: model.heads.logits(x))(jnp.zeros((1, 2, 16), jnp.bfloat16)))
    assert "preferred_element_type=float32" in text


@pytest.mark.parametrize("kind", SMALL)
def test_bits_are_near_those_of_float32_and_generation_costs_what_scoring_says(kind):
    """bfloat16 has 8 bits, a step of 2⁻⁸; logits of this model are sums of some ten roundings."""
    config, params = kept(kind)
    pattern, codes = aligned_pattern("delay"), random_codes(2)
    whole = np.asarray(score_codes(CONFIG, PARAMS, pattern, codes, of_text(TEXT)))
    found = np.asarray(score_codes(config, params, pattern, codes, of_text(TEXT)))
    assert np.abs(found - whole).max() < 40 * 2**-8 * max(1, np.abs(whole).max() / 4)
    free = np.full(codes.shape, -1, np.int32)
    drawn = generate_codes(config, params, pattern, of_text(TEXT), KEY, free)
    assert ((np.asarray(drawn.codes) >= 0) & (np.asarray(drawn.codes) < N)).all()
    again = score_codes(config, params, pattern, drawn.codes, of_text(TEXT))
    np.testing.assert_allclose(drawn.bits, again, atol=0.25, rtol=0)


@pytest.mark.parametrize("kind", tried(["int8"], SMALL))
def test_greedy_codes_differ_only_where_two_were_nearly_as_likely(kind):
    """Where float32 and the model in fewer bits choose differently under the same past, float32's
    two choices are nearer than the largest change of bits times two."""
    config, params = kept(kind)
    pattern = aligned_pattern("delay")
    free, cold = np.full((2, K, 5), -1, np.int32), Sampling(temperature=0.0)
    args = pattern, of_text(TEXT), KEY, free
    codes = np.asarray(generate_codes(config, params, *args, sampling=cold).codes)
    rows = np.repeat(codes, N, axis=0).reshape(2, N, K, 5)
    text = np.repeat(TEXT, N, axis=0)
    for k, f in [(0, 0), (K - 1, 4), (1, 2)]:
        asked = rows.copy()
        asked[:, :, k, f] = np.arange(N)[None]
        one, other = (
            np.asarray(score_codes(c, p, pattern, asked.reshape(-1, K, 5), of_text(text)))[:, k, f]
            for c, p in ((CONFIG, PARAMS), (config, params))
        )
        one, other = one.reshape(2, N), other.reshape(2, N)
        off = np.abs(one - other).max()
        chosen = one[np.arange(2), codes[:, k, f]]
        assert (chosen - one.min(1) <= 2 * off + 0.1).all()


# Its twin: without one, above.
@pytest.mark.parametrize("shared", [slow(True), slow(False)])
def test_a_depth_transformer_in_int8(shared):
    """Its matrices too, of each level or of all: bits near float32's."""
    config = dataclasses.replace(CONFIG, depth=DepthConfig(16, 1, 2, mlp_dim=24, shared=shared))
    params = draw(config)
    small = precision.cast(params, "int8")
    assert any(
        name.startswith("heads/blocks") and x.dtype == np.int8
        for name, x in files.named(small).items()
    )
    pattern, codes = aligned_pattern("parallel"), random_codes(2)
    args = pattern, codes, of_text(TEXT)
    whole = np.asarray(score_codes(config, params, *args))
    found = np.asarray(score_codes(precision.computed(config, "int8"), small, *args))
    assert np.abs(found - whole).max() < 0.2 * max(1, np.abs(whole).max())
    free = np.full(codes.shape, -1, np.int32)
    drawn = generate_codes(
        precision.computed(config, "int8"), small, pattern, of_text(TEXT), KEY, free
    )
    assert np.isfinite(drawn.bits).all()


def test_parts_of_a_cache_end_where_it_does():
    """They are nearly as long as each other, a short cache is one, and there are four at most."""
    for length in (1, 16, 511, 512, 1503, 1536, 4001):
        ends = filled.parts(length)
        sizes = np.diff([0, *ends])
        assert ends[-1] == length and len(ends) <= filled.MOST_PARTS
        assert len(ends) == 1 or (sizes.min() >= filled.PART - 4 and np.ptp(sizes) <= 4)
    assert filled.parts(1503) == (376, 752, 1128, 1503) and filled.parts(511) == (511,)


@pytest.mark.parametrize("way", ["cross", slow("prefix")])
def test_reading_the_filled_part_of_the_cache_is_reading_all_of_it(way, monkeypatch):
    """In parts or whole, after a prompt and a prefix: codes are equal, bits up to rounding."""
    changes = {"cross": {"end": True}, "prefix": {"text_as": "prefix", "text_dim": 16}}
    config = dataclasses.replace(CONFIG, layers=1, **changes[way])
    params, pattern = draw(config), aligned_pattern("flatten")
    conditions = of_text(TEXT)
    if way == "prefix":
        states, mask = normal(2, 3, 16), np.array([[1, 1, 0], [1, 1, 1]], bool)
        conditions = {"text": Condition(states, mask, np.ones(2, bool))}
    prompt = np.full((2, K, 5), -1, np.int32)
    prompt[:, :, :1] = random_codes(2)[:, :, :1]
    found = []
    for size in (256, 4):
        monkeypatch.setattr(filled, "PART", size)
        jax.clear_caches()
        assert len(filled.parts(pattern.steps)) == (1 if size == 256 else 3)
        found.append(generate_codes(config, params, pattern, conditions, KEY, prompt))
    np.testing.assert_array_equal(*[x.codes for x in found])
    np.testing.assert_allclose(*[x.bits for x in found], atol=1e-4, rtol=0)
    np.testing.assert_array_equal(*[x.lengths for x in found])


def test_generation_is_planned_in_fewer_bits():
    """Weights and cache have half the bytes in bfloat16, weights fewer still in int8; what a plan
    calls the cache is what decoding keeps."""
    run = LMRun(lm=CONFIG, frames=8)
    plans = [run.decoding(jax.devices()[0], kind, prompts=3) for kind in ("float32", *SMALL)]
    sizes = [sum(x.dtype.itemsize * x.size for x in jax.tree.leaves(p.params)) for p in plans]
    assert sizes[0] == 2 * sizes[1] > 2 * sizes[2]
    assert plans[0].cache == 2 * plans[1].cache == 2 * plans[2].cache
    steps = run._pattern().steps
    model = forms.model(CONFIG, jax.tree.map(jnp.asarray, PARAMS))
    tokens, conditions = jnp.zeros((6, K, 0), jnp.int32), of_text(np.repeat(TEXT, 3, axis=0))
    kept = jax.eval_shape(lambda: model.prefill(tokens, steps, conditions)[1].self_kv)
    assert plans[0].cache == sum(x.dtype.itemsize * x.size for x in jax.tree.leaves(kept))


def test_a_precision_that_there_is_not_is_named():
    with pytest.raises(UserError, match="precision 'int4' is none of float32, bfloat16, int8"):
        precision.cast(PARAMS, "int4")
    with pytest.raises(UserError, match="a model in bfloat16 cannot be saved: load it in float32"):
        precision.check_whole(precision.cast(PARAMS, "bfloat16"), "saved")
