"""Residual vector quantization: level 1 codes the latents, each next level what is left."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rvq_jax.quantize import learn
from rvq_jax.quantize.search import nearest
from rvq_jax.quantize.state import Codebooks
from rvq_jax.quantize.stats import LevelStats, level_stats
from rvq_jax.typing import Array, Codes, Key, Latents


class Quantized(NamedTuple):
    """What `quantize` returns: B items of F frames through K levels."""

    latents: Array  # [B, F, D]; the gradient passes straight through to the input
    codes: Array  # [B, K, F] int32
    commitment: Array  # [K], mean squared distance of each level's input to its codeword
    stats: LevelStats  # each [K]
    state: Codebooks  # learned from this batch if train, else the state given


def encode(state: Codebooks, latents: Latents, levels: int | None = None) -> Codes:
    """Codes `[B, K, F]` of latents `[B, F, D]`, greedily level by level.

    `levels` keeps a prefix of the levels. Raises ValueError if it is outside 1..K.
    van den Oord et al. 2017 (VQ-VAE); Zeghidour et al. 2021 (SoundStream) for the residual form.
    """

    def level(residual_MD, vectors_ND):
        codes_M = nearest(residual_MD, vectors_ND)
        return residual_MD - vectors_ND[codes_M], codes_M

    batch, frames, dim = latents.shape
    _, codes_KM = jax.lax.scan(level, latents.reshape(-1, dim), state.first(levels).vectors)
    return _to_BKF(codes_KM, batch, frames)


def decode(state: Codebooks, codes: Codes) -> Latents:
    """Latents `[B, F, D]`: the sum of the codewords of `[B, K', F]`, K' any prefix of the levels.

    Raises ValueError if there are more levels of codes than codebooks.
    """
    batch, levels, frames = codes.shape

    def level(total_BFD, inputs):
        vectors_ND, codes_BF = inputs
        return total_BFD + vectors_ND[codes_BF], None

    zero_BFD = jnp.zeros((batch, frames, state.dim), state.vectors.dtype)
    inputs = state.first(levels).vectors, codes.swapaxes(0, 1)
    return jax.lax.scan(level, zero_BFD, inputs)[0]


def quantize(
    state: Codebooks,
    latents: Latents,
    *,
    key: Key | None = None,
    train: bool = False,
    mask: Array | None = None,
    dropout: float = 0.0,
    decay: float = 0.99,
    expiry: float = 0.1,
) -> Quantized:
    """Quantizes latents `[B, F, D]`, gradient straight through; learns the codebooks if train.

    mask `[B, F]`: False frames give codes but no loss, no statistics and no learning.
    dropout: share of items that keep only their first 1..K levels, drawn uniformly per item, so
    that every prefix decodes well (SoundStream §III.C).
    decay, expiry: of the running means, and the share of uniform use below which a code is
    replaced (see `learn.update`).

    Every level's commitment loss is taken on the input minus *constant* codewords, so its gradient
    reaches the encoder from every level. Raises ValueError if train without a key.
    """
    if train and key is None:
        raise ValueError("quantize(train=True) draws random numbers: give it a key")
    batch, frames, dim = latents.shape
    mask_BF = jnp.ones((batch, frames), bool) if mask is None else mask
    weight_M = mask_BF.reshape(-1) / jnp.maximum(mask_BF.sum(), 1)
    level_keys = drop_key = None
    if train:
        drop_key, learn_key = jax.random.split(key)
        level_keys = jax.random.split(learn_key, state.levels)
    kept_B = _kept_levels(drop_key, batch, state.levels, dropout if train else 0.0)

    def level(carry, inputs):
        residual_MD, total_MD = carry
        index, books, level_key = inputs
        codes_M = nearest(residual_MD, books.vectors)
        chosen_MD = jax.lax.stop_gradient(books.vectors[codes_M])
        active_M = jnp.repeat(index < kept_B, frames, total_repeat_length=batch * frames)
        error_M = jnp.mean((residual_MD - chosen_MD) ** 2, axis=1)
        left_MD = residual_MD - chosen_MD
        learned = (
            learn.update(level_key, books, residual_MD, codes_M, weight_M, decay, expiry)
            if train
            else books
        )
        outputs = (
            codes_M,
            jnp.sum(error_M * weight_M * active_M),
            level_stats(codes_M, residual_MD, left_MD, weight_M, state.size),
            learned,
        )
        return (left_MD, total_MD + chosen_MD * active_M[:, None]), outputs

    flat_MD = latents.reshape(-1, dim).astype(jnp.float32)
    inputs = jnp.arange(state.levels), state, level_keys
    (_, total_MD), (codes_KM, commitment_K, stats, learned) = jax.lax.scan(
        level, (flat_MD, jnp.zeros_like(flat_MD)), inputs
    )
    quantized_BFD = total_MD.reshape(latents.shape).astype(latents.dtype)
    straight_BFD = latents + jax.lax.stop_gradient(quantized_BFD - latents)
    codes_BKF = _to_BKF(codes_KM, batch, frames)
    return Quantized(straight_BFD, codes_BKF, commitment_K, stats, learned)


def _kept_levels(key: Key | None, batch: int, levels: int, dropout: float) -> Array:
    everything_B = jnp.full((batch,), levels)
    if dropout == 0.0:
        return everything_B
    # Keys are folded per item: an item's draw must not depend on the size of its batch.
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))

    def draw(item_key):
        choose, count = jax.random.split(item_key)
        kept = jax.random.randint(count, (), 1, levels + 1)
        return jnp.where(jax.random.bernoulli(choose, dropout), kept, levels)

    return jax.vmap(draw)(keys)


def _to_BKF(codes_KM: Array, batch: int, frames: int) -> Array:
    return codes_KM.reshape(-1, batch, frames).swapaxes(0, 1)
