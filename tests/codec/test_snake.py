"""Snake against numpy's sine in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rvq_jax.codec.snake import sin_squared, snake


@pytest.mark.parametrize("top", [1e-3, 2.0, 30.0, 1e3, 1e4])
def test_square_of_the_sine_and_its_slope(top):
    x = np.linspace(-top, top, 20_001).astype(np.float32)
    value, slope = jax.jit(lambda x: jax.jvp(sin_squared, (x,), (jnp.ones_like(x),)))(x)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(value, np.sin(exact) ** 2, atol=5e-7)
    np.testing.assert_allclose(slope, np.sin(2 * exact), atol=1e-6)
    # Of small arguments also relative to them: it is divided by alpha.
    small = np.abs(exact) < 0.5
    np.testing.assert_allclose(value[small], np.sin(exact[small]) ** 2, rtol=1e-6)


def test_what_is_beyond_all_periods_stays_bounded_and_what_is_no_number_none():
    beyond = np.float32([1e7, -3e9, 1e30, np.finfo(np.float32).max])
    value = np.asarray(sin_squared(beyond))
    assert np.all((value >= 0) & (value <= 1))
    assert np.isnan(sin_squared(np.float32([np.inf, -np.inf, np.nan]))).all()


def test_snake_equals_its_formula_with_its_gradients_in_both_types():
    rng = np.random.default_rng(0)
    x, alpha = rng.normal(size=(4, 9, 3)), rng.uniform(0.1, 3.0, (1, 1, 3))

    def formula(x, alpha):
        return x + jnp.sin(alpha * x) ** 2 / (alpha + 1e-9)

    x, alpha = (jnp.asarray(z, jnp.float32) for z in (x, alpha))
    results = [
        jax.jit(lambda x, a, f=f: jax.vjp(f, x, a)[1](x) + (f(x, a),)) for f in (snake, formula)
    ]
    got, wanted = (result(x, alpha) for result in results)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got, wanted)
    half = snake(x.astype(jnp.bfloat16), alpha.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), wanted[2], rtol=0.05, atol=0.05)
