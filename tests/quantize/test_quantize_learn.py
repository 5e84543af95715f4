"""How codebooks learn, and the three defects of the references that must not come back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvq_jax import quantize


def clustered(seed, count, centres=64, dim=8, noise=0.1):
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(12345).normal(size=(centres, dim))
    points = means[rng.integers(0, centres, count)] + noise * rng.normal(size=(count, dim))
    return jnp.asarray(points, jnp.float32)


def trained(**options):
    """One update, compiled."""
    return jax.jit(
        lambda state, x, key: quantize.quantize(state, x, key=key, train=True, **options)
    )


def learn(state, batches, **options):
    step = trained(learning=quantize.EMA(**options))
    for i in range(batches):
        out = step(state, clustered(i, 256)[None], jax.random.key(i))
        state = out.state
    return state, out


def test_defect_1_dead_codes_come_back_to_life():
    """Replacing a vector but not its sums is undone by the next update: codes far from all data
    must be in use, near the data, and stay so."""
    state = quantize.init(jax.random.key(0), 1, 64, 8)
    far = state.vectors.at[:, 4:].add(1000.0)
    state = quantize.Codebooks(far, far * state.counts[..., None], state.counts)
    learned, out = learn(state, 400)
    assert (np.abs(np.asarray(learned.vectors)) < 100).all()
    assert out.stats.use[0] > 0.8
    drop, out = learn(state, 400, expiry=0.0)
    assert (np.abs(np.asarray(drop.vectors))[0, 4:] > 100).all()
    assert out.stats.use[0] < 0.1


def test_defect_1_sums_and_counts_agree_with_vectors():
    """After any update each vector is its sum over its count: nothing is left to overwrite it."""
    learned, _ = learn(quantize.init(jax.random.key(0), 3, 64, 8), 30)
    ratio = np.asarray(learned.sums) / np.asarray(learned.counts)[..., None]
    np.testing.assert_allclose(ratio, learned.vectors, rtol=1e-4, atol=1e-5)


def test_defect_1_the_threshold_is_relative():
    """The same data in a batch of twice the size replaces the same codes."""
    state = quantize.init(jax.random.key(0), 2, 64, 8)
    x = clustered(0, 256)
    step = trained(learning=quantize.EMA(expiry=1.0))
    once = step(state, x[None], jax.random.key(1))
    twice = step(state, jnp.stack([x, x]), jax.random.key(1))
    np.testing.assert_allclose(once.state.counts[0], twice.state.counts[0], rtol=1e-4)


def test_defect_2_every_level_has_a_commitment_gradient():
    """Each level's loss alone moves the input; its gradient is 2 (residual after it) / size."""
    state = quantize.init(jax.random.key(0), 4, 16, 8)
    x = jax.random.normal(jax.random.key(1), (2, 5, 8))
    residual = x
    codes = quantize.encode(state, x)
    grads = jax.jit(jax.jacrev(lambda x: quantize.quantize(state, x).commitment))(x)
    for level, grad in enumerate(grads):
        residual = residual - state.vectors[level][codes[:, level]]
        np.testing.assert_allclose(grad, 2 * residual / x.size, rtol=1e-3, atol=1e-6)
        assert np.abs(grad).max() > 1e-4


def test_defect_3_later_levels_start_on_real_residuals():
    """Fitted all on the same few vectors, later levels would see residuals near zero. Each level
    must shrink the residual of *new* data, and none may be degenerate."""
    books = quantize.init(jax.random.key(0), 4, 64, 8)
    state = quantize.start(jax.random.key(1), books, clustered(0, 4 * 64))
    new = clustered(99, 1000)[None]
    energy = np.asarray(quantize.quantize(state, new).stats.residual)
    scale = np.linalg.norm(np.asarray(state.vectors), axis=-1).mean(1)
    assert (np.diff(energy) < 0).all()
    assert (scale[1:] > 0.2 * np.sqrt(energy[:-1])).all()
    with pytest.raises(ValueError, match="at least 256 vectors, got 255"):
        quantize.start(jax.random.key(1), books, clustered(0, 255))


def test_kmeans_finds_the_clusters():
    """Started from data of 64 tight clusters with 64 codes, most of the energy is explained."""
    books = quantize.init(jax.random.key(0), 1, 64, 8)
    state = quantize.start(jax.random.key(1), books, clustered(0, 4096))
    stats = quantize.quantize(state, clustered(1, 4096)[None]).stats
    assert stats.residual[0] < 0.2 * stats.energy[0]
    assert stats.use[0] > 0.9


def test_updates_follow_the_running_mean():
    """Two updates in plain numpy; a code that nothing ever chose keeps its vector."""
    state = quantize.init(jax.random.key(0), 1, 8, 3)
    x = np.asarray(jax.random.normal(jax.random.key(1), (1, 40, 3)))
    step = trained(learning=quantize.EMA(decay=0.9, expiry=0.0))
    for _ in range(2):
        out = step(state, x, jax.random.key(2))
        codes = np.asarray(out.codes)[0, 0]
        for n in range(8):
            mine = x[0][codes == n]
            count = 0.9 * state.counts[0, n] + 0.1 * len(mine) / 40
            total = 0.9 * state.sums[0, n] + 0.1 * mine.sum(0) / 40
            want = total / count if count > 0 else state.vectors[0, n]
            np.testing.assert_allclose(out.state.counts[0, n], count, rtol=1e-5)
            np.testing.assert_allclose(out.state.vectors[0, n], want, rtol=1e-4, atol=1e-5)
        state = out.state


def test_the_first_means_are_not_drawn_to_where_the_codebook_began():
    """Debiased: after one batch a used code is the mean of its vectors, whatever the decay."""
    state = quantize.init(jax.random.key(0), 1, 4, 3)
    x = jax.random.normal(jax.random.key(1), (1, 100, 3))
    step = trained(learning=quantize.EMA(decay=0.999, expiry=0.0))
    out = step(state, x, jax.random.key(2))
    for n in np.unique(out.codes):
        mean = x[0][out.codes[0, 0] == n].mean(0)
        np.testing.assert_allclose(out.state.vectors[0, n], mean, rtol=1e-4, atol=1e-5)


def test_a_batch_of_padding_teaches_nothing():
    state = quantize.init(jax.random.key(0), 2, 8, 3)
    x = jax.random.normal(jax.random.key(1), (1, 40, 3))
    mask = jnp.zeros((1, 40), bool)
    out = quantize.quantize(state, x, key=jax.random.key(2), train=True, mask=mask)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state, out.state)


def test_dropout_keeps_prefixes():
    """An item that keeps c levels decodes to exactly its first c levels; all c occur, and another
    key keeps others."""
    state = quantize.init(jax.random.key(0), 4, 16, 6)
    x = jax.random.normal(jax.random.key(1), (64, 3, 6))
    step, kept = trained(dropout=quantize.Dropout(1.0)), []
    for seed in (2, 3):
        out = step(state, x, jax.random.key(seed))
        prefixes = np.stack([quantize.decode(state, out.codes[:, :c]) for c in range(1, 5)])
        error = np.abs(prefixes - np.asarray(out.latents)[None]).max((2, 3))
        assert (error.min(0) < 1e-5).all()
        kept.append(error.argmin(0))
        assert set(kept[-1]) == {0, 1, 2, 3}
    assert (kept[0] != kept[1]).any()
