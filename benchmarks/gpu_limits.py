"""A card's own limits: bytes that it moves, matrices that it multiplies, a program's launch."""

import time

import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST


def queued(function, *inputs, calls: int = 10, repeats: int = 3) -> float:
    """Seconds of a call among several that are queued: no launch is waited for."""
    jax.block_until_ready(function(*inputs))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(calls):
            out = function(*inputs)
        jax.block_until_ready(out)
        times.append((time.perf_counter() - began) / calls)
    return min(times)


def limits(tiny: bool) -> dict:
    """Bytes and FLOPs a second, on random values: constant ones multiply faster."""
    count, size = (2**20, 256) if tiny else (2**30, 8192)
    key = jax.random.key(0)
    x = jax.random.normal(key, (count,), jnp.bfloat16)
    read = x.nbytes / queued(jax.jit(lambda x: jnp.max(x)), x)
    copy = 2 * x.nbytes / queued(jax.jit(lambda x: -x), x)
    del x
    found = {"read": read, "copy": copy, "bandwidth": max(read, copy)}
    for name, dtype, precision in (
        ("matrix_bfloat16", jnp.bfloat16, None),
        ("matrix_float32_default", jnp.float32, None),
        ("matrix_float32_highest", jnp.float32, HIGHEST),
    ):
        a, b = (jax.random.normal(k, (size, size), dtype) for k in jax.random.split(key))
        product = jax.jit(lambda a, b, p=precision: jnp.matmul(a, b, precision=p))
        found[name] = 2 * size**3 / queued(product, a, b)
    one = jnp.zeros(8)
    plus = jax.jit(lambda x: x + 1)
    jax.block_until_ready(plus(one))
    began = time.perf_counter()
    for _ in range(100):
        jax.block_until_ready(plus(one))
    found["launch_and_wait_us"] = 1e4 * (time.perf_counter() - began)
    # Decoding is such a loop: its end is an argument, so each turn may wait for the host.
    turns = 1000
    loop = jax.jit(
        lambda x, until: jax.lax.while_loop(
            lambda carry: carry[0] < until, lambda carry: (carry[0] + 1, carry[1] + 1), (0, x)
        )
    )
    found["loop_turn_us"] = 1e6 * queued(loop, one, turns, calls=1) / turns
    return found
