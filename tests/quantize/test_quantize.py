"""Encode, decode and search against plain numpy; errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvq_jax import quantize


def numpy_rvq(vectors_KND, x_MD):
    """Residual quantization as its definition says, one level and one vector at a time."""
    codes, residual = [], x_MD.astype(np.float64)
    for book in vectors_KND.astype(np.float64):
        distance = ((residual[:, None] - book[None]) ** 2).sum(-1)
        codes.append(distance.argmin(1))
        residual = residual - book[codes[-1]]
    return np.stack(codes), residual


@given(
    st.sampled_from(
        [(1, 1, 3, (1, 1)), (5, 3, 1, (2, 5)), (2, 64, 9, (3, 200)), (3, 128, 4, (1, 7))]
    ),
    st.integers(0, 99),
)
def test_encode_and_decode_are_their_definition(sizes, seed):
    """All sizes: with and without blocks, with and without a last partial tile."""
    levels, size, dim, shape = sizes
    rng = np.random.default_rng(seed)
    state = quantize.init(jax.random.key(seed), levels, size, dim)
    latents = rng.normal(size=(*shape, dim)).astype(np.float32)
    codes = np.asarray(quantize.encode(state, latents))
    want, residual = numpy_rvq(np.asarray(state.vectors), latents.reshape(-1, dim))
    want = want.reshape(levels, *shape).swapaxes(0, 1)
    # Two codewords may lie equally near to float32: then the distances must agree, not the codes.
    decoded = np.asarray(quantize.decode(state, codes)).reshape(-1, dim)
    agree = (codes == want).all(1).reshape(-1)
    assert agree.mean() > 0.99 or size == 1
    left = latents.reshape(-1, dim) - decoded
    np.testing.assert_allclose(left[agree], residual[agree], atol=1e-4)


def test_ties_go_to_the_lowest_index():
    books = jnp.zeros((128, 3))
    assert (quantize.nearest(jnp.ones((300, 3)), books) == 0).all()


def test_a_prefix_of_levels():
    state = quantize.init(jax.random.key(0), 4, 16, 6)
    latents = jax.random.normal(jax.random.key(1), (2, 7, 6))
    codes = quantize.encode(state, latents)
    for levels in (1, 2, 4):
        assert (quantize.encode(state, latents, levels) == codes[:, :levels]).all()
        assert quantize.decode(state, codes[:, :levels]).shape == latents.shape
    with pytest.raises(ValueError, match=r"1\.\.4, got 5"):
        quantize.encode(state, latents, levels=5)
    with pytest.raises(ValueError, match=r"1\.\.4, got 5"):
        quantize.decode(state, jnp.zeros((1, 5, 2), int))


def test_training_needs_a_key():
    state = quantize.init(jax.random.key(0), 2, 8, 3)
    with pytest.raises(ValueError, match="give it a key"):
        quantize.quantize(state, jnp.zeros((1, 4, 3)), train=True)


def test_compile_does_not_grow_with_levels():
    """One scan: the program of 32 levels has as many operations as that of 2."""

    def operations(levels):
        state = quantize.init(jax.random.key(0), levels, 16, 4)
        text = jax.jit(quantize.encode).lower(state, jnp.zeros((1, 8, 4))).as_text()
        return text.count(" = ")

    assert operations(32) == operations(2)


def test_statistics_count_what_was_chosen():
    state = quantize.init(jax.random.key(0), 3, 32, 5)
    latents = jax.random.normal(jax.random.key(1), (2, 50, 5))
    mask = jnp.arange(50)[None] < jnp.array([[50], [20]])
    out = quantize.quantize(state, latents, mask=mask)
    codes_KM = np.asarray(out.codes).swapaxes(0, 1)[:, np.asarray(mask)]
    residual = np.asarray(latents)[np.asarray(mask)]
    for k in range(3):
        share = np.bincount(codes_KM[k], minlength=32) / 70
        entropy = -(share[share > 0] * np.log2(share[share > 0])).sum()
        np.testing.assert_allclose(out.stats.use[k], (share > 0).mean(), rtol=1e-5)
        np.testing.assert_allclose(out.stats.entropy[k], entropy, rtol=1e-4)
        np.testing.assert_allclose(out.stats.perplexity[k], 2**entropy, rtol=1e-4)
        np.testing.assert_allclose(out.stats.energy[k], (residual**2).sum(1).mean(), rtol=1e-4)
        residual = residual - np.asarray(state.vectors)[k][codes_KM[k]]
        np.testing.assert_allclose(out.stats.residual[k], (residual**2).sum(1).mean(), rtol=1e-4)
