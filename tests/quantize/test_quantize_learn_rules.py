"""Rules of learning: shared and shorter codebooks, gradients with and without replacement."""

import jax
import numpy as np
import pytest

from rvq_jax import quantize as q

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 12, 6))


def books(levels=3, size=16, dim=6):
    return q.init(KEY, levels, size, dim)


def test_a_shared_codebook_learns_from_every_level():
    """Its means are those of all levels' inputs together, in plain numpy."""
    state = q.Shared.init(KEY, 3, 8, 6)
    rule = q.EMA(decay=0.9, expiry=0.0)
    out = q.quantize(state, X, key=KEY, train=True, learning=rule)
    codes = np.asarray(out.codes).transpose(1, 0, 2).reshape(3, -1)
    residual, seen, chosen = np.asarray(X.reshape(-1, 6)), [], []
    for k in range(3):
        seen.append(residual)
        chosen.append(codes[k])
        residual = residual - np.asarray(state.one.vectors[0])[codes[k]]
    seen, chosen = np.concatenate(seen), np.concatenate(chosen)
    for n in np.unique(chosen):
        want = seen[chosen == n].mean(0)
        np.testing.assert_allclose(out.state.one.vectors[0, n], want, rtol=1e-3, atol=1e-4)


def test_no_code_beyond_a_levels_size_is_ever_used_or_revived():
    state = q.init(KEY, 2, (16, 3), 6)
    for i in range(5):
        out = q.quantize(
            state, X, key=jax.random.key(i), train=True, learning=q.EMA(0.5, expiry=1.0)
        )
        assert (out.codes[:, 1] < 3).all() and (out.state.counts[1, 3:] == 0).all()
        state = out.state
    cold = q.quantize(state, X, key=KEY, train=True, temperature=50.0)
    assert (cold.codes[:, 1] < 3).all()


def test_frozen_and_evaluation_change_nothing():
    state = books()
    for options in ({}, {"key": KEY, "train": True, "learning": q.Frozen()}):
        out = q.quantize(state, X, **options)
        jax.tree.map(np.testing.assert_array_equal, out.state, state)
    loss = jax.grad(lambda s: q.quantize(s, X).codebook.sum(), allow_int=True)(state)
    assert (loss.vectors == 0).all()


def test_the_codebook_loss_teaches_by_gradient():
    """Its gradient at a codeword is 2 (codeword - mean of its vectors) · share / D."""
    state = books(1)
    grad = jax.grad(
        lambda s: q.quantize(s, X, key=KEY, train=True, learning=q.Gradient()).codebook[0]
    )(state)
    codes, x = np.asarray(q.encode(state, X))[:, 0].ravel(), np.asarray(X.reshape(-1, 6))
    for n in range(16):
        mine = x[codes == n]
        want = 2 * (len(mine) * np.asarray(state.vectors[0, n]) - mine.sum(0)) / x.size
        np.testing.assert_allclose(grad.vectors[0, n], want, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("make", [q.init, q.Cosine.init, q.Shared.init])
def test_gradient_learning_replaces_dead_codes_too(make):
    """Codes that one batch never chose become vectors of that batch (whole, also where they are
    searched by direction); codes that it chose stay for the gradient to move; and the losses are as
    without replacement."""
    state = make(KEY, 1, 16, 6)
    rule = q.Gradient(expiry=0.1)
    options = {"key": KEY, "train": True}
    out = q.quantize(state, X, learning=rule, **options)
    plain = q.quantize(state, X, learning=q.Gradient(), **options)
    np.testing.assert_array_equal(out.codebook, plain.codebook)
    books = getattr(state, "one", state)
    learned = getattr(out.state, "one", out.state)
    codes = np.asarray(out.codes).ravel()
    alive = np.isin(np.arange(16), codes)
    assert 0 < alive.sum() < 16
    np.testing.assert_array_equal(learned.vectors[0, alive], books.vectors[0, alive])
    candidates = np.asarray(X.reshape(-1, 6))
    for vector in np.asarray(learned.vectors[0, ~alive]):
        assert np.abs(candidates - vector).sum(1).min() < 1e-5
    share = np.bincount(codes, minlength=16) / codes.size
    np.testing.assert_allclose(learned.counts[0, alive], 0.01 * share[alive], rtol=1e-4)
    # Evaluation has the losses and changes nothing.
    same = q.quantize(state, X, learning=rule).state
    jax.tree.map(np.testing.assert_array_equal, same, state)


def test_replacement_and_gradient_learn_together():
    """From far codebooks: the gradient alone would leave most codes dead for ever."""
    x = jax.random.normal(jax.random.key(7), (1, 512, 6))
    use = {}
    for expiry in (0.0, 0.1):
        state = q.Codebooks.of(books(1, 64).vectors + 30.0)
        rule = q.Gradient(expiry=expiry)

        @jax.jit
        def step(state, key, rule=rule):
            def loss(state):
                out = q.quantize(state, x, key=key, train=True, learning=rule)
                return out.codebook.sum(), out

            grads, out = jax.grad(loss, has_aux=True)(state)
            return jax.tree.map(lambda p, g: p - 3.0 * g, out.state, grads), out.stats.use[0]

        for i in range(50):
            state, use[expiry] = step(state, jax.random.key(i))
    assert use[0.0] < 0.2 and use[0.1] > 0.7
