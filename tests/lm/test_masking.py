"""What training hides: SoundStorm's masks and MAGNeT's, against plain numpy."""

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvq_jax.lm import masking

K, F, ROWS, SPAN = 4, 20, 2000, 3
LENGTHS = np.where(np.arange(ROWS) % 2, F, 13)
KEY = jax.random.key(0)
INSIDE = np.arange(F)[None] < LENGTHS[:, None]


@functools.partial(jax.jit, static_argnums=0)
def program(kind, index, lengths):
    options = (SPAN,) if kind == "span_masks" else ()
    return getattr(masking, kind)(masking.record_keys(KEY, index), lengths, K, F, *options)


def drawn(kind: str, index: np.ndarray, lengths: np.ndarray) -> masking.Masks:
    return jax.tree.map(np.asarray, program(kind, index, lengths))


MASKS = {kind: drawn(kind, np.arange(ROWS), LENGTHS) for kind in ("bernoulli_masks", "span_masks")}


def shares(values: np.ndarray, want: float) -> bool:
    """Whether a mean is what it should be, up to four standard deviations."""
    return abs(values.mean() - want) < 4 * values.std() / math.sqrt(len(values))


@pytest.mark.parametrize("kind", MASKS)
def test_of_its_level_what_is_scored_is_hidden_above_it_all_but_prompts_below_it_nothing(kind):
    level, hidden, scored = MASKS[kind]
    rows = np.arange(ROWS)
    assert np.array_equal(hidden[rows, level], scored) and not (scored & ~INSIDE).any()
    k = np.arange(K)[None]
    assert not hidden[k < level[:, None]].any()
    above = hidden[k > level[:, None]]
    # One border for all levels above, at its left the prompt.
    assert (np.diff(above.astype(int), axis=1) >= 0).all() and above[:, -1].all()
    assert np.array_equal(np.bincount(level) > ROWS / K * 0.8, np.full(K, True))
    if kind == "span_masks":
        assert above.all()


@pytest.mark.parametrize("kind", MASKS)
def test_a_records_masks_are_its_own(kind):
    """Whatever its batch; another key or another record has others."""
    some = np.random.default_rng(0).integers(0, ROWS, ROWS)
    for whole, part in zip(MASKS[kind], drawn(kind, some, LENGTHS[some]), strict=True):
        assert np.array_equal(whole[some], part)
    assert len({row.tobytes() for row in MASKS[kind].scored}) > ROWS / 4


def test_soundstorms_masks_are_as_published():
    """Prompts uniform on 0 … length - 1; after them each place with probability cos(u pi / 2), on
    average 2 / pi, one u for a row: the variance of the share is that of cos and of the draws."""
    level, hidden, scored = MASKS["bernoulli_masks"]
    some = level < K - 1
    prompt = F - hidden[:, -1].sum(axis=1)
    for length in (13, F):
        rows = some & (length == LENGTHS)
        assert np.array_equal(np.unique(prompt[rows]), np.arange(length))
        assert shares(prompt[rows], (length - 1) / 2)
    begin = np.where(some, prompt, 0)
    assert not scored[np.arange(F)[None] < begin[:, None]].any()
    left = (LENGTHS - prompt)[some]
    share = scored.sum(axis=1)[some] / left
    assert shares(share, 2 / math.pi)
    want = 0.5 - (2 / math.pi) ** 2 + (2 / math.pi - 0.5) * np.mean(1 / left)
    assert share.var() == pytest.approx(want, rel=0.1)


def test_valles_masks_are_whole_levels_after_a_prompt():
    """Of every level but the first, prompts uniform on 0 … length - 1."""
    keys = masking.record_keys(KEY, jnp.arange(ROWS))
    draw = functools.partial(masking.bernoulli_masks, first=1, whole=True)
    masks = jax.jit(draw, static_argnums=(2, 3))(keys, LENGTHS, K, F)
    level, hidden, scored = map(np.asarray, masks)
    assert np.array_equal(np.unique(level), np.arange(1, K))
    prompt = LENGTHS - scored.sum(axis=1)
    after = np.arange(F)[None] >= prompt[:, None]
    np.testing.assert_array_equal(scored, after & INSIDE)
    for k in range(K):
        np.testing.assert_array_equal(hidden[k < level, k], False)
        np.testing.assert_array_equal(hidden[k == level, k], scored[k == level])
        np.testing.assert_array_equal(hidden[k > level, k], after[k > level])
    for length in (13, F):
        own = prompt[length == LENGTHS]
        assert np.array_equal(np.unique(own), np.arange(length)) and shares(own, (length - 1) / 2)


def test_magnets_masks_are_spans_as_many_as_reach_the_share():
    """Each row of its own draws, in plain numpy: the fewest spans whose mean share, by binomials,
    reaches cos(u pi / 2), at distinct places."""
    scored = MASKS["span_masks"].scored
    for row in range(0, ROWS, 100):
        length = int(LENGTHS[row])
        _, share_key, place_key = jax.random.split(jax.random.fold_in(KEY, row), 3)
        share = math.cos(float(jax.random.uniform(share_key)) * math.pi / 2)
        spans = 1
        while 1 - Fraction(math.comb(length - SPAN, spans), math.comb(length, spans)) < share:
            spans += 1
        order = np.argsort(np.asarray(jax.random.uniform(place_key, (F,)))[:length])
        want = np.zeros(F, bool)
        for begin in order[:spans]:
            want[begin : min(begin + SPAN, length)] = True
        assert np.array_equal(scored[row], want)


def test_mean_shares_are_those_of_spans_placed_at_random():
    """By counting all ways to place them, on a circle as the formula has it."""
    length, span = 7, 3
    got = np.asarray(masking.mean_shares(jnp.asarray(length), 9, span))
    for spans in range(10):
        ways = math.comb(length - span, spans) / math.comb(length, spans) if spans <= length else 0
        assert got[spans] == pytest.approx(1 - ways, abs=1e-6)
    assert np.asarray(masking.mean_shares(jnp.asarray(2), 9, span))[1:].min() == 1


def test_uniform_masks_have_every_number_as_often():

    @jax.jit
    def uniform(lengths):
        keys = masking.record_keys(KEY, jnp.arange(ROWS))
        return masking.uniform_masks(keys, lengths, jnp.full(ROWS, 1), K, F)

    _, hidden, scored = uniform(LENGTHS)
    count = np.asarray(scored).sum(axis=1)
    for length in (13, F):
        assert np.array_equal(np.unique(count[length == LENGTHS]), np.arange(1, length + 1))
        assert shares(count[length == LENGTHS], (length + 1) / 2)
    assert not (np.asarray(scored) & ~INSIDE).any()
    assert np.array_equal(hidden[:, 1], scored) and hidden[:, 2:].all() and not hidden[:, 0].any()
    places = np.asarray(scored)[LENGTHS == F].mean(axis=0)
    assert np.abs(places - (F + 1) / 2 / F).max() < 4 * 0.5 / math.sqrt(ROWS / 2)
