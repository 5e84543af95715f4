"""Offline training of a residual quantizer on a matrix of vectors: embeddings as well as audio."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from rvq_jax.quantize import checks
from rvq_jax.quantize.beam import beam_codes
from rvq_jax.quantize.search import nearest
from rvq_jax.quantize.start import lloyd
from rvq_jax.quantize.state import Codebooks, init
from rvq_jax.tracing import portable, typed
from rvq_jax.typing import Array, Key, Vectors

HIGHEST = jax.lax.Precision.HIGHEST


def fit(
    key: Key,
    vectors: Vectors,
    levels: int,
    size: int,
    *,
    iterations: int = 10,
    rounds: int = 3,
    beam: int = 5,
) -> Codebooks:
    """Fits the codebooks of K levels to vectors in two parts.

    First level by level on the residual of the levels before, each by a progressive k-means: on the
    first principal axis, then on twice as many, up to all D. Then rounds of encoding with a beam
    and refining all codebooks together (`refine`). Liu et al. 2015 (Improved residual vector
    quantization).

    Args:
      key: for random numbers.
      vectors: `[M, D]`, M well above N.
      levels: number of levels K.
      size: number of codes N of every level.
      iterations: k-means steps for each number of axes.
      rounds: rounds of encoding and refining.
      beam: number of prefixes of codes kept per vector when encoding.

    Returns:
      Codebooks `[K, N, D]`.

    Raises:
      ValueError: for fewer than N vectors, vectors that are not `[M, D]` or not finite, or a number
        of levels, codes or prefixes below 1.
    """
    checks.array(vectors, "vectors")
    if vectors.ndim != 2:
        raise ValueError(f"vectors must be [M, D], got {list(vectors.shape)}")
    checks.vectors(vectors, vectors.shape[1])
    if vectors.shape[0] < size:
        raise ValueError(f"{size} codes need at least as many vectors, got {vectors.shape[0]}")
    vectors = jnp.asarray(vectors, jnp.float32)
    key = typed(key)
    state = _progressive(key, init(key, levels, size, vectors.shape[1]), vectors, iterations)
    for _ in range(rounds):
        state = _refine(vectors, state, _encode(state.vectors, vectors, beam), steps=20)
    return state


def refine(state: Codebooks, vectors: Vectors, codes_KM: Array, steps: int = 20) -> Codebooks:
    """Moves all codebooks together so that given codes decode nearest to their vectors.

    Least squares over all levels at once, by conjugate gradients from the codebooks given, so the
    error never grows and a code that none chose stays. Babenko & Lempitsky 2014, §3.2.

    Args:
      state: codebooks `[K, N, D]` to begin from.
      vectors: `[M, D]`.
      codes_KM: `[K, M]`, the codes of the vectors, held fixed.
      steps: at most so many steps of conjugate gradients.

    Returns:
      Codebooks `[K, N, D]`, with each code's share of the M vectors as its count.

    Raises:
      ValueError: shapes that do not fit, vectors that are not finite, or codes outside [0, N).
    """
    checks.vectors(vectors, state.dim)
    checks.array(codes_KM, "codes")
    checks.codes(codes_KM[None], state.levels, state.size)
    if codes_KM.shape != (state.levels, len(vectors)):
        want = [state.levels, len(vectors)]
        raise ValueError(f"codes must be [K, M] = {want}, got {list(codes_KM.shape)}")
    return _refine(vectors, state, codes_KM, steps)


@functools.partial(jax.jit, static_argnames="beam")
def _encode(vectors_KND: Array, latents_MD: Vectors, beam: int) -> Array:
    def run(latents_MD, vectors_KND):
        return beam_codes(vectors_KND, latents_MD, beam=beam)

    return portable(run, "MD", "KM")(latents_MD, vectors_KND)


@functools.partial(jax.jit, static_argnames="steps")
def _refine(vectors: Vectors, state: Codebooks, codes_KM: Array, steps: int) -> Codebooks:
    run = functools.partial(_least_squares, steps=steps)
    return portable(run, "MD", "")(vectors, state, codes_KM)


def _least_squares(vectors: Vectors, state: Codebooks, codes_KM: Array, *, steps: int) -> Codebooks:
    vectors, size = vectors.astype(jnp.float32), state.size

    def decode(books_KND):
        def level(total_MD, inputs):
            book_ND, codes_M = inputs
            return total_MD + book_ND[codes_M], None

        return jax.lax.scan(level, jnp.zeros_like(vectors), (books_KND, codes_KM))[0]

    def gather(vectors_MD):
        return jax.lax.map(lambda c: jax.ops.segment_sum(vectors_MD, c, size), codes_KM)

    vectors_KND, _ = jax.scipy.sparse.linalg.cg(
        lambda books_KND: gather(decode(books_KND)),
        gather(vectors),
        x0=state.vectors,
        maxiter=steps,
    )
    counts_KN = jax.lax.map(
        lambda c: jax.ops.segment_sum(jnp.full(c.shape, 1.0 / c.size, jnp.float32), c, size),
        codes_KM,
    )
    return dataclasses.replace(
        state, vectors=vectors_KND, sums=vectors_KND * counts_KN[..., None], counts=counts_KN
    )


@functools.partial(jax.jit, static_argnames="iterations")
def _progressive(key: Key, state: Codebooks, vectors_MD: Array, iterations: int) -> Codebooks:
    run = functools.partial(_by_more_axes, iterations=iterations)
    return portable(run, "MD", "")(vectors_MD, key, state)


def _by_more_axes(vectors_MD: Array, key: Key, state: Codebooks, *, iterations: int) -> Codebooks:
    count, dim = vectors_MD.shape
    shown = [min(2**i, dim) for i in range(dim.bit_length() + 1)]
    shown = jnp.array(sorted(set(shown)), jnp.int32)

    def level(residual_MD, inputs):
        key, books = inputs
        start_key, stage_key = jax.random.split(key)
        # Columns of the axes: principal ones first.
        centred_MD = residual_MD - residual_MD.mean(axis=0, keepdims=True)
        covariance_DD = jnp.matmul(centred_MD.T, centred_MD, precision=HIGHEST) / count
        axes_DD = jnp.linalg.eigh(covariance_DD)[1][:, ::-1]
        turned_MD = jnp.matmul(residual_MD, axes_DD, precision=HIGHEST)

        def stage(centres_ND, inputs):
            key, shown = inputs
            seen_MD = jnp.where(jnp.arange(dim)[None] < shown, turned_MD, 0.0)
            return lloyd(key, books, seen_MD, centres_ND, iterations)

        first_ND = turned_MD[jax.random.permutation(start_key, count)[: books.size]]
        # The axes not yet shown must not tell one centre from another.
        first_ND = jnp.where(jnp.arange(dim)[None] < 1, first_ND, 0.0)
        keys = jax.random.split(stage_key, shown.size)
        centres_ND, counts_XN = jax.lax.scan(stage, first_ND, (keys, shown))
        centres_ND = jnp.matmul(centres_ND, axes_DD.T, precision=HIGHEST)
        left_MD = residual_MD - centres_ND[nearest(residual_MD, centres_ND)]
        counts_N = counts_XN[-1] / count
        learned = dataclasses.replace(
            books, vectors=centres_ND, sums=centres_ND * counts_N[:, None], counts=counts_N
        )
        return left_MD, learned

    keys = jax.random.split(key, state.levels)
    return jax.lax.scan(level, vectors_MD, (keys, state))[1]
