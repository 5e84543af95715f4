"""Attention to the part of a cache that is filled: a step reads no more than it needs, nearly."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rvq_jax.typing import Array

PART, MOST_PARTS = 256, 4  # rows of a part of the cache at least, and how many there are at most


def of_filled(attend: Callable[[int], Array], position: Array, length: int) -> Array:
    """What attention to the filled part of a cache gives, or to somewhat more.

    As branches of one program: loops over steps, one for each part, compile two and a half times as
    long. A GPU reads all: what it runs next the host decides there, which waits for it.

    Args:
      attend: from a number of rows of the cache to the result.
      position: the last row that is filled.
      length: of the cache.

    Returns:
      The result.
    """
    ends = parts(length)
    if len(ends) == 1:
        return attend(length)
    branches = [functools.partial(attend, rows) for rows in ends]

    def some() -> Array:
        return jax.lax.switch(jnp.searchsorted(jnp.array(ends), position, side="right"), branches)

    whole = branches[-1]
    return jax.lax.platform_dependent(cuda=whole, rocm=whole, default=some)


def parts(length: int) -> tuple[int, ...]:
    """How much of a cache is read: the least of these numbers of rows that has all filled ones.

    Of four parts five eighths are read on average; a short cache is one.
    """
    count = min(MOST_PARTS, max(1, length // PART))
    return tuple(-(-length * i // count) for i in range(1, count + 1))
