"""Nearest codeword: the hot spot of every vector quantizer."""

import jax
import jax.numpy as jnp

from rvq_jax.typing import Array, Vectors

# Measured on two CPU cores (benchmarks/rvq_encode.py): scores of one tile stay in cache, so that
# the maximum reads them there and not from memory.
TILE = 256
BLOCK = 64


def nearest(vectors_MD: Vectors, codebook_ND: Array) -> Array:
    """Index `[M]` int32 of the codeword nearest to each vector in Euclidean distance.

    |v - c|² is smallest where v·c - |c|²/2 is largest: one matrix product, then a maximum; ties go
    to the lowest index. Distances are float32 at the highest matmul precision.
    """
    vectors_MD = vectors_MD.astype(jnp.float32)
    codebook_ND = codebook_ND.astype(jnp.float32)
    # Tiles are for a CPU's caches; an accelerator wants one large product.
    return jax.lax.platform_dependent(vectors_MD, codebook_ND, cpu=_tiled, default=_best)


def _tiled(vectors_MD: Array, codebook_ND: Array) -> Array:
    count, dim = vectors_MD.shape
    if count <= TILE:
        return _best(vectors_MD, codebook_ND)
    tiles = -(-count // TILE)
    padded = jnp.pad(vectors_MD, ((0, tiles * TILE - count), (0, 0)))
    codes = jax.lax.map(lambda tile: _best(tile, codebook_ND), padded.reshape(tiles, TILE, dim))
    return codes.reshape(-1)[:count]


def _best(vectors_MD: Array, codebook_ND: Array) -> Array:
    """Two maxima in place of one argmax over N: over blocks, then inside the winning block.

    A plain argmax carries an index beside every score and spends longer than the product itself;
    the maximum over a block is a vector instruction.
    """
    scores_MN = (
        jnp.matmul(vectors_MD, codebook_ND.T, precision=jax.lax.Precision.HIGHEST)
        - 0.5 * jnp.sum(codebook_ND**2, axis=1)[None]
    )
    count, size = scores_MN.shape
    if size % BLOCK:
        return jnp.argmax(scores_MN, axis=1).astype(jnp.int32)
    scores_MXN = scores_MN.reshape(count, size // BLOCK, BLOCK)
    block_M = jnp.argmax(scores_MXN.max(axis=2), axis=1)
    inside_MN = jnp.take_along_axis(scores_MXN, block_M[:, None, None], axis=1)[:, 0]
    return (block_M * BLOCK + jnp.argmax(inside_MN, axis=1)).astype(jnp.int32)
