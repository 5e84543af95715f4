"""Laws of residual quantization, over random shapes."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rvq_jax import quantize

encode, decode = jax.jit(quantize.encode), jax.jit(quantize.decode)
quantized = jax.jit(quantize.quantize, static_argnames="train")
start = jax.jit(quantize.start)

# Few shapes, many seeds: every shape compiles anew. Sizes with and without whole blocks.
SIZES = st.sampled_from([(1, 8, 2, 1), (3, 64, 5, 9), (4, 8, 6, 4)])


def setting(sizes, seed):
    levels, size, dim, frames = sizes
    state = quantize.init(jax.random.key(seed), levels, size, dim)
    return state, jax.random.normal(jax.random.key(seed + 1), (3, frames, dim))


@given(SIZES, st.integers(0, 99))
def test_training_quantizes_as_encode_and_decode_do(sizes, seed):
    state, x = setting(sizes, seed)
    out = quantized(state, x, key=jax.random.key(0), train=True)
    assert (out.codes == encode(state, x)).all()
    np.testing.assert_allclose(out.latents, decode(state, out.codes), atol=1e-5)


@given(SIZES, st.integers(0, 99))
def test_the_gradient_passes_straight_through(sizes, seed):
    state, x = setting(sizes, seed)
    weight = jax.random.normal(jax.random.key(5), x.shape)
    grad = jax.grad(lambda x: (quantized(state, x).latents * weight).sum())(x)
    np.testing.assert_allclose(grad, weight, rtol=1e-6)


@given(SIZES, st.integers(0, 99))
def test_a_started_level_shrinks_the_residual(sizes, seed):
    """On average over the vectors it was fitted to; random books need not."""
    levels, size, dim, _ = sizes
    x = jax.random.normal(jax.random.key(seed), (1, 8 * size * levels, dim))
    state = start(jax.random.key(1), quantize.init(jax.random.key(0), *sizes[:3]), x[0])
    stats = quantized(state, x).stats
    assert (stats.residual < stats.energy).all()


@given(SIZES, st.integers(0, 99), st.integers(0, 8))
def test_padding_and_batch_change_nothing(sizes, seed, cut):
    """Codes do not depend on the rest of the batch; what the mask hides touches neither loss nor
    learning, whatever it holds."""
    state, x = setting(sizes, seed)
    cut = min(cut, x.shape[1] - 1)
    mask = jnp.broadcast_to(jnp.arange(x.shape[1]) <= cut, x.shape[:2])
    key = jax.random.key(3)
    # Other neighbours, and none.
    assert (encode(state, x)[1:2] == encode(state, x.at[::2].multiply(-2.0))[1:2]).all()
    assert (encode(state, x)[1:2] == quantize.encode(state, x[1:2])).all()
    junk = jnp.where(mask[..., None], x, 1e3)
    a, b = (quantized(state, y, key=key, train=True, mask=mask) for y in (x, junk))
    np.testing.assert_allclose(a.commitment, b.commitment, rtol=1e-5)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), a.state, b.state
    )


def test_one_device_and_eight_learn_the_same():
    """The batch split over eight devices gives the codebooks and losses of one."""
    from rvq_jax.train import sharding

    state = quantize.init(jax.random.key(0), 3, 32, 6)
    x = jax.random.normal(jax.random.key(1), (16, 20, 6))
    step = jax.jit(
        lambda s, x, k: quantize.quantize(s, x, key=k, train=True, dropout=quantize.Dropout())
    )
    results = []
    for devices in (jax.devices()[:1], jax.devices()[:8]):
        mesh = sharding.make_mesh(devices=devices)
        placed = sharding.place_batch({"x": np.asarray(x)}, mesh)["x"]
        books = jax.device_put(state, sharding.replicated(mesh))
        for i in range(3):
            out = step(books, placed, jax.random.key(i))
            books = out.state
        results.append(out)
    one, eight = (jax.tree.map(np.asarray, r) for r in results)
    assert (one.codes == eight.codes).all()
    np.testing.assert_allclose(one.commitment, eight.commitment, rtol=1e-5)
    np.testing.assert_allclose(one.state.vectors, eight.state.vectors, rtol=1e-4, atol=1e-5)
