"""Nearest codeword: the hot spot of every vector quantizer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rvq_jax.typing import Array, Vectors

# Measured on two CPU cores (benchmarks/quantize.py): a product of 512 rows runs at the full matrix
# rate, and its 4 MiB of scores at 2,048 codes are still in cache when the maximum reads them.
TILE = 512
BLOCK = 64


def nearest(vectors_MD: Vectors, codebook_ND: Array, size: Array | None = None) -> Array:
    """Index `[M]` int32 of the codeword nearest to each vector in Euclidean distance.

    |v - c|² is smallest where v·c - |c|²/2 is largest: one matrix product, then a maximum; ties go
    to the lowest index. Distances are float32 at the highest matmul precision. Codes from `size`
    on are never chosen.
    """
    sizes_K = None if size is None else jnp.reshape(size, (1,))
    return greedy_codes(codebook_ND[None], vectors_MD, sizes_K)[0]


def greedy_codes(vectors_KND: Array, latents_MD: Vectors, sizes_K: Array | None = None) -> Array:
    """Codes `[K, M]` int32 of latents `[M, D]`: each level the nearest codeword of what is left.

    Codes from `sizes_K[k]` on are never chosen at level k. Zeghidour et al. 2021 (SoundStream).
    """
    books, latents_MD = prepared(vectors_KND, sizes_K), latents_MD.astype(jnp.float32)
    # Tiles are for a CPU's caches; an accelerator wants one large product.
    return jax.lax.platform_dependent(
        *books, latents_MD, cpu=lambda *x: tiled(_levels, TILE, *x), default=_levels
    )


def prepared(vectors_KND: Array, sizes_K: Array | None) -> tuple[Array, Array]:
    """Codebooks `[K, N', D]` in whole blocks and their |c|²/2 `[K, N']`, infinite for no code."""
    size = vectors_KND.shape[1]
    vectors_KND = vectors_KND.astype(jnp.float32)
    half_KN = 0.5 * jnp.sum(vectors_KND**2, axis=2)
    if sizes_K is not None:
        half_KN = jnp.where(jnp.arange(size)[None] < sizes_K[:, None], half_KN, jnp.inf)
    short = -size % BLOCK
    half_KN = jnp.pad(half_KN, ((0, 0), (0, short)), constant_values=jnp.inf)
    return jnp.pad(vectors_KND, ((0, 0), (0, short), (0, 0))), half_KN


def tiled(
    codes: Callable[[Array, Array, Array], Array],
    tile: int,
    vectors_KND: Array,
    half_KN: Array,
    latents_MD: Array,
) -> Array:
    """Codes `[K, M]` by a function of one tile: all levels of a tile before the next tile."""
    count, dim = latents_MD.shape
    if count <= tile:
        return codes(vectors_KND, half_KN, latents_MD)
    tiles = -(-count // tile)
    padded_MD = jnp.pad(latents_MD, ((0, tiles * tile - count), (0, 0)))
    codes_XKM = jax.lax.map(
        lambda tile_MD: codes(vectors_KND, half_KN, tile_MD), padded_MD.reshape(tiles, tile, dim)
    )
    return codes_XKM.swapaxes(0, 1).reshape(-1, tiles * tile)[:, :count]


def products(rows_MD: Array, codebook_ND: Array) -> Array:
    """Inner products `[M, N]`, float32 at the highest precision."""
    return jnp.matmul(rows_MD, codebook_ND.T, precision=jax.lax.Precision.HIGHEST)


def _levels(vectors_KND: Array, half_KN: Array, latents_MD: Array) -> Array:
    def level(residual_MD, inputs):
        codebook_ND, half_N = inputs
        codes_M = _argmax(products(residual_MD, codebook_ND) - half_N[None])
        return residual_MD - codebook_ND[codes_M], codes_M

    return jax.lax.scan(level, latents_MD, (vectors_KND, half_KN))[1]


def _argmax(scores_MN: Array) -> Array:
    """Lowest index `[M]` of the largest score: maxima of blocks, then inside the winning block.

    A plain argmax carries an index beside every score and spends longer than the product itself;
    the maximum over a block is a vector instruction.
    """
    count, size = scores_MN.shape
    scores_MXN = scores_MN.reshape(count, size // BLOCK, BLOCK)
    block_M = _first(scores_MXN.max(axis=2))
    inside_MN = jnp.take_along_axis(scores_MXN, block_M[:, None, None], axis=1)[:, 0]
    return block_M * BLOCK + _first(inside_MN)


def _first(scores_MN: Array) -> Array:
    """Argmax of a few, by two reductions without the index beside the score: ten times as fast."""
    size = scores_MN.shape[1]
    index_1N = jnp.arange(size, dtype=jnp.int32)[None]
    # "Less" and not "equal": where all scores are NaN the index is then 0, as in jnp.argmax.
    below_MN = scores_MN < scores_MN.max(axis=1, keepdims=True)
    return jnp.where(below_MN, size, index_1N).min(axis=1)
