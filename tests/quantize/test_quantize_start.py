"""Codebooks that start from data, whatever the lookup and the arrangement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import tried

from rvq_jax import quantize as q

KEY = jax.random.key(0)
start = jax.jit(q.start, static_argnames="plus_plus")
quantize = jax.jit(q.quantize, static_argnames="train")


@pytest.mark.parametrize("state", [q.FSQ.init(2, (3,) * 6), q.LFQ.init(2, 6)])
def test_k_means_needs_codebooks(state):
    with pytest.raises(ValueError, match=f"k-means and {type(state).__name__} clash"):
        q.start(KEY, state, jnp.ones((5000, 6)))


@pytest.mark.parametrize("plus_plus", [False, True])
def test_vectors_all_equal(plus_plus):
    """k-means and training on one point: finite, and the point is reproduced."""
    point = jnp.arange(6.0)
    state = start(KEY, q.init(KEY, 2, 8, 6), jnp.tile(point, (64, 1)), plus_plus=plus_plus)
    x = jnp.broadcast_to(point, (1, 20, 6))
    out = quantize(state, x, key=KEY, train=True)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))
    np.testing.assert_allclose(out.latents, x, atol=1e-5)


STARTED = {
    "sizes": q.init(KEY, 2, (16, 5), 6),
    "cosine": q.Cosine.init(KEY, 2, 16, 6),
    "projected": q.Projected.init(KEY, 2, 16, 6, 3),
    "simvq": q.SimVQ.init(KEY, 2, 16, 6),
    "qinco": q.QINCo.init(KEY, 2, 16, 6),
    "shared": q.Shared.init(KEY, 2, 16, 6),
    "grouped": q.Grouped.of([q.init(KEY, 2, 16, 3), q.init(KEY, 2, 16, 3)]),
    "grouped simvq": q.Grouped.of([q.SimVQ.init(KEY, 2, 16, 3), q.SimVQ.init(KEY, 2, 16, 3)]),
    "grouped shared": q.Grouped.of([q.Shared.init(KEY, 2, 16, 3), q.Shared.init(KEY, 2, 16, 3)]),
    "strided simvq": q.Strided(q.SimVQ.init(KEY, 2, 16, 6), (2, 1)),
    "split": q.Split(q.init(KEY, 1, 16, 6), q.init(KEY, 1, 16, 6)),
    "bottleneck": q.Bottleneck.init(KEY, 6, q.init(KEY, 2, 16, 4)),
    "strided": q.Strided(q.init(KEY, 2, 16, 6), (2, 1)),
}
# On what all levels see; under maps, and by frames.
FEW = ("qinco", "shared", "strided simvq")


@pytest.mark.parametrize("name", tried(FEW, STARTED, share=2))
def test_start_of_every_kind_beats_random_codebooks(name):
    """Fitted to data far from random codebooks, commitment falls, and codes are in use."""
    state = STARTED[name]
    x = 3.0 * jax.random.normal(jax.random.key(2), (4, 128, 6)) + 1.0
    started = start(KEY, state, x.reshape(-1, 6), plus_plus=True)
    before, after = quantize(state, x), quantize(started, x)
    assert after.commitment[0] < before.commitment[0]
    assert (after.stats.use > 0.25).all()


def test_a_shared_codebook_starts_on_what_every_level_sees():
    """Fitted to the vectors alone, it would suit no residual: the last level must shrink it too."""
    x = jax.random.normal(jax.random.key(2), (8, 128, 6))
    state = start(KEY, q.Shared.init(KEY, 4, 32, 6), x.reshape(-1, 6))
    residual = np.asarray(quantize(state, x).stats.residual)
    assert (np.diff(residual) < 0).all()
    with pytest.raises(ValueError, match="at least 128 vectors, got 127"):
        q.start(KEY, state, x.reshape(-1, 6)[:127])


def test_plus_plus_finds_every_cluster():
    """16 far clusters, 16 codes: k-means++ starts one in each where a random start misses some."""
    centres = 100.0 * jax.random.normal(jax.random.key(3), (16, 6))
    points = jnp.repeat(centres, 20, 0) + jax.random.normal(jax.random.key(4), (320, 6))
    state = start(KEY, q.init(KEY, 1, 16, 6), points, plus_plus=True)
    assert quantize(state, points[None]).stats.use[0] == 1.0
