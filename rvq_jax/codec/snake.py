"""Snake, the periodic activation of DAC, without a call of a library's sine.

On CPU XLA takes each sine by itself, for 8 ns: half of a DAC's decoder was that. The square of a
sine repeats every π, and within one period a short polynomial is as exact as float32 is.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rvq_jax.typing import Array

BOUND = 1.6  # π / 2, and what the number of periods may be off by


def snake(x: Array, alpha: Array) -> Array:
    """x + sin²(αx) / α (Ziyin et al. 2020), with DAC's 1e-9 beside the divisor.

    Args:
      x: of any shape.
      alpha: that broadcasts with it.

    Returns:
      As x.
    """
    return x + sin_squared(alpha * x) / (alpha + 1e-9)


@jax.custom_jvp
def sin_squared(x: Array) -> Array:
    """sin²(x), to 5e-7 for |x| up to 1e4. From 1e6 on it is some number in [0, 1]."""
    return (_sine(_reduced(x)) ** 2).astype(x.dtype)


@sin_squared.defjvp
def _sin_squared_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    r = _reduced(x)
    sine, cosine = _sine(r), _polynomial(COSINE, r * r)
    return (sine**2).astype(x.dtype), dx * (2 * sine * cosine).astype(x.dtype)


def _reduced(x: Array) -> Array:
    """x less the nearest multiple of π, float32."""
    x = x.astype(jnp.float32)
    turns = jnp.round(x * np.float32(1 / np.pi))
    # 201 / 64 has so few bits that its multiples are exact.
    r = x - turns * np.float32(201 / 64) - turns * np.float32(np.pi - 201 / 64)
    return jnp.clip(r, -BOUND, BOUND)


def _sine(r: Array) -> Array:
    return r * _polynomial(SINE, r * r)


def _polynomial(coefficients: np.ndarray, q: Array) -> Array:
    y = jnp.full_like(q, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        y = y * q + coefficient
    return y


def _fit(function, degree: int) -> np.ndarray:
    """Coefficients in r² of an even function for |r| up to BOUND."""
    fit = np.polynomial.Chebyshev.interpolate(
        lambda q: function(np.sqrt(q)), degree, domain=[0, BOUND**2]
    )
    return fit.convert(kind=np.polynomial.Polynomial).coef.astype(np.float32)


SINE = _fit(lambda r: np.sinc(r / np.pi), 5)  # over r
COSINE = _fit(np.cos, 6)
