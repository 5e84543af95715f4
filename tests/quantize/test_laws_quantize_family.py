"""One contract for every lookup in every arrangement: a new one earns its place by passing."""

from itertools import cycle, product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_quantizers import ARRANGEMENTS, DIM, LEVELS, LOOKUPS
from tiers import examples, tried

from rvq_jax import quantize as q

encode = jax.jit(q.encode, static_argnames=("levels", "beam"))
decode = jax.jit(q.decode)
train = jax.jit(
    lambda state, x, key, mask, per_level: q.quantize(
        state, x, key=key, train=True, mask=mask, per_level=per_level
    ),
    static_argnames="per_level",
)


# Each lookup in one arrangement and each arrangement with two lookups, every other one with the
# gradients of each level on its own, as those with a projection must; `-m wide` has all pairs in
# both ways, of which the slow tier has a fifth.
EACH_ONCE = zip(LOOKUPS, cycle(ARRANGEMENTS), cycle((False, True)), strict=False)
EACH_ONCE = [(name, how, way or name.startswith("projected")) for name, how, way in EACH_ONCE]
EVERY = [
    pair
    for pair in product(LOOKUPS, ARRANGEMENTS, (False, True))
    # Two options that clash: tests/quantize/test_quantize_options.py
    if pair[2] or not pair[0].startswith("projected")
]


@pytest.mark.parametrize(("lookup", "arrangement", "per_level"), tried(EACH_ONCE, EVERY, share=5))
@examples(6)
@given(seed=st.integers(0, 99))
def test_contract(lookup, arrangement, per_level, seed):
    """Training quantizes as encode and decode do; prefixes, batch and padding change nothing;
    the learned state has the shapes and types of the old, so no second compile."""
    batch = 3
    state = ARRANGEMENTS[arrangement](LOOKUPS[lookup], jax.random.key(seed))
    x = jax.random.normal(jax.random.key(seed + 1), (batch, 8, DIM))
    codes = encode(state, x)
    assert codes.shape == (batch, state.levels, 8) and codes.dtype == jnp.int32
    assert (codes >= 0).all() and (codes < state.size).all()
    decoded = decode(state, codes)
    mask = jnp.ones((batch, 8), bool)
    out = train(state, x, jax.random.key(0), mask, per_level)
    assert (out.codes == codes).all()
    np.testing.assert_allclose(out.latents, decoded, rtol=1e-4, atol=1e-4)
    assert all(np.isfinite(v).all() for v in jax.tree.leaves(out))
    assert jax.tree.map(jnp.shape, out.state) == jax.tree.map(jnp.shape, state)
    assert jax.tree.map(lambda v: v.dtype, out.state) == jax.tree.map(lambda v: v.dtype, state)
    # Another shape would be another program; other neighbours are not.
    assert (encode(state, x.at[1:].multiply(-2.0))[:1] == codes[:1]).all()
    # The groups of a level stay together.
    levels = 2
    assert (encode(state, x, levels=levels) == codes[:, :levels]).all()
    assert decode(state, codes[:, :levels]).shape == x.shape
    # A whole item of padding, whatever it holds, and three frames of padding in another.
    mask = jnp.arange(8)[None] < jnp.array([8, 4, 0])[:batch, None]
    junk = jnp.where(mask[..., None], x, jnp.nan)
    a, b = (train(state, y, jax.random.key(0), mask, per_level) for y in (x, junk))
    jax.tree.map(
        lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-4, atol=1e-5),
        (a.commitment, a.codebook, a.state),
        (b.commitment, b.codebook, b.state),
    )


WITHOUT_BOOKS = "simvq", "qinco", "fsq", "lfq", "projected fsq"
WITHOUT_TABLE = "qinco", "fsq", "lfq", "projected fsq"


def clash(lookup, learning, per_level, temperature):
    """Whether two of the options exclude each other, as the documentation has it."""
    replaces = isinstance(learning, q.EMA) or getattr(learning, "expiry", 0) > 0
    learns = not isinstance(learning, q.Frozen)
    return (
        (replaces and lookup in WITHOUT_BOOKS)
        or (lookup.startswith("projected") and learns and not per_level)
        or (temperature > 0 and lookup in WITHOUT_TABLE)
    )


@examples(15, fast=3)
@given(
    st.sampled_from(list(LOOKUPS)),
    st.sampled_from(list(ARRANGEMENTS)),
    st.sampled_from(
        [None, q.EMA(), q.EMA(expiry=0.0), q.Gradient(), q.Gradient(expiry=0.1), q.Frozen()]
    ),
    st.sampled_from([q.straight_through, q.rotation]),
    st.booleans(),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from([None, q.Dropout(), q.Dropout(1.0, per_batch=True)]),
)
def test_options_compose_or_say_which_two_clash(
    lookup, arrangement, learning, estimator, per_level, temperature, dropout
):
    """Whatever is chosen: finite values, codes in range, a gradient for the input, a learned state
    of the same form that encodes again; or an error, exactly where two options exclude another."""
    state = ARRANGEMENTS[arrangement](LOOKUPS[lookup], jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 8, DIM))

    def loss(x):
        out = q.quantize(
            state,
            x,
            key=jax.random.key(2),
            train=True,
            learning=learning,
            estimator=estimator,
            per_level=per_level,
            temperature=temperature,
            dropout=dropout,
        )
        return jnp.sum(out.latents**2) + out.commitment.sum() + out.codebook.sum(), out

    if clash(lookup, learning, per_level, temperature):
        with pytest.raises(ValueError, match=r"^\S+ and \S+ clash: "):
            loss(x)
        return
    grad, out = jax.grad(loss, has_aux=True)(x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((grad, out)))
    assert np.abs(grad).max() > 0
    assert out.codes.shape == (2, state.levels, 8)
    assert (out.codes >= 0).all() and (out.codes < state.size).all()
    assert jax.tree.map(jnp.shape, out.state) == jax.tree.map(jnp.shape, state)
    assert encode(out.state, x).shape == out.codes.shape


# Learning by means, by projection, by gradient alone, and without any.
LEARNERS = ("sizes", "projected", "qinco", "fsq")


@pytest.mark.parametrize("lookup", tried(LEARNERS, LOOKUPS))
def test_each_level_shrinks_what_is_left_and_has_a_gradient(lookup):
    """After training on the data itself, by its own rule of learning, the residual shrinks level
    by level, and the commitment of every level moves the input."""
    state = LOOKUPS[lookup](jax.random.key(0), LEVELS, DIM)
    x = jax.random.normal(jax.random.key(1), (4, 50, DIM))
    per_level = lookup.startswith("projected")

    def loss(state, x, key):
        out = q.quantize(state, x, key=key, train=True, per_level=per_level)
        error = jnp.mean((out.latents - x) ** 2)
        return out.codebook.sum() + out.commitment.sum() + error, out

    make_optimizer = optax.adam(0.03)

    @jax.jit
    def step(state, moments, key):
        grads, out = jax.grad(loss, has_aux=True, allow_int=True)(state, x, key)
        # Numbers of codes per level are integers: they have no gradient.
        grads = jax.tree.map(
            lambda g, p: g if g.dtype == p.dtype else jnp.zeros_like(p), grads, state
        )
        changes, moments = make_optimizer.update(grads, moments)
        return optax.apply_updates(out.state, changes), moments, out

    moments = make_optimizer.init(state)
    for i in range(60):
        state, moments, out = step(state, moments, jax.random.key(i))
    residual = np.asarray(out.stats.residual)
    assert residual[0] < out.stats.energy[0]
    assert residual[-1] < residual[0]
    grads_K = jax.jit(jax.jacrev(lambda x: q.quantize(state, x, per_level=per_level).commitment))(x)
    assert (np.abs(grads_K).max(axis=(1, 2, 3)) > 1e-6).all()


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_codes_out_of_range(lookup):
    """Outside jit an error that says where; inside, NaN: never another code's latents."""
    state = LOOKUPS[lookup](jax.random.key(0), LEVELS, DIM)
    codes = jnp.zeros((2, LEVELS, 4), int)
    limit = 4 if lookup == "sizes" else state.size
    for bad in (-1, state.size):
        wrong = codes.at[1, 2, 3].set(bad)
        with pytest.raises(ValueError, match=rf"codes of level 3 must be in 0\.\.{limit - 1}, got"):
            q.decode(state, wrong)
        nan = np.isnan(decode(state, wrong)).any(-1)
        assert nan[1, 3] and nan.sum() == 1


def numpy_level(name, lookup, k, residual, total):
    """One level of one lookup by its definition: every codeword against every vector."""
    if name == "fsq":
        points = np.stack(
            np.meshgrid(*[np.linspace(-1, 1, n) for n in lookup.grid[::-1]], indexing="ij"), -1
        )
        words = points.reshape(-1, lookup.dim)[:, ::-1] * np.asarray(lookup.scale)[k]
    elif name == "lfq":
        bits = (np.arange(lookup.size)[:, None] >> np.arange(lookup.dim)[::-1]) & 1
        words = (2 * bits - 1) * 0.5**k
    elif name == "simvq":
        words = np.asarray(lookup.frozen[k]) @ np.asarray(lookup.matrix[k])
    elif name == "shared":
        words = np.asarray(lookup.one.vectors[0])
    elif name == "qinco":
        base, down, up = (np.asarray(x[k]) for x in (lookup.base, lookup.inward, lookup.outward))
        context = total @ np.asarray(lookup.from_total[k])
        words = (base + base @ np.asarray(lookup.from_base[k]))[None] + context[:, None]
        for b in range(len(down)):
            words = words + np.maximum(words @ down[b], 0) @ up[b]
        return words
    else:
        words = np.asarray(lookup.vectors[k])
        if name == "sizes":
            words = words[: lookup.sizes[k]]
    return np.broadcast_to(words, (len(residual), *words.shape))


@pytest.mark.parametrize("name", [n for n in LOOKUPS if not n.startswith("projected")])
@examples(5)
@given(seed=st.integers(0, 99))
def test_codes_are_their_definition(name, seed):
    state = LOOKUPS[name](jax.random.key(seed), LEVELS, DIM)
    x = np.asarray(jax.random.normal(jax.random.key(seed + 1), (1, 40, DIM)))
    codes = np.asarray(encode(state, x))[0]
    residual = np.asarray(state.enter(x[0]), np.float64)
    total = np.zeros_like(residual)
    for k in range(LEVELS):
        words = numpy_level(name, state, k, residual, total)
        if name == "cosine":
            score = (words * residual[:, None]).sum(-1)
        else:
            score = -((words - residual[:, None]) ** 2).sum(-1)
        mine = np.take_along_axis(score, codes[k][:, None], 1)[:, 0]
        # Equal but for rounding: near ties may fall either way.
        np.testing.assert_allclose(mine, score.max(1), atol=1e-4)
        chosen = np.take_along_axis(words, codes[k][:, None, None], 1)[:, 0]
        residual, total = residual - chosen, total + chosen


def test_projected_is_its_definition():
    state = q.Projected.init(jax.random.key(0), 2, 16, DIM, code_dim=3)
    x = np.asarray(jax.random.normal(jax.random.key(1), (1, 40, DIM)))
    codes, residual = np.asarray(encode(state, x))[0], x[0]
    for k in range(2):
        inside = residual @ np.asarray(state.down[k]) + np.asarray(state.down_bias[k])
        words = np.asarray(state.inner.vectors[k])
        cosine = inside @ words.T
        mine = np.take_along_axis(cosine, codes[k][:, None], 1)[:, 0]
        np.testing.assert_allclose(mine, cosine.max(1), atol=1e-4)
        residual = residual - words[codes[k]] @ np.asarray(state.up[k])
    np.testing.assert_allclose(x[0] - decode(state, codes[None])[0], residual, atol=1e-4)


def test_strided_codes_repeat_and_compact():
    """A level of stride s changes only every s frames, and is the code of the group's mean."""
    state = q.Strided(q.init(jax.random.key(0), 3, 16, DIM), (4, 2, 1))
    x = jax.random.normal(jax.random.key(1), (2, 8, DIM))
    codes = encode(state, x)
    compact = state.compact(codes)
    assert [c.shape[1] for c in compact] == [2, 4, 8]
    assert (state.expand(compact) == codes).all()
    means = x.reshape(2, 2, 4, DIM).mean(2)
    assert (compact[0] == encode(state.books, means, levels=1)[:, 0]).all()
    with pytest.raises(ValueError, match="divide 6 frames"):
        q.encode(state, x[:, :6])


def test_entropy_loss_of_lfq_is_its_definition():
    state = q.LFQ.init(1, 3)
    x = np.asarray(0.02 * jax.random.normal(jax.random.key(0), (1, 30, 3)), np.float64)
    bits = (np.arange(8)[:, None] >> np.arange(3)[::-1]) & 1
    words = 2.0 * bits - 1
    logits = -100 * ((x[0][:, None] - words) ** 2).sum(-1)
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)

    def entropy(p):
        return -(p * np.log(np.maximum(p, 1e-30))).sum(-1)

    want = entropy(share).mean() - entropy(share.mean(0))
    got = jax.jit(q.quantize)(state, jnp.asarray(x, jnp.float32)).entropy[0]
    np.testing.assert_allclose(got, want, rtol=1e-3)
