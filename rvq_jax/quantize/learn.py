"""How codebooks learn: k-means to start, running means to follow, replacement of dead codes."""

import jax
import jax.numpy as jnp

from rvq_jax.quantize.search import nearest
from rvq_jax.quantize.state import Codebooks
from rvq_jax.typing import Array, Key, Vectors


def update(
    key: Key,
    books: Codebooks,
    input_MD: Vectors,
    codes_M: Array,
    weight_M: Array,
    decay: float,
    expiry: float,
) -> Codebooks:
    """One level's codebook `[N, D]` after a batch: running means, then dead-code replacement.

    weight_M sums to 1 over the valid vectors. A code whose running share of use falls below
    `expiry` / N (`expiry` of its uniform share, so the rule does not depend on the batch size) is
    replaced by a random input vector. Vector, sum *and* count are replaced: a vector alone would be
    overwritten by the old ratio at the next update. An all-masked batch teaches nothing.

    van den Oord et al. 2017, appendix A (running means); Défossez et al. 2024 (Moshi) for the
    relative threshold.
    """
    input_MD = jax.lax.stop_gradient(input_MD)
    size = books.counts.shape[0]
    # One-hot products, not scatters: under a mesh they reduce over the batch with one all-reduce.
    chosen_MN = jax.nn.one_hot(codes_M, size) * weight_M[:, None]
    sums_ND = jnp.einsum("mn,md->nd", chosen_MN, input_MD, precision=jax.lax.Precision.HIGHEST)
    rate = (1.0 - decay) * weight_M.sum()
    sums_ND = books.sums * (1.0 - rate) + sums_ND * (1.0 - decay)
    counts_N = books.counts * (1.0 - rate) + chosen_MN.sum(axis=0) * (1.0 - decay)

    fresh_ND = _draw(key, input_MD, weight_M, size)
    dead_N = (counts_N < expiry / size) & (weight_M.sum() > 0)
    counts_N = jnp.where(dead_N, 1.0 / size, counts_N)
    sums_ND = jnp.where(dead_N[:, None], fresh_ND / size, sums_ND)
    # Without expiry a share may underflow to 0: such a code keeps its vector.
    alive_N1 = (counts_N > 1e-20)[:, None]
    vectors_ND = jnp.where(alive_N1, sums_ND / jnp.maximum(counts_N, 1e-20)[:, None], books.vectors)
    return Codebooks(vectors_ND, sums_ND, counts_N)


def start(key: Key, state: Codebooks, vectors: Vectors, iterations: int = 50) -> Codebooks:
    """Codebooks by k-means on vectors `[M, D]`, level by level on the residual.

    Each level is fitted on a share of its own (M // K vectors), on the residual that the earlier
    levels leave of vectors they never saw. Fitted all on the same few vectors, the first level
    would reproduce them, and the next levels would learn its rounding errors.
    Raises ValueError if a share has fewer than N vectors: collect more batches.
    """
    share = vectors.shape[0] // state.levels
    if share < state.size:
        raise ValueError(
            f"k-means of {state.levels} levels of {state.size} codes needs at least "
            f"{state.levels * state.size} vectors, got {vectors.shape[0]}"
        )
    shuffle_key, level_key = jax.random.split(key)
    vectors = jax.random.permutation(shuffle_key, vectors.astype(jnp.float32))

    def level(residual_MD, inputs):
        index, key = inputs
        mine_MD = jax.lax.dynamic_slice_in_dim(residual_MD, index * share, share)
        books = kmeans(key, mine_MD, state.size, iterations)
        return residual_MD - books.vectors[nearest(residual_MD, books.vectors)], books

    keys = jax.random.split(level_key, state.levels)
    return jax.lax.scan(level, vectors, (jnp.arange(state.levels), keys))[1]


def kmeans(key: Key, vectors_MD: Vectors, size: int, iterations: int) -> Codebooks:
    """One codebook `[N, D]` by Lloyd's algorithm; an empty cluster restarts at a random vector."""
    first_key, empty_key = jax.random.split(key)
    count = vectors_MD.shape[0]
    weight_M = jnp.full(count, 1.0 / count)
    centres_ND = vectors_MD[jax.random.permutation(first_key, count)[:size]]

    def iterate(centres_ND, key):
        chosen_MN = jax.nn.one_hot(nearest(vectors_MD, centres_ND), size)
        counts_N = chosen_MN.sum(axis=0)
        sums_ND = jnp.einsum(
            "mn,md->nd", chosen_MN, vectors_MD, precision=jax.lax.Precision.HIGHEST
        )
        means_ND = sums_ND / jnp.maximum(counts_N, 1.0)[:, None]
        fresh_ND = _draw(key, vectors_MD, weight_M, size)
        return jnp.where(counts_N[:, None] > 0, means_ND, fresh_ND), counts_N

    keys = jax.random.split(empty_key, iterations)
    centres_ND, counts_KN = jax.lax.scan(iterate, centres_ND, keys)
    # A cluster still empty at the end gets its uniform share, so that it is tried before it dies.
    counts_N = jnp.where(counts_KN[-1] > 0, counts_KN[-1] / count, 1.0 / size)
    return Codebooks(centres_ND, centres_ND * counts_N[:, None], counts_N)


def _draw(key: Key, vectors_MD: Array, weight_M: Array, count: int) -> Array:
    """`[count, D]` vectors drawn with replacement in proportion to their weights."""
    return vectors_MD[jax.random.choice(key, vectors_MD.shape[0], (count,), p=weight_M)]
