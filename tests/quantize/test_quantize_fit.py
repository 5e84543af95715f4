"""Offline fitting: least squares against numpy's, and codebooks that beat k-means alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvq_jax import quantize as q


def error(state, x, beam=1):
    return float(jnp.mean((q.decode(state, q.encode(state, x[None], beam=beam)) - x[None]) ** 2))


@given(st.integers(0, 99))
def test_refine_is_least_squares(seed):
    """As numpy's solver with one column per code; a code that none chose keeps its vector."""
    rng = np.random.default_rng(seed)
    levels, size, dim, count = 3, 5, 4, 60
    state = q.init(jax.random.key(seed), levels, size, dim)
    codes = rng.integers(0, size - 1, (levels, count))
    x = rng.normal(size=(count, dim)).astype(np.float32)
    refined = q.refine(state, x, jnp.asarray(codes), steps=100)
    columns = np.concatenate([np.eye(size)[c] for c in codes], axis=1)
    best = columns @ np.linalg.lstsq(columns, x, rcond=None)[0]
    np.testing.assert_allclose(q.decode(refined, codes[None])[0], best, atol=1e-3)
    np.testing.assert_allclose(refined.vectors[:, -1], state.vectors[:, -1], atol=1e-6)
    np.testing.assert_allclose(refined.counts.sum(1), 1, rtol=1e-5)


def test_fit_beats_k_means_level_by_level():
    """On vectors it never saw, with and without refinement, at the same sizes."""
    mix = jax.random.normal(jax.random.key(0), (8, 8)) * 0.7 ** jnp.arange(8)[None]
    x, new = (jax.random.normal(jax.random.key(i), (3000, 8)) @ mix for i in (1, 2))
    started = q.start(jax.random.key(3), q.init(jax.random.key(0), 3, 16, 8), x)
    fitted = q.fit(jax.random.key(3), x, 3, 16)
    plain = q.fit(jax.random.key(3), x, 3, 16, rounds=0)
    assert error(plain, new) < error(started, new)
    assert error(fitted, new, beam=5) < error(plain, new, beam=5)


def test_fit_says_what_is_wrong():
    with pytest.raises(ValueError, match="16 codes need at least as many vectors, got 15"):
        q.fit(jax.random.key(0), jnp.ones((15, 3)), 2, 16)
    with pytest.raises(ValueError, match=r"vectors must be \[M, D\]"):
        q.fit(jax.random.key(0), jnp.ones((2, 15, 3)), 2, 16)
    with pytest.raises(ValueError, match="finite"):
        q.fit(jax.random.key(0), jnp.full((20, 3), jnp.nan), 2, 16)
    flat = q.fit(jax.random.key(0), jnp.ones((20, 3)), 2, 4)
    assert np.isfinite(flat.vectors).all()
