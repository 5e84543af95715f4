"""Random weights: one program for each shape, where eager operations would compile one each."""

import functools

import jax
import jax.numpy as jnp

from rvq_jax.typing import Array, Key


@functools.partial(jax.jit, static_argnames="shape")
def normal(key: Key, shape: tuple[int, ...], deviation: float | Array) -> Array:
    """`shape` float32 normal numbers of mean 0 and this standard deviation."""
    return jax.random.normal(key, shape, jnp.float32) * deviation


@functools.partial(jax.jit, static_argnames="shape")
def truncated_normal(key: Key, shape: tuple[int, ...], deviation: float) -> Array:
    """`shape` float32 normal numbers, those beyond three standard deviations drawn again."""
    return jax.random.truncated_normal(key, -3.0, 3.0, shape, jnp.float32) * deviation


@functools.partial(jax.jit, static_argnames="shape")
def uniform(key: Key, shape: tuple[int, ...], bound: float) -> Array:
    """`shape` float32 numbers, evenly from -bound to bound."""
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)
