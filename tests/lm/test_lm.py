"""Token models: one distribution over codes, whichever way it is computed."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from small_lm import (
    CAPTIONS,
    CONFIG,
    KEY,
    PARAMS,
    SIX,
    TEXT,
    F,
    K,
    N,
    aligned_pattern,
    draw,
    each_pattern,
    free,
    log2_table,
    of_text,
    random_codes,
)

from rvq_jax.lm import transformer
from rvq_jax.lm.model import LMConfig
from rvq_jax.lm.text_bytes import to_bytes
from rvq_jax.systems.decoding.programs import generate_codes, score_codes


@pytest.mark.parametrize("positions", ["rotary", "sinusoidal"])
@each_pattern
def test_scoring_at_once_is_decoding_step_by_step(name, positions):
    """Both forms of every layer, the caches and the pattern's two maps must agree for the bits of
    the same codes to agree: what is measured is what generation would draw from."""
    codes, pattern = random_codes(2), aligned_pattern(name)
    config = dataclasses.replace(CONFIG, positions=positions)
    whole = score_codes(config, PARAMS, pattern, codes, of_text(TEXT))
    steps = generate_codes(config, PARAMS, pattern, of_text(TEXT), KEY, codes)
    assert (np.asarray(steps.codes) == codes).all()
    np.testing.assert_allclose(steps.bits, whole, atol=1e-4, rtol=0)


def test_turned_heads_match_by_distance_alone():
    """In complex numbers, feature i with i + D / 2 turns by t · 10000^(-2i / D): products of a
    query at s and a key at t are those at s + 1000 and t + 1000, and numpy's (Su et al. 2021)."""
    rng, dim = np.random.default_rng(0), 8
    q, k = rng.normal(size=(2, dim)).astype(np.float32)
    angles = 10000.0 ** (-2 * np.arange(dim // 2) / dim)
    z, w = (x[: dim // 2] + 1j * x[dim // 2 :] for x in (q, k))

    def product(s: int, t: int) -> float:
        rope_angles = transformer.rope_angles(2000, dim)[[s, t]].astype(np.float32)
        turned = transformer.rotate(jnp.stack([q, k])[None, None], rope_angles[None])[0, 0]
        return float(turned[0] @ turned[1])

    for s, t in ((0, 0), (5, 5), (9, 2), (700, 3)):
        want = (z * np.exp(1j * angles * (s - t)) * w.conj()).sum().real
        assert product(s, t) == pytest.approx(want, abs=1e-3)
        assert product(s + 1000, t + 1000) == pytest.approx(want, abs=1e-3)


def test_six_patterns_of_one_shape_are_one_compile_each():
    """Tables are arguments, so the second to the sixth pattern add no program. The odd batch
    makes the shape new to both caches."""
    codes, text = random_codes(3), to_bytes(["a", "b", ""], CONFIG.caption_bytes)
    before = score_codes._cache_size(), generate_codes._cache_size()
    for name in SIX:
        score_codes(CONFIG, PARAMS, aligned_pattern(name), codes, of_text(text))
        generate_codes(CONFIG, PARAMS, aligned_pattern(name), of_text(text), KEY, free(3))
    assert (score_codes._cache_size(), generate_codes._cache_size()) == (
        before[0] + 1,
        before[1] + 1,
    )


@each_pattern
def test_bits_depend_on_exactly_the_codes_that_are_visible(name):
    """Another value in one place moves the bits of those codes that may see it, all of them, and
    of no other: nothing leaks from the future, and nothing of the past is lost."""
    pattern, base = aligned_pattern(name), random_codes(1)[0]
    rows = np.tile(base, (1 + K * F, 1, 1)).reshape(1 + K * F, K * F)
    places = np.arange(K * F)
    rows[1 + places, places] = (rows[1 + places, places] + 1) % N
    text = np.tile(TEXT[:1], (len(rows), 1))
    bits = score_codes(CONFIG, PARAMS, pattern, rows.reshape(-1, K, F), of_text(text))
    bits = np.asarray(bits).reshape(len(rows), K * F)
    moved = np.abs(bits[1:] - bits[0]).T > 1e-5  # [the code whose bits, the code changed]
    np.fill_diagonal(moved, False)
    assert (moved == pattern.visible().reshape(K * F, K * F)).all()


@each_pattern
def test_the_values_of_a_code_share_one_probability(name):
    """Over all values of one code, the others fixed, probabilities sum to 1."""
    table = log2_table(PARAMS, aligned_pattern(name), random_codes(1)[0], TEXT[0])
    np.testing.assert_allclose((2.0**table).sum(axis=2), 1.0, atol=1e-5)


def test_every_pattern_is_a_distribution_over_sequences():
    """Summed over all 3^4 sequences, 2 to the minus bits is 1: total bits are then comparable
    between patterns, as a proper code length is."""
    config = LMConfig(
        levels=2, codebook_size=3, dim=16, layers=1, heads=2, mlp_dim=32, caption_bytes=4
    )
    codes = np.indices((3,) * 4).reshape(4, -1).T.reshape(-1, 2, 2).astype(np.int32)
    text, PARAMS = np.zeros((len(codes), 4), np.int32), draw(config)
    for name in SIX:
        bits = score_codes(config, PARAMS, aligned_pattern(name, 2, 2), codes, of_text(text))
        assert np.sum(2.0 ** -np.asarray(bits, np.float64).sum((1, 2))) == pytest.approx(1.0, 1e-5)


def test_a_masked_frame_costs_nothing_and_its_codes_are_not_seen():
    """Padding holds arbitrary codes; no bit may depend on which."""
    mask = np.arange(F)[None] < np.array([[F], [3]])
    codes, other = random_codes(2), random_codes(2, seed=1)
    other = np.where(mask[:, None], codes, other)
    for name in SIX:
        a, b = (
            score_codes(CONFIG, PARAMS, aligned_pattern(name), x, of_text(TEXT), mask)
            for x in (codes, other)
        )
        assert np.array_equal(a, b)
        assert (np.asarray(a)[1, :, 3:] == 0).all() and (np.asarray(a)[1, :, :3] > 0).all()
        whole = score_codes(CONFIG, PARAMS, aligned_pattern(name), codes, of_text(TEXT))
        np.testing.assert_allclose(a[0], whole[0], atol=1e-5)


def test_a_caption_is_the_same_in_any_padding():
    """Positions that hold no byte are masked in the encoder and in every cross-attention."""
    codes, pattern = random_codes(2), aligned_pattern("delay")
    wide = score_codes(CONFIG, PARAMS, pattern, codes, of_text(to_bytes(CAPTIONS, 32)))
    np.testing.assert_allclose(
        score_codes(CONFIG, PARAMS, pattern, codes, of_text(TEXT)), wide, atol=1e-5
    )
    swapped = score_codes(CONFIG, PARAMS, pattern, codes, of_text(TEXT[::-1]))
    assert np.abs(np.asarray(swapped) - wide).max() > 1e-3, "captions have no effect"


def test_no_caption_is_the_null_condition():
    """An empty caption attends to nothing but its zeros: finite bits, however long the padding."""
    codes, pattern = random_codes(2), aligned_pattern("delay")
    null = score_codes(CONFIG, PARAMS, pattern, codes, of_text(to_bytes(["", ""], 16)))
    assert np.isfinite(null).all()
    np.testing.assert_allclose(
        score_codes(CONFIG, PARAMS, pattern, codes, of_text(to_bytes(["", ""], 32))),
        null,
        atol=1e-5,
    )


def test_captions_are_cut_in_bytes_and_never_hold_the_padding_id():
    """Id 0 means no byte, so even a caption with a zero byte keeps its length."""
    text = to_bytes(["ab\0", "é", "abcdefgh", ""], 5)
    assert text.tolist() == [
        [98, 99, 1, 0, 0],
        [0xC3 + 1, 0xA9 + 1, 0, 0, 0],
        [98, 99, 100, 101, 102],
        [0] * 5,
    ]


def test_scores_do_not_depend_on_the_batch():
    """A row alone has the bits it has among others."""
    codes, pattern = random_codes(2), aligned_pattern("delay")
    both = score_codes(CONFIG, PARAMS, pattern, codes, of_text(TEXT))
    for i in range(2):
        alone = score_codes(CONFIG, PARAMS, pattern, codes[i : i + 1], of_text(TEXT[i : i + 1]))
        np.testing.assert_allclose(alone[0], both[i], atol=1e-5)
