"""Beam search: several prefixes of codes are kept per vector, and the best complete one wins."""

from functools import partial

import jax
import jax.numpy as jnp

from rvq_jax.quantize.search import BLOCK, greedy_codes, prepared, products, tiled
from rvq_jax.typing import Array, Vectors

# Residuals of one tile, over all its beams: 8 MiB of scores at 2,048 codes. On two CPU cores a
# quarter of it takes as long, so this only bounds the memory.
ROWS = 1024


def beam_codes(
    vectors_KND: Array, latents_MD: Vectors, beam: int, sizes_K: Array | None = None
) -> Array:
    """Codes `[K, M]` int32 of latents `[M, D]`: after each level the `beam` prefixes of least
    squared error stay; ties go to the better prefix, then to the lowest code.

    Codes from `sizes_K[k]` on are never chosen at level k. Raises ValueError if beam is below 1.
    Babenko and Lempitsky 2014 (Additive quantization); Liu et al. 2015 (Improved RVQ).
    """
    if beam < 1:
        raise ValueError(f"beam must be at least 1, got {beam}")
    if beam == 1:
        return greedy_codes(vectors_KND, latents_MD, sizes_K)
    books = prepared(vectors_KND, sizes_K)
    # Also on an accelerator: all beams' scores at once would be `beam` times the greedy ones.
    return tiled(
        partial(_levels, beam), max(1, ROWS // beam), *books, latents_MD.astype(jnp.float32)
    )


def _levels(beam: int, vectors_KND: Array, half_KN: Array, latents_MD: Array) -> Array:
    """One tile through all levels. A prefix is a beam (P beams), named by its rank."""

    def level(kept, inputs):
        residual_MPD, score_MP = kept
        codebook_ND, half_N = inputs
        count, beams, dim = residual_MPD.shape
        gain_RN = products(residual_MPD.reshape(-1, dim), codebook_ND) - half_N[None]
        value_MP, index_MP = _largest(beam, gain_RN.reshape(count, beams, -1), score_MP)
        parent_MP, code_MP = index_MP // half_N.size, index_MP % half_N.size
        residual_MPD = (
            jnp.take_along_axis(residual_MPD, parent_MP[:, :, None], axis=1) - codebook_ND[code_MP]
        )
        # From the residual and not from the sum of gains, which would gather rounding errors.
        error_MP = 0.5 * jnp.sum(residual_MPD**2, axis=2)
        # Where there are fewer candidates than beams, the rest must stay the worst.
        score_MP = jnp.where(value_MP == -jnp.inf, -jnp.inf, -error_MP)
        return (residual_MPD, score_MP), (parent_MP, code_MP)

    # The first level extends one empty prefix, not `beam` of them.
    empty = latents_MD[:, None], jnp.zeros((len(latents_MD), 1))
    kept, (_, first_MP) = level(empty, (vectors_KND[0], half_KN[0]))
    (_, score_MP), (parent_KMP, code_KMP) = jax.lax.scan(
        level, kept, (vectors_KND[1:], half_KN[1:])
    )
    best_M = jnp.argmax(score_MP, axis=1)
    best_M, codes_KM = jax.lax.scan(_back, best_M, (parent_KMP, code_KMP), reverse=True)
    return jnp.concatenate([_pick(first_MP, best_M)[None], codes_KM]).astype(jnp.int32)


def _back(best_M: Array, level: tuple[Array, Array]) -> tuple[Array, Array]:
    parent_MP, code_MP = level
    return _pick(parent_MP, best_M), _pick(code_MP, best_M)


def _pick(values_MP: Array, index_M: Array) -> Array:
    return jnp.take_along_axis(values_MP, index_M[:, None], axis=1)[:, 0]


def _largest(beam: int, gain_MPN: Array, score_MP: Array) -> tuple[Array, Array]:
    """The `beam` largest of gain + score, `[M, beam]`, and their indices in P · N, lowest first.

    The best `beam` candidates lie in the `beam` blocks of the best maxima. A `top_k` over all P · N
    would sort for longer than the products take; over maxima, and inside few blocks, it is short.
    """
    count, beams, size = gain_MPN.shape
    blocks = beams * size // BLOCK
    gain_MXN = gain_MPN.reshape(count, blocks, BLOCK)
    score_MX = jnp.repeat(score_MP, size // BLOCK, axis=1)
    _, block_MX = jax.lax.top_k(gain_MXN.max(axis=2) + score_MX, min(beam, blocks))
    # In the order of their indices, so that among equals `top_k` takes the lowest code.
    block_MX = jnp.sort(block_MX, axis=1)
    inside_MXN = jnp.take_along_axis(gain_MXN, block_MX[:, :, None], axis=1)
    inside_MXN += jnp.take_along_axis(score_MX, block_MX, axis=1)[:, :, None]
    inside_MC = inside_MXN.reshape(count, -1)
    short = max(0, beam - inside_MC.shape[1])
    inside_MC = jnp.pad(inside_MC, ((0, 0), (0, short)), constant_values=-jnp.inf)
    value_MP, place_MP = jax.lax.top_k(inside_MC, beam)
    # Places of padding lie beyond the last block; their value keeps them from being chosen.
    chosen_MP = jnp.minimum(place_MP // BLOCK, block_MX.shape[1] - 1)
    block_MP = jnp.take_along_axis(block_MX, chosen_MP, axis=1)
    return value_MP, block_MP * BLOCK + place_MP % BLOCK
