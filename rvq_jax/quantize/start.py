"""Codebooks that start from data: k-means, level by level on the residual."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from rvq_jax.quantize.learn import draw
from rvq_jax.quantize.search import nearest
from rvq_jax.quantize.state import Codebooks, Lookup
from rvq_jax.typing import Array, Key, Vectors

ROUNDS = 3  # of fitting a shared codebook anew to what its levels see


@functools.partial(jax.jit, static_argnames=("iterations", "plus_plus"))
def residual_kmeans(
    key: Key, state: Lookup, vectors: Vectors, iterations: int, plus_plus: bool
) -> Lookup:
    """Fits the codebooks of one lookup's K levels to vectors by k-means.

    Each level is fitted on a share of its own (M // K vectors), on the residual that the earlier
    levels leave of vectors they never saw. Fitted all on the same few vectors, the first level
    would reproduce them, and the next levels would learn its rounding errors.

    Args:
      key: for random numbers.
      state: a lookup of K levels with a codebook for each.
      vectors: `[M, D]`.
      iterations: steps of each level's k-means.
      plus_plus: first centres by k-means++; else random vectors.

    Returns:
      The lookup with fitted codebooks.

    Raises:
      ValueError: if the lookup has no codebooks, or if a share has fewer than N vectors.
    """
    if state.books is None:
        raise ValueError(f"k-means and {type(state).__name__} clash: it has no codebooks")
    share = _share(vectors, state.levels, state.size)
    shuffle_key, level_key = jax.random.split(key)
    vectors = jax.random.permutation(shuffle_key, jnp.asarray(vectors, jnp.float32))

    def level(residual_MD, inputs):
        index, lookup, key = inputs
        input_ME = lookup.project(residual_MD)
        mine_ME = jax.lax.dynamic_slice_in_dim(input_ME, index * share, share)
        learned = kmeans(key, lookup.books, mine_ME, iterations, plus_plus)
        lookup = lookup.with_books(learned)
        codes_M = lookup.search(input_ME, residual_MD)
        left_MD = residual_MD - lookup.unproject(lookup.codewords(codes_M, residual_MD))
        return left_MD, learned

    keys = jax.random.split(level_key, state.levels)
    _, learned = jax.lax.scan(level, vectors, (jnp.arange(state.levels), state, keys))
    return state.with_books(learned)


@functools.partial(jax.jit, static_argnames=("levels", "iterations", "plus_plus"))
def shared_kmeans(
    key: Key, one: Codebooks, levels: int, vectors: Vectors, iterations: int, plus_plus: bool
) -> Codebooks:
    """Fits one codebook for all levels, by k-means on what every level sees of the vectors.

    What the levels see depends on the codebook: so it is fitted to the vectors, then `ROUNDS` times
    to the inputs of all levels that the codebook before leads to, on M // K vectors each.

    Args:
      key: for random numbers.
      one: the codebook `[1, N, D]` to fit.
      levels: number of levels K that use it.
      vectors: `[M, D]`.
      iterations: steps of each k-means.
      plus_plus: first centres by k-means++; else random vectors.

    Returns:
      The fitted codebook `[1, N, D]`.

    Raises:
      ValueError: if M // K is below N.
    """
    share = _share(vectors, levels, one.size)
    shuffle_key, first_key, round_key = jax.random.split(key, 3)
    vectors = jax.random.permutation(shuffle_key, jnp.asarray(vectors, jnp.float32))
    books = jax.tree.map(lambda x: x[0], one)
    books = kmeans(first_key, books, vectors, iterations, plus_plus)

    def again(books, key):
        def level(residual_MD, _):
            codes_M = nearest(residual_MD, books.vectors)
            return residual_MD - books.vectors[codes_M], residual_MD

        seen_KMD = jax.lax.scan(level, vectors[:share], None, length=levels)[1]
        seen_MD = seen_KMD.reshape(-1, books.dim)
        return kmeans(key, books, seen_MD, iterations, plus_plus), None

    books, _ = jax.lax.scan(again, books, jax.random.split(round_key, ROUNDS))
    return jax.tree.map(lambda x: x[None], books)


def _share(vectors: Vectors, levels: int, size: int) -> int:
    """Vectors for each level; raises ValueError if they are fewer than its codes."""
    if vectors.shape[0] // levels < size:
        raise ValueError(
            f"k-means of {levels} levels of {size} codes needs at least {levels * size} vectors, "
            f"got {vectors.shape[0]}"
        )
    return vectors.shape[0] // levels


def kmeans(
    key: Key, books: Codebooks, vectors_MD: Vectors, iterations: int, plus_plus: bool = False
) -> Codebooks:
    """Fits one codebook by Lloyd's algorithm; an empty cluster restarts at a random vector.

    Args:
      key: for random numbers.
      books: one level's codebook, for its size N, its codes in use and whether it is searched by
        direction; its vectors are not read.
      vectors_MD: `[M, D]`, at least N of them.
      iterations: steps of the algorithm.
      plus_plus: first centres by k-means++; else random vectors.

    Returns:
      The codebook with vectors `[N, D]` at the centres and their shares of use as its counts.
    """
    first_key, empty_key = jax.random.split(key)
    count, size = vectors_MD.shape[0], books.size
    vectors_MD = books.direction(vectors_MD)
    if plus_plus:
        centres_ND = _spread(first_key, vectors_MD, size)
    else:
        centres_ND = vectors_MD[jax.random.permutation(first_key, count)[:size]]

    centres_ND, counts_N = lloyd(empty_key, books, vectors_MD, centres_ND, iterations)
    # A cluster still empty at the end gets its uniform share, so that it is tried before it dies.
    counts_N = jnp.where(counts_N > 0, counts_N / count, 1.0 / size)
    if books.sizes is not None:
        counts_N = jnp.where(jnp.arange(size) < books.sizes, counts_N, 0.0)
    sums_ND = centres_ND * counts_N[:, None]
    return dataclasses.replace(books, vectors=centres_ND, sums=sums_ND, counts=counts_N)


def lloyd(
    key: Key, books: Codebooks, vectors_MD: Vectors, centres_ND: Array, iterations: int
) -> tuple[Array, Array]:
    """Runs steps of Lloyd's algorithm; an empty cluster restarts at a random vector.

    Args:
      key: for random numbers.
      books: one level's codebook, for its size N, its codes in use and whether it is searched by
        direction; its vectors are not read.
      vectors_MD: `[M, D]`, of unit length if the codebook is searched by direction.
      centres_ND: `[N, D]`, where to begin.
      iterations: number of steps, at least 1.

    Returns:
      Centres `[N, D]` after that many steps, and how many vectors `[N]` chose each in the last.
    """
    size = books.size
    even_M = jnp.full(vectors_MD.shape[0], 1.0 / vectors_MD.shape[0], jnp.float32)

    def iterate(centres_ND, key):
        chosen_M = nearest(vectors_MD, centres_ND, books.sizes)
        chosen_MN = jax.nn.one_hot(chosen_M, size, dtype=jnp.float32)
        counts_N = chosen_MN.sum(axis=0)
        sums_ND = jnp.einsum(
            "mn,md->nd", chosen_MN, vectors_MD, precision=jax.lax.Precision.HIGHEST
        )
        means_ND = books.direction(sums_ND / jnp.maximum(counts_N, 1.0)[:, None])
        fresh_ND = draw(key, vectors_MD, even_M, size)
        return jnp.where(counts_N[:, None] > 0, means_ND, fresh_ND), counts_N

    keys = jax.random.split(key, iterations)
    centres_ND, counts_XN = jax.lax.scan(iterate, centres_ND, keys)
    return centres_ND, counts_XN[-1]


def _spread(key: Key, vectors_MD: Array, size: int) -> Array:
    """k-means++: each centre drawn in proportion to its squared distance to those before."""
    first = vectors_MD[jax.random.randint(key, (), 0, vectors_MD.shape[0], jnp.int32)]
    distance_M = jnp.sum((vectors_MD - first[None]) ** 2, axis=1)

    def add(distance_M, key):
        # All vectors equal: every distance is 0, and any vector serves.
        logits_M = jnp.where(distance_M.max() > 0, jnp.log(distance_M), 0.0)
        centre_D = vectors_MD[jax.random.categorical(key, logits_M)]
        return jnp.minimum(
            distance_M, jnp.sum((vectors_MD - centre_D[None]) ** 2, axis=1)
        ), centre_D

    keys = jax.random.split(jax.random.fold_in(key, 1), size - 1)
    _, others_ND = jax.lax.scan(add, distance_M, keys)
    return jnp.concatenate([first[None], others_ND])
