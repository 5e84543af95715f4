"""Masked parallel decoding of a toy model, against plain loops."""

import functools
import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvq_jax.lm import masked
from rvq_jax.lm.masked_score import order_bound
from rvq_jax.lm.sampling import PLAIN, Sampling
from rvq_jax.lm.schedule import masked_share, timetable

K, F, N, B = 3, 7, 5, 4
LENGTHS = np.array([7, 4, 7, 1])
KEYS = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(5), jnp.arange(B))
# What each token at each place adds to the logits [F, N] of level q.
TABLE = (np.random.default_rng(0).normal(size=(K, K, F, N + 1, F, N)) / 2).astype(np.float32)
INSIDE = np.arange(F)[None] < LENGTHS[:, None]
WHOLE = np.broadcast_to(INSIDE[:, None], (B, K, F))
ITERATIONS = F * K  # of all timetables here: one program
ORDER = np.random.default_rng(2).permuted(np.tile(np.arange(F), (B, K, 1)), axis=2)


def toy(tokens_BKF, level, weight, lengths):
    """A model in which every code sees all tokens of its row."""
    weight = 1.0 if weight is None else weight
    k, f = jnp.ogrid[:K, :F]
    added_BKFFN = jnp.asarray(TABLE)[level][k[None], f[None], tokens_BKF]
    inside_BF = jnp.arange(F)[None] < lengths[:, None]
    return weight * jnp.where(inside_BF[:, None, :, None, None], added_BKFFN, 0.0).sum((1, 2))


def row_logits(tokens_KF: np.ndarray, level: int, length: int) -> np.ndarray:
    """The same of one row, in plain numpy."""
    total = np.zeros((F, N), np.float32)
    for k in range(K):
        for f in range(length):
            total += TABLE[level, k, f, tokens_KF[k, f]]
    return total


def given() -> np.ndarray:
    """A prompt, a whole level, codes in the middle, nothing."""
    forced = np.full((B, K, F), -1, np.int32)
    codes = np.random.default_rng(1).integers(0, N, forced.shape)
    forced[0, :, :2] = codes[0, :, :2]
    forced[1, 0, :4] = codes[1, 0, :4]
    forced[2, :, 3:5] = codes[2, :, 3:5]
    forced[2, 1, 6] = codes[2, 1, 6]
    return forced


SEEN = []  # levels, and what the model is shown at each iteration


@functools.partial(jax.jit, static_argnames=("span", "show_prompts"))
def program(table, forced, lengths, keys, order, ordered, sampling, span, show_prompts):
    def logits_of(tokens, level, weight):
        jax.debug.callback(lambda *x: SEEN.append(x), level, tokens, ordered=True)
        return toy(tokens, level, weight, lengths)

    def confidence(tokens, level, log_p):
        return jnp.where(ordered, -order[:, level].astype(jnp.float32), log_p)

    how = {"sampling": sampling, "span": span, "show_prompts": show_prompts}
    return masked.decode(logits_of, table, forced, lengths, keys, N, confidence=confidence, **how)


def run(table, forced, rows=slice(None), ordered=False, sampling=PLAIN, span=1, show_prompts=True):
    SEEN.clear()
    args = forced, LENGTHS[rows], KEYS[rows], ORDER[rows], ordered, sampling, span, show_prompts
    found = program(table, *args)
    jax.effects_barrier()
    return jax.tree.map(np.asarray, found)


@functools.cache
def gumbels(i: int, f: int, size: int | None) -> np.ndarray:
    """Of all rows, at an iteration and a position: for codes, or for a confidence."""
    number = 2 * f + (size is None)
    keys = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, i), number))(KEYS)
    shape = () if size is None else (size,)
    return np.asarray(jax.vmap(lambda key: jax.random.gumbel(key, shape))(keys))


def draw(row: int, i: int, f: int, logits_N: np.ndarray) -> int:
    """What is sampled by a row at an iteration and a position."""
    return int((logits_N + gumbels(i, f, N)[row]).argmax())


def cost(logits_N: np.ndarray, code: int) -> float:
    top = logits_N.max()
    return float((top + np.log(np.exp(logits_N - top).sum()) - logits_N[code]) / math.log(2))


def test_one_position_at_an_iteration_is_an_autoregressive_decode_in_that_order():
    """Of each row in an order of its own: every code is sampled given all that came before."""
    table = timetable((F,) * K, "linear", greedy_last=False, guidance=1.0)
    forced = given()
    got = run(table, forced, ordered=True)
    for b, length in enumerate(LENGTHS):
        codes, bits = np.where(forced[b] < 0, N, forced[b]), np.zeros((K, F))
        prompt = (forced[b] >= 0).all(axis=0)
        for k in range(K):
            places = [f for f in np.argsort(ORDER[b, k]) if f < length and codes[k, f] == N]
            # A row of fewer positions fixes none at some iterations.
            left = [max(1, math.floor(Fraction(len(places) * i, F))) for i in range(F, 0, -1)] + [0]
            fixes = [i for i in range(F) if places and left[i + 1] < left[i]]
            for f, i in zip(places, fixes, strict=True):
                tokens = np.where((np.arange(K)[:, None] > k) & ~prompt, N, codes)
                logits = row_logits(tokens, k, length)[f]
                codes[k, f] = draw(b, k * F + i, f, logits)
                bits[k, f] = cost(logits, codes[k, f])
        assert np.array_equal(got.codes[b, :, :length], codes[:, :length])
        np.testing.assert_allclose(got.bits[b], bits, atol=1e-4)


def plainly(table, forced, span: int, show_prompts: bool, top_k: int):
    """All of it in loops over rows, iterations, positions and spans."""
    codes, bits = np.where(forced < 0, N, forced), np.zeros(forced.shape)
    for b, length in enumerate(LENGTHS):
        wanted = (forced[b] < 0) & (np.arange(F) < length)
        codes[b, :, length:] = N
        prompt = (forced[b] >= 0).all(axis=0) & show_prompts
        for i, k in enumerate(table.level):
            tokens = np.where((np.arange(K)[:, None] > k) & ~prompt, N, codes[b])
            logits = table.guidance[i] * row_logits(tokens, k, length)
            surest = {}
            for f in np.flatnonzero(wanted[k] & (codes[b, k] == N)):
                if table.temperature[i] == 0:
                    code = int(logits[f].argmax())
                else:
                    warm = logits[f] / table.temperature[i]
                    code = draw(b, i, f, np.where(warm < np.sort(warm)[-top_k or 0], -1e9, warm))
                codes[b, k, f], bits[b, k, f] = code, cost(logits[f], code)
                sure = -cost(logits[f] / table.score_temperature[i], code) * math.log(2)
                surest[f // span] = max(sure, surest.get(f // span, -np.inf))
            noisy = {
                s: x + table.noise[i] * gumbels(i, s * span, None)[b] for s, x in surest.items()
            }
            total = len({f // span for f in np.flatnonzero(wanted[k])})
            budget = max(1, math.floor(float(table.share[i]) * total + 1e-6))
            for s in sorted(noisy, key=noisy.get)[: 0 if table.last[i] else budget]:
                for f in range(s * span, min(F, (s + 1) * span)):
                    codes[b, k, f] = N if wanted[k, f] else codes[b, k, f]
    return np.where(codes == N, 0, codes), bits


@pytest.mark.parametrize(
    "span, show_prompts, top_k, magnet",
    [(1, True, 0, False), (1, True, 0, True), (3, False, 2, True)],
)
def test_decoding_is_its_definition(span, show_prompts, top_k, magnet):
    """Sampling, confidence with noise, budgets of each row and level, prompts, spans, guidance."""
    table = timetable(
        (12, 6, 3),
        temperature=3.0 if magnet else 1.5,
        anneal=magnet,
        tempered_confidence=magnet,
        endpoint=magnet,
        confidence_temperature=2.0,
        guidance=(2.0, 1.0),
    )
    how = {"sampling": Sampling(top_k=top_k), "span": span, "show_prompts": show_prompts}
    got = run(table, given(), **how)
    codes, bits = plainly(table, given(), span, show_prompts, top_k)
    assert np.array_equal(got.codes, codes)
    np.testing.assert_allclose(got.bits, bits, atol=1e-4)


def test_the_model_is_shown_what_training_shows_it():
    """Above its level mask ids but for prompts, which are whole frames, also where codes are given;
    below it codes; of the level as many masks as the budget says, and never a place again that has
    been fixed. What is given stays, and in the end nothing is masked."""
    forced, counts = given(), (12, 6, 3)
    out = run(timetable(counts, confidence_temperature=3.0, guidance=1.0), forced)
    prompt, seen = (forced >= 0).all(axis=1), [(int(k), np.asarray(x)) for k, x in SEEN]
    for level, count in enumerate(counts):
        tokens_of = [tokens for k, tokens in seen if k == level]
        assert len(tokens_of) == count
        known = forced[:, level] >= 0
        total = (INSIDE & ~known).sum(axis=1)
        before = np.full((B, F), N)
        for i, tokens in enumerate(tokens_of):
            assert ((tokens == N) != prompt[:, None])[:, level + 1 :].all()
            assert (tokens < N)[:, :level][WHOLE[:, :level]].all()
            own = tokens[:, level]
            assert (own == forced[:, level])[known].all() and (own == before)[before < N].all()
            left = np.floor(np.cos(np.pi / 2 * i / count) * total + 1e-9)
            masked_B = ((own == N) & INSIDE).sum(axis=1)
            assert np.array_equal(masked_B, np.minimum(total, np.maximum(left, 1)))
            before = own
    assert (out.codes == forced)[forced >= 0].all() and (out.codes < N).all()
    assert (out.bits > 0)[WHOLE & (forced < 0)].all()
    assert not out.bits[~WHOLE | (forced >= 0)].any() and not out.codes[~WHOLE].any()


def test_rows_depend_on_nothing_but_themselves():
    """In another place of the batch, beside others, they are the same."""
    table, rows = (
        timetable((12, 6, 3), confidence_temperature=1.0, guidance=1.0),
        np.array([2, 2, 0, 1]),
    )
    first, second = run(table, given()), run(table, given()[rows], rows)
    assert np.array_equal(first.codes[rows], second.codes)
    np.testing.assert_allclose(first.bits[rows], second.bits, atol=1e-5)


def test_eight_devices_sample_what_one_does():
    """Each with rows of its own."""
    rows = np.repeat(np.arange(B), 2)
    table = timetable((12, 6, 3), confidence_temperature=1.0, guidance=1.0)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("data"))
    forced, lengths, keys = jax.device_put((given()[rows], LENGTHS[rows], KEYS[rows]), split)

    @jax.jit
    def many(forced, lengths, keys):
        return masked.decode(lambda *x: toy(*x, lengths), table, forced, lengths, keys, N)

    found, one = many(forced, lengths, keys), run(table, given())
    assert len(found.codes.sharding.device_set) == 8
    assert np.array_equal(found.codes, one.codes[rows])
    np.testing.assert_allclose(found.bits, one.bits[rows], atol=1e-4)


def test_the_bound_is_above_the_exact_bits_of_the_same_model():
    """A row of four frames: the probability of a level is a mean over all orders. The mean of their
    bits is above that one's, and what samples of the bound are around. A row of one frame has one
    order: each sample is its bits."""
    codes, samples, frames = np.random.default_rng(4).integers(0, N, (B, K, F)), 300, 4

    @jax.jit
    def bound(codes):
        lengths = jnp.asarray(LENGTHS)
        return order_bound(lambda *x: toy(*x, lengths), codes, lengths, KEYS, samples, N)

    found = np.asarray(bound(codes))
    assert found.shape == (samples, B, K)

    def bits(row: int, level: int, hidden: tuple, f: int) -> float:
        tokens = np.where(np.arange(K)[:, None] > level, N, codes[row])
        tokens[level, list(hidden)] = N
        return cost(row_logits(tokens, level, LENGTHS[row])[f], codes[row, level, f])

    for level in range(K):
        np.testing.assert_allclose(found[:, 3, level], bits(3, level, (0,), 0), rtol=1e-4)
        of = functools.cache(functools.partial(bits, 1, level))
        orders = list(itertools.permutations(range(frames)))
        costs = [sum(of(tuple(sorted(o[i:])), o[i]) for i in range(frames)) for o in orders]
        exact, above = -np.log2(np.mean(2.0 ** -np.array(costs))), np.mean(costs)
        error = found[:, 1, level].std() / math.sqrt(samples)
        assert above > exact + 0.01
        assert abs(found[:, 1, level].mean() - above) < 4 * error
        assert found[:, 1, level].mean() + 4 * error > exact


def test_another_schedule_is_the_same_program():
    """All iterations of one number share it, whichever levels they are of."""
    forced = np.full((B, K, F), -1, np.int32)
    forced[:, 0] = 0
    run(timetable((19, 1, 1), guidance=1.0), forced)
    before = program._cache_size()
    for table in (
        timetable((9, 6, 6), "linear", temperature=0.5, anneal=True, guidance=3.0),
        timetable((1, 5, 15), "power", power=3.0, endpoint=True, guidance=(5.0, 1.0)),
        timetable((20, 1), first=1, greedy_last=False, confidence_temperature=4.0, guidance=1.0),
    ):
        run(table, forced, sampling=Sampling(top_p=0.9))
    assert program._cache_size() == before


def test_what_is_masked_falls_from_all_to_nothing():
    u = np.linspace(0, 1, 11)
    for schedule in ("cosine", "linear", "power"):
        share = masked_share(schedule, u)
        assert share[0] == 1 and abs(share[-1]) < 1e-12 and (np.diff(share) < 0).all()
        np.testing.assert_allclose(masked_share(schedule, jnp.asarray(u)), share, atol=1e-6)
    np.testing.assert_allclose(masked_share("power", u, 3.0), 1 - u**3)
    np.testing.assert_allclose(masked_share("cosine", np.array([2 / 3])), 0.5)


def test_a_timetable_of_magnet():
    """Shares at the beginning of each iteration, temperatures, weights of guidance, as published
    (Ziv et al. 2024), written as loops."""
    table = timetable(
        (4, 2),
        temperature=3.0,
        anneal=True,
        endpoint=True,
        tempered_confidence=True,
        guidance=(10.0, 1.0),
    )
    i = 0
    for level, count in enumerate((4, 2)):
        for step in range(count):
            masked_p = math.cos(step / (count - 1) * math.pi / 2)
            assert table.level[i] == level and table.last[i] == (step == count - 1)
            if step:
                np.testing.assert_allclose(table.share[i - 1], masked_p, atol=1e-6)
            warmth = 3.0 * (count - 1 - step) / count
            np.testing.assert_allclose(table.temperature[i], warmth, rtol=1e-6)
            np.testing.assert_allclose(table.score_temperature[i], max(warmth, 1e-2), rtol=1e-6)
            np.testing.assert_allclose(table.guidance[i], 10 * masked_p + (1 - masked_p), rtol=1e-5)
            i += 1
    assert i == len(table.level) and not table.noise.any()


@pytest.mark.parametrize(
    "args, options, say",
    [
        (((16, 0, 1),), {}, "at least 1 iteration"),
        (((),), {}, "at least 1 iteration"),
        (((1,), "sine"), {}, "cosine, linear or power"),
        (((1,),), {"first": -1}, "levels begin at 0"),
        (((1,),), {"temperature": -1.0}, "at least 0"),
        (((1,),), {"confidence_temperature": -1.0}, "at least 0"),
    ],
)
def test_a_timetable_that_cannot_be_is_refused(args, options, say):
    with pytest.raises(ValueError, match=say):
        timetable(*args, **options)
