"""Drawing codes: from the distribution that scoring gives, prompted, guided, tempered."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_lm import (
    CONFIG,
    KEY,
    PARAMS,
    TEXT,
    N,
    aligned_pattern,
    each_pattern,
    free,
    log2_table,
    of_text,
    random_codes,
)

from rvq_jax.lm.sampling import Sampling, sample
from rvq_jax.systems.decoding.programs import generate_codes, score_codes

COLD = Sampling(temperature=0.0)


def test_draws_do_not_depend_on_the_batch():
    """Row i draws from keys folded from i: neither its neighbours nor their number change it, and
    rows alike in caption still differ."""
    pattern = aligned_pattern("delay")
    both = generate_codes(CONFIG, PARAMS, pattern, of_text(TEXT), KEY, free(2))
    alone = generate_codes(CONFIG, PARAMS, pattern, of_text(TEXT[:1]), KEY, free(1))
    assert np.array_equal(alone.codes[0], both.codes[0])
    np.testing.assert_allclose(alone.bits[0], both.bits[0], atol=1e-4)
    twins = generate_codes(CONFIG, PARAMS, pattern, of_text(TEXT[[1, 1]]), KEY, free(2))
    assert np.array_equal(twins.codes[1], both.codes[1])
    assert not np.array_equal(twins.codes[0], twins.codes[1])


@each_pattern
def test_drawn_codes_cost_what_scoring_says(name):
    """Codes are in range, and the bits reported while drawing are those of scoring them after."""
    drawn = generate_codes(CONFIG, PARAMS, aligned_pattern(name), of_text(TEXT), KEY, free(2))
    assert ((np.asarray(drawn.codes) >= 0) & (np.asarray(drawn.codes) < N)).all()
    whole = score_codes(CONFIG, PARAMS, aligned_pattern(name), drawn.codes, of_text(TEXT))
    np.testing.assert_allclose(drawn.bits, whole, atol=1e-4, rtol=0)


@each_pattern
def test_a_prompt_is_kept_and_conditions_the_rest(name):
    """Forced codes come back as they were, and the rest is drawn given them."""
    prompt, codes = free(2), random_codes(2)
    prompt[:, :, :2] = codes[:, :, :2]
    drawn = generate_codes(CONFIG, PARAMS, aligned_pattern(name), of_text(TEXT), KEY, prompt)
    assert np.array_equal(drawn.codes[:, :, :2], codes[:, :, :2])
    whole = score_codes(CONFIG, PARAMS, aligned_pattern(name), drawn.codes, of_text(TEXT))
    np.testing.assert_allclose(drawn.bits, whole, atol=1e-4, rtol=0)


@each_pattern
def test_temperature_0_takes_the_likeliest_code(name):
    """No other value of any drawn code costs less, and the key has no say."""
    pattern = aligned_pattern(name)
    drawn = generate_codes(CONFIG, PARAMS, pattern, of_text(TEXT), KEY, free(2), sampling=COLD)
    other = generate_codes(
        CONFIG, PARAMS, pattern, of_text(TEXT), jax.random.key(9), free(2), sampling=COLD
    )
    assert np.array_equal(drawn.codes, other.codes)
    table = log2_table(PARAMS, pattern, np.asarray(drawn.codes[0]), TEXT[0])
    chosen = np.take_along_axis(table, np.asarray(drawn.codes[0])[..., None], axis=2)[..., 0]
    assert (chosen >= table.max(axis=2) - 1e-5).all()


@each_pattern
def test_guidance_is_its_definition(name):
    """Guided bits are those of null + guidance · (caption - null), normalized again; with
    guidance 1 that is the model without guidance."""
    pattern, codes = aligned_pattern(name), random_codes(2)
    decode = functools.partial(generate_codes, CONFIG, PARAMS, pattern, of_text(TEXT), KEY, codes)
    plain = decode()
    np.testing.assert_allclose(decode(guidance=1.0).bits, plain.bits, atol=1e-4, rtol=0)
    conditional = log2_table(PARAMS, pattern, codes[0], TEXT[0])
    null = log2_table(PARAMS, pattern, codes[0], np.zeros_like(TEXT[0]))
    guided = null + 2.5 * (conditional - null)
    guided -= np.log2((2.0**guided).sum(axis=2, keepdims=True))
    want = -np.take_along_axis(guided, codes[0][..., None], axis=2)[..., 0]
    np.testing.assert_allclose(decode(guidance=2.5).bits[0], want, atol=1e-3)


LOGITS = np.array([0.3, 2.0, -1.0, 1.4, 0.9, -3.0, 1.1], np.float32)


def allowed(logits: np.ndarray, top_k: int, top_p: float) -> np.ndarray:
    """The definition: the k largest, and of them the fewest whose probability reaches p."""
    order = np.argsort(-logits)[: top_k or None]
    p = np.exp(logits[order]) / np.exp(logits[order]).sum()
    update = np.zeros(len(logits), bool)
    mass = 0.0
    for i, share in zip(order, p, strict=True):
        if top_p and mass >= top_p:
            break
        update[i] = True
        mass += share
    return update


@pytest.mark.parametrize(
    ("top_k", "top_p", "temperature"),
    [(0, 0.0, 1.0), (3, 0.0, 1.0), (0, 0.6, 0.7), (3, 0.45, 1.0), (1, 0.0, 1.0), (99, 1.0, 2.0)],
)
def test_draws_have_the_frequencies_of_what_is_allowed(top_k, top_p, temperature):
    """Nothing outside the allowed set is ever drawn, and inside it frequencies follow the
    softmax, up to the noise of 20000 draws (four standard deviations)."""
    count = 20_000
    keys = jax.random.split(jax.random.key(0), count)
    many = jax.jit(jax.vmap(lambda key, how: sample(key, jnp.asarray(LOGITS), how), (0, None)))
    seen = (
        np.bincount(many(keys, Sampling(temperature, top_k, top_p)), minlength=len(LOGITS)) / count
    )
    update = allowed(LOGITS / temperature, top_k, top_p)
    p = np.where(update, np.exp(LOGITS / temperature), 0.0)
    p /= p.sum()
    assert (seen[~update] == 0).all()
    assert (np.abs(seen - p) <= 4 * np.sqrt(p * (1 - p) / count) + 1e-9).all()
    assert (np.asarray(many(keys[:50], COLD)) == LOGITS.argmax()).all()
