"""What each level of a quantizer does with a batch."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rvq_jax.axes import meshed
from rvq_jax.tracing import portable
from rvq_jax.trees import one_line
from rvq_jax.typing import Array


class LevelStats(NamedTuple):
    """Per level; under the scan over levels each field gains a leading `[K]`."""

    use: Array  # share of the N codes chosen at least once in the batch
    entropy: Array  # of the chosen codes, bits
    perplexity: Array  # 2 ** entropy, the effective number of codes
    energy: Array  # mean squared length of the level's input
    residual: Array  # mean squared length of what the level leaves

    __repr__ = one_line


def level_stats(
    codes_M: Array, input_MD: Array, left_MD: Array, weight_M: Array, size: int
) -> LevelStats:
    """Computes the statistics of one level on a batch.

    Args:
      codes_M: `[M]`, what the level chose.
      input_MD: `[M, D]`, the level's input.
      left_MD: `[M, D]`, the residual it leaves.
      weight_M: `[M]`, sums to 1 over the valid vectors and is 0 elsewhere.
      size: number of codes N.

    Returns:
      One scalar for each field of `LevelStats`.
    """
    run = functools.partial(_level_stats, size=size)
    return portable(run, "M", "")(codes_M, input_MD, left_MD, weight_M)


def _level_stats(
    codes_M: Array, input_MD: Array, left_MD: Array, weight_M: Array, *, size: int
) -> LevelStats:
    if meshed():  # a scatter would gather the codes of all devices on each
        share_N = (jax.nn.one_hot(codes_M, size, dtype=jnp.float32) * weight_M[:, None]).sum(axis=0)
    else:
        share_N = jnp.zeros(size, jnp.float32).at[codes_M].add(weight_M)
    entropy = -jnp.sum(share_N * jnp.log2(jnp.where(share_N > 0, share_N, 1.0)))
    return LevelStats(
        use=jnp.mean(share_N > 0, dtype=jnp.float32),
        entropy=entropy,
        perplexity=2.0**entropy,
        energy=jnp.sum(weight_M * jnp.sum(input_MD**2, axis=1)),
        residual=jnp.sum(weight_M * jnp.sum(left_MD**2, axis=1)),
    )
