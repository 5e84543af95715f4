"""Beam search: several prefixes of codes are kept per vector, and the best complete one wins."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rvq_jax.quantize.search import (
    BLOCK,
    block_maxima,
    blocks_of,
    greedy_codes,
    prepared,
    products,
    rows_of,
    tiled,
)
from rvq_jax.typing import Array, Vectors

# Residuals of one tile, over all its beams: 16 MiB of scores at 2,048 codes. Half of it costs a
# tenth on two CPU cores, twice as many bring nothing.
ROWS = 2048


def beam_codes(
    vectors_KND: Array,
    latents_MD: Vectors,
    sizes_K: Array | None = None,
    *,
    beam: int,
    tables: Array | None = None,
) -> Array:
    """Finds codes by a beam search: after each level the prefixes of least squared error stay.

    Ties go to the better prefix, then to the lowest code. With `tables` no residual is kept: its
    inner product with a codeword is the latent's product less those of the prefix's codewords,
    which are rows of the tables, so a score costs k additions in place of D multiplications.
    Babenko and Lempitsky 2014 (Additive quantization); Liu et al. 2015 (Improved RVQ).

    Args:
      vectors_KND: codebooks `[K, N, D]`.
      latents_MD: `[M, D]`.
      sizes_K: `[K]`; codes from `sizes_K[k]` on are never chosen at level k. None for all N.
      beam: number of prefixes kept per vector; 1 is a greedy search, which needs no tables.
      tables: what `pair_products` makes of the codebooks, or of more levels that begin with them.
        None to search with residuals.

    Returns:
      Codes `[K, M]` int32.

    Raises:
      ValueError: for a beam below 1, or tables of other codebooks' shape.
    """
    if beam < 1:
        raise ValueError(f"beam must be at least 1, got {beam}")
    if beam == 1:
        return greedy_codes(vectors_KND, latents_MD, sizes_K)
    books = prepared(vectors_KND, sizes_K)
    levels, size, _ = books[0].shape
    pairs = levels * (levels - 1) // 2
    if tables is not None and (tables.shape[0] < pairs or tables.shape[1:] != (size, size)):
        raise ValueError(
            f"{levels} levels of {vectors_KND.shape[1]} codes need tables [{pairs}, {size}, "
            f"{size}], got {list(tables.shape)}: make them anew by beam_tables"
        )
    if levels == 1:
        tables = None  # and no pair of levels
    # Also on an accelerator: all beams' scores at once would be `beam` times the greedy ones.
    return tiled(
        partial(_levels, beam, tables), max(1, ROWS // beam), *books, latents_MD.astype(jnp.float32)
    )


def pair_products(vectors_KND: Array) -> Array:
    """Inner products `[K(K-1)/2, N', N']` of codewords of each two levels, N' in whole blocks.

    Pair (k, j), j < k, lies at k(k-1)/2 + j and has the codes of level j in front.
    """
    vectors_KND, _ = prepared(vectors_KND, None)
    later_P, earlier_P = (jnp.array(x, jnp.int32) for x in np.tril_indices(len(vectors_KND), -1))
    return jax.lax.map(
        lambda pair: products(vectors_KND[pair[0]], vectors_KND[pair[1]]), (earlier_P, later_P)
    )


def _levels(
    beam: int, tables: Array | None, vectors_KND: Array, half_KN: Array, latents_MD: Array
) -> Array:
    """One tile through all levels. Every vector keeps P prefixes of codes, best first."""
    (levels, _, dim), count = vectors_KND.shape, latents_MD.shape[0]

    def level(kept, inputs):
        codes_MPK, score_MP, residual_MPD = kept
        index, codebook_ND, half_N = inputs
        if tables is None:
            product_RN = products(residual_MPD.reshape(-1, dim), codebook_ND)
        else:
            product_MN = products(latents_MD, codebook_ND)
            product_RN = _less_prefixes(tables, product_MN, codes_MPK, index)
        value_MP, parent_MP, code_MP = _largest(beam, product_RN, half_N, score_MP)
        codes_MPK = jnp.take_along_axis(codes_MPK, parent_MP[:, :, None], axis=1)
        codes_MPK = jax.lax.dynamic_update_index_in_dim(codes_MPK, code_MP, index, 2)
        if tables is not None:
            return (codes_MPK, value_MP, None), None
        residual_MPD = jnp.take_along_axis(residual_MPD, parent_MP[:, :, None], axis=1)
        residual_MPD -= codebook_ND[code_MP]
        # From the residual and not from the sum of gains, which would gather rounding errors.
        error_MP = 0.5 * jnp.sum(residual_MPD**2, axis=2)
        # Where there are fewer candidates than beams, the rest must stay the worst.
        score_MP = jnp.where(value_MP == -jnp.inf, -jnp.inf, -error_MP)
        return (codes_MPK, score_MP, residual_MPD), None

    # The first level extends one empty prefix, not `beam` of them.
    no_codes = jnp.zeros_like(latents_MD, shape=(count, 1, levels), dtype=jnp.int32)
    no_score = jnp.zeros_like(latents_MD, shape=(count, 1))
    empty = no_codes, no_score, latents_MD[:, None] if tables is None else None
    kept, _ = level(empty, (0, vectors_KND[0], half_KN[0]))
    inputs = jnp.arange(1, levels), vectors_KND[1:], half_KN[1:]
    (codes_MPK, score_MP, _), _ = jax.lax.scan(level, kept, inputs)
    best_M11 = jnp.argmax(score_MP, axis=1)[:, None, None]
    return jnp.take_along_axis(codes_MPK, best_M11, axis=1)[:, 0].T


def _less_prefixes(tables: Array, product_MN: Array, codes_MPK: Array, index: Array) -> Array:
    """Products `[R, N]` of level `index`'s codewords with what each prefix leaves, R = M · P."""
    count, beams, levels = codes_MPK.shape
    size = product_MN.shape[1]
    rows_XN, codes_RK = tables.reshape(-1, size), codes_MPK.reshape(-1, levels)

    def row(earlier):
        pair = index * (index - 1) // 2 + earlier
        row_R = pair * size + jax.lax.dynamic_index_in_dim(codes_RK, earlier, 1, keepdims=False)
        return jnp.where(earlier < index, rows_of(rows_XN, row_R), 0.0)

    def subtract(two, product_RN):
        return product_RN - row(2 * two) - row(2 * two + 1)

    # Two levels at a time: each time all products are read and written again.
    product_MPN = jnp.broadcast_to(product_MN[:, None], (count, beams, size))
    return jax.lax.fori_loop(0, (index + 1) // 2, subtract, product_MPN.reshape(-1, size))


def _largest(
    beam: int, product_RN: Array, half_N: Array, score_MP: Array
) -> tuple[Array, Array, Array]:
    """The `beam` best children `[M, beam]`: product - half + score, the parent, the code.

    Rows R are M · P. The best `beam` candidates lie in the `beam` blocks of the best maxima. A
    `top_k` over all P · N would sort for longer than the products take; over maxima, and inside
    few blocks, it is short.
    """
    (count, beams), size = score_MP.shape, half_N.size
    blocks = size // BLOCK
    maxima_MX = block_maxima(product_RN - half_N[None]).reshape(count, -1)
    maxima_MX += jnp.repeat(score_MP, blocks, axis=1)
    _, block_MC = jax.lax.top_k(maxima_MX, min(beam, beams * blocks))
    # In the order of their indices, so that among equals `top_k` takes the lowest code.
    block_MC = jnp.sort(block_MC, axis=1)
    inside_MCN = blocks_of(product_RN.reshape(count, -1), block_MC)
    half_YN = rows_of(half_N.reshape(-1, BLOCK), (block_MC % blocks).reshape(-1))
    inside_MCN -= half_YN.reshape(inside_MCN.shape)
    inside_MCN += jnp.take_along_axis(score_MP, block_MC // blocks, axis=1)[:, :, None]
    inside_MY = inside_MCN.reshape(count, -1)
    short = max(0, beam - inside_MY.shape[1])
    inside_MY = jnp.pad(inside_MY, ((0, 0), (0, short)), constant_values=-jnp.inf)
    value_MP, place_MP = jax.lax.top_k(inside_MY, beam)
    # Places of padding lie beyond the last block; their value keeps them from being chosen.
    chosen_MP = jnp.minimum(place_MP // BLOCK, block_MC.shape[1] - 1)
    index_MP = jnp.take_along_axis(block_MC, chosen_MP, axis=1) * BLOCK + place_MP % BLOCK
    return value_MP, index_MP // size, index_MP % size
