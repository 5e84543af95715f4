"""Nearest codeword: the hot spot of every vector quantizer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rvq_jax.axes import meshed
from rvq_jax.tracing import portable
from rvq_jax.typing import Array, Vectors

# Measured on two CPU cores (benchmarks/quantize.py): products of 2,048 rows run at the full matrix
# rate; a quarter of them costs 10 %, and twice as many bring nothing for twice the memory.
TILE = 2048
BLOCK = 64


def nearest(vectors_MD: Vectors, codebook_ND: Array, size: Array | None = None) -> Array:
    """Index `[M]` int32 of the codeword nearest to each vector in Euclidean distance.

    |v - c|² is smallest where v·c - |c|²/2 is largest: one matrix product, then a maximum; ties go
    to the lowest index. Distances are float32 at the highest matmul precision. Codes from `size`
    on are never chosen.
    """
    return portable(_nearest, "MD", "M")(vectors_MD, codebook_ND, size)


@jax.jit
def _nearest(vectors_MD: Vectors, codebook_ND: Array, size: Array | None) -> Array:
    sizes_K = None if size is None else jnp.reshape(size, (1,))
    return greedy_codes(codebook_ND[None], vectors_MD, sizes_K)[0]


def greedy_codes(vectors_KND: Array, latents_MD: Vectors, sizes_K: Array | None = None) -> Array:
    """Codes `[K, M]` int32 of latents `[M, D]`: each level the nearest codeword of what is left.

    Codes from `sizes_K[k]` on are never chosen at level k. Zeghidour et al. 2021 (SoundStream).
    """
    books, latents_MD = prepared(vectors_KND, sizes_K), latents_MD.astype(jnp.float32)
    # Tiles are for a CPU's caches; an accelerator wants one large product, and a mesh all rows.
    if meshed():
        return _plainly(*books, latents_MD)
    return jax.lax.platform_dependent(
        *books, latents_MD, cpu=lambda *x: tiled(_by_blocks, TILE, *x), default=_plainly
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
    """Finds codes tile by tile: all levels of one tile of vectors before the next tile.

    Tiles are as even as they can be, and the last begins early enough to be whole: what it shares
    with the one before is computed twice, which costs less than a padded copy of all latents.

    Args:
      codes: function of codebooks, their |c|²/2 and a tile of latents `[m, D]` that returns codes
        `[K, m]`.
      tile: largest number of vectors in a tile.
      vectors_KND: codebooks `[K, N, D]`, as `prepared` gives them.
      half_KN: their |c|²/2 `[K, N]`, as `prepared` gives it.
      latents_MD: `[M, D]`.

    Returns:
      Codes `[K, M]` int32.
    """
    (levels, _, dim), count = vectors_KND.shape, latents_MD.shape[0]
    tiles = -(-count // tile)
    if tiles <= 1:
        return codes(vectors_KND, half_KN, latents_MD)
    # Whole vector registers of rows.
    tile = min(tile, -(-count // (16 * tiles)) * 16)

    codes_KM = jnp.zeros_like(latents_MD, shape=(levels, count), dtype=jnp.int32)

    def add(index, codes_KM):
        first = jnp.minimum(index * tile, count - tile)
        tile_MD = jax.lax.dynamic_slice(latents_MD, (first, 0), (tile, dim))
        return jax.lax.dynamic_update_slice(
            codes_KM, codes(vectors_KND, half_KN, tile_MD), (0, first)
        )

    return jax.lax.fori_loop(0, tiles, add, codes_KM)


def products(rows_MD: Array, codebook_ND: Array) -> Array:
    """Inner products `[M, N]`, float32 at the highest precision."""
    return jnp.matmul(rows_MD, codebook_ND.T, precision=jax.lax.Precision.HIGHEST)


def block_maxima(scores_MN: Array) -> Array:
    """Largest score of each block of codes, `[M, N / BLOCK]`.

    A window, not a reshape and a maximum: XLA's CPU code for it is three times as fast.
    """
    window = (1, BLOCK)
    return jax.lax.reduce_window(scores_MN, -jnp.inf, jax.lax.max, window, window, "valid")


def blocks_of(scores_MN: Array, block_MC: Array) -> Array:
    """The scores `[M, C, BLOCK]` of C blocks of each row."""

    def slice_of(row_N, block):
        return jax.lax.dynamic_slice(row_N, (block * BLOCK,), (BLOCK,))

    return jax.vmap(jax.vmap(slice_of, (None, 0)))(scores_MN, block_MC)


def rows_of(table_XN: Array, row_R: Array) -> Array:
    """Rows `[R, N]` of a table, each a slice: XLA's CPU code for a gather goes number by number."""
    return jax.vmap(lambda row: jax.lax.dynamic_index_in_dim(table_XN, row, keepdims=False))(row_R)


def _by_blocks(vectors_KND: Array, half_KN: Array, latents_MD: Array) -> Array:
    return _levels(_argmax, vectors_KND, half_KN, latents_MD)


def _plainly(vectors_KND: Array, half_KN: Array, latents_MD: Array) -> Array:
    def argmax(products_MN, half_N):
        return jnp.argmax(products_MN - half_N[None], axis=1).astype(jnp.int32)

    return _levels(argmax, vectors_KND, half_KN, latents_MD)


def _levels(
    argmax: Callable[[Array, Array], Array], vectors_KND: Array, half_KN: Array, latents_MD: Array
) -> Array:
    def level(residual_MD, inputs):
        codebook_ND, half_N = inputs
        codes_M = argmax(products(residual_MD, codebook_ND), half_N)
        return residual_MD - codebook_ND[codes_M], codes_M

    return jax.lax.scan(level, latents_MD, (vectors_KND, half_KN))[1]


def _argmax(products_MN: Array, half_N: Array) -> Array:
    """Lowest index `[M]` of the largest score: maxima of blocks, then inside the winning block.

    A plain argmax carries an index beside every score and spends longer than the product itself;
    the maximum over a block is a vector instruction.
    """
    block_M = _first(block_maxima(products_MN - half_N[None]))
    # From the products, so that the scores are never written to memory.
    inside_MN = blocks_of(products_MN, block_M[:, None])[:, 0] - half_N.reshape(-1, BLOCK)[block_M]
    return block_M * BLOCK + _first(inside_MN)


def _first(scores_MN: Array) -> Array:
    """Argmax of a few, by two reductions without the index beside the score: ten times as fast."""
    size = scores_MN.shape[1]
    index_1N = jnp.arange(size, dtype=jnp.int32)[None]
    # "Less" and not "equal": where all scores are NaN the index is then 0, as in jnp.argmax.
    below_MN = scores_MN < scores_MN.max(axis=1, keepdims=True)
    return jnp.where(below_MN, size, index_1N).min(axis=1)
