"""Residual quantization in one TPU kernel: a tile of vectors stays in VMEM through all K levels.

The plain version, `search.greedy_codes`, is its oracle. There XLA reads and writes the residuals of
all vectors at every level, and on some chips (v5p) scores too; here neither leaves the core. XLA
cannot split a kernel: a program for several devices must call it inside
`jax.shard_map(…, check_vma=False)`.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from rvq_jax.typing import Array, Vectors

# Vectors of one program, and codewords of one of its steps. By the static schedule for v5e (N 2048,
# D 128) the matrix units are busy 83 % of the time; twice the side would save 7 %, for four times
# the VMEM, and half of it cost 29 %.
SIDE = 512


def residual_codes(
    vectors_KND: Array,
    latents_MD: Vectors,
    sizes_K: Array | None = None,
    *,
    interpret: bool = False,
) -> Array:
    """Finds the nearest codewords of latents level by level, in one TPU kernel.

    Ties go to the lowest index; any float type is widened to float32 first. Zeghidour et al. 2021
    (SoundStream) §III.C.

    Args:
      vectors_KND: codebooks `[K, N, D]`.
      latents_MD: `[M, D]`.
      sizes_K: `[K]`; codes from `sizes_K[k]` on are never chosen at level k. None for all N.
      interpret: run the kernel on any device, slowly.

    Returns:
      Codes `[K, M]` int32.
    """
    levels, size, dim = vectors_KND.shape
    count = latents_MD.shape[0]
    side = _side(dim)
    tile, block = min(side, count), min(side, size)
    # What lies beyond the last vector is undefined but stays in its own column; beyond the last
    # codeword it would enter the products of all vectors, so there it must be zero.
    vectors_KND = jnp.pad(vectors_KND, ((0, 0), (0, -size % block), (0, 0)))
    tiles, blocks = pl.cdiv(count, tile), vectors_KND.shape[1] // block
    if sizes_K is None:
        sizes_K = jnp.full(levels, size, jnp.int32)
    call = pl.pallas_call(
        functools.partial(_step, blocks=blocks),
        name="residual_codes",
        # Sizes are scalars, so they come before the grid; every index map sees them last.
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(tiles, levels, blocks),
            in_specs=[
                pl.BlockSpec((None, block, dim), lambda m, k, n, _: (k, n, 0)),
                pl.BlockSpec((tile, dim), lambda m, k, n, _: (m, 0)),
            ],
            out_specs=pl.BlockSpec((levels, tile), lambda m, k, n, _: (0, m)),
            scratch_shapes=[
                pltpu.VMEM((dim, tile), jnp.float32),
                pltpu.VMEM((dim, tile), jnp.float32),
                pltpu.VMEM((1, tile), jnp.float32),
            ],
        ),
        out_shape=jax.ShapeDtypeStruct((levels, count), jnp.int32),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary")
        ),
        cost_estimate=pl.CostEstimate(
            flops=4 * count * levels * size * dim,
            bytes_accessed=tiles * vectors_KND.nbytes + latents_MD.nbytes + 4 * levels * count,
            transcendentals=0,
        ),
        interpret=interpret,
    )
    # Codes have no gradient, and Pallas would look for one.
    return call(sizes_K, *jax.lax.stop_gradient((vectors_KND, latents_MD)))


def _side(dim: int) -> int:
    """Fewer vectors and codewords where they are long: v4 and v5 give a kernel 16 MiB of VMEM."""
    return max(128, min(SIDE, SIDE * 512 // dim // 128 * 128))


def _step(
    sizes_ref, book_ref, latents_ref, codes_ref, residual_ref, chosen_ref, best_ref, *, blocks
):
    """One level's block of codewords against one tile of vectors.

    Vectors lie along the lanes: a maximum over codewords is then one down the sublanes, which is
    cheap, and codes come out as the rows of `[K, M]`.
    """
    level, block = pl.program_id(1), pl.program_id(2)

    @pl.when((level == 0) & (block == 0))
    def _():
        residual_ref[...] = latents_ref[...].astype(jnp.float32).T

    book_ND = book_ref[...].astype(jnp.float32)
    first = block * book_ND.shape[0]
    scores_NM = _scores(book_ND, residual_ref[...], sizes_ref[level] - first)
    best_1M, code_1M, onehot_NM = _argmax(scores_NM)
    # Only a strictly better block wins, so that ties go to the lowest index.
    better_1M = (best_1M > best_ref[...]) | (block == 0)
    row = codes_ref.at[pl.ds(level, 1)]
    row[...] = jnp.where(better_1M, first + code_1M, row[...])
    best_ref[...] = jnp.where(better_1M, best_1M, best_ref[...])
    chosen_ref[...] = jnp.where(better_1M, _gather(book_ND, onehot_NM), chosen_ref[...])

    @pl.when(block == blocks - 1)
    def _():
        residual_ref[...] -= chosen_ref[...]


def _scores(book_ND: Array, residual_DM: Array, valid: Array) -> Array:
    """Scores `[N, M]`, c·x - |c|²/2, largest for the nearest codeword; -inf from row `valid` on."""
    index_N1 = jax.lax.broadcasted_iota(jnp.int32, (book_ND.shape[0], 1), 0)
    half_N1 = 0.5 * jnp.sum(book_ND**2, axis=1, keepdims=True)
    products_NM = jnp.dot(book_ND, residual_DM, precision=jax.lax.Precision.HIGHEST)
    return products_NM - jnp.where(index_N1 < valid, half_N1, jnp.inf)


def _argmax(scores_NM: Array) -> tuple[Array, Array, Array]:
    """Maximum `[1, M]` of scores `[N, M]`, its lowest index `[1, M]` and that as a one-hot."""
    index_NM = jax.lax.broadcasted_iota(jnp.int32, scores_NM.shape, 0)
    best_1M = jnp.max(scores_NM, axis=0, keepdims=True)
    # "Less" and not "equal": where all scores are NaN the index is then 0, as in jnp.argmax.
    held_NM = jnp.where(scores_NM < best_1M, scores_NM.shape[0], index_NM)
    code_1M = jnp.min(held_NM, axis=0, keepdims=True)
    return best_1M, code_1M, index_NM == code_1M


def _gather(book_ND: Array, onehot_NM: Array) -> Array:
    """Codewords `[D, M]`, exact to the last bit, by products with a one-hot `[N, M]`.

    Every product has one term that is not zero, so it is exact, and so is the sum: half the passes
    of a float32 product at the highest precision.
    """
    onehot_NM = onehot_NM.astype(jnp.bfloat16)
    high_DM, middle_DM, low_DM = (
        jax.lax.dot_general(
            part_ND, onehot_NM, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )
        for part_ND in _thirds(book_ND)
    )
    return high_DM + middle_DM + low_DM


def _thirds(values: Array) -> list[Array]:
    """Three bfloat16 arrays that add up to a float32 one: its 24 bits, eight by eight.

    Cut by a mask of bits, for XLA may drop a cast to bfloat16 and back (excess precision). Only
    numbers below 2^-103 lose bits, which no distance would show.
    """
    parts = []
    for _ in range(3):
        bits = jax.lax.bitcast_convert_type(values, jnp.int32) & ~0xFFFF
        part = jax.lax.bitcast_convert_type(bits, jnp.float32)
        parts.append(part.astype(jnp.bfloat16))
        values = values - part
    return parts
