"""What codes cost under a masked token model: bits of masked ones, and a bound on all."""

import jax
import jax.numpy as jnp

from rvq_jax.lm.conditioner import Features
from rvq_jax.lm.conditions import Conditions
from rvq_jax.lm.decode import row_keys
from rvq_jax.lm.heads import bits
from rvq_jax.lm.masked import LogitsOf
from rvq_jax.lm.masked_lm import MaskedLM
from rvq_jax.lm.masking import Masks, hide, uniform_masks
from rvq_jax.typing import Array, Codes, Key, Tokens


def masked_bits(
    model: MaskedLM, codes: Codes, masks: Masks, features: Features, lengths: Array
) -> Array:
    """Bits of the codes that are asked for, in one forward.

    Args:
      model: with stacked layers or with lists of them.
      codes: `[B, K, F]`; one outside of [0, N) is taken for the nearest code.
      masks: what the model does not see, and what is asked for.
      features: what `model.read` gave.
      lengths: `[B]` frames of each row.

    Returns:
      Bits `[B, F]`, 0 where nothing is asked for.
    """
    size = model.config.codebook_size
    codes = jnp.clip(codes, 0, size - 1).astype(jnp.int32)
    shown = hide(codes, masks.hidden, size)
    logits_BFN = model.logits(shown, masks.level, features, lengths)
    level_B11 = masks.level[:, None, None]
    own_BF = jnp.take_along_axis(codes, level_B11, axis=1)[:, 0]
    return jnp.where(masks.scored, bits(logits_BFN, own_BF), 0.0)


def bound(
    model: MaskedLM, codes: Codes, lengths: Array, conditions: Conditions, key: Key, samples: int
) -> Array:
    """Samples of the order-averaged bound on the bits of codes under a model, see `order_bound`.

    Args:
      model: with stacked layers or with lists of them.
      codes: `[B, K, F]`; one outside of [0, N) is taken for the nearest code.
      lengths: `[B]` frames of each row.
      conditions: of B rows.
      key: one key, from which every row folds its own, or keys `[B]`.
      samples: how many, S.

    Returns:
      Bits `[S, B, K]` of all frames of a row; the mean over S, summed over K, is the bound.
    """
    features, size = model.read(conditions), model.config.codebook_size

    def logits_of(tokens: Tokens, level: Array, weight: None) -> Array:
        return model.logits(tokens, level, features, lengths)

    codes = jnp.clip(codes, 0, size - 1).astype(jnp.int32)
    return order_bound(logits_of, codes, lengths, row_keys(key, len(codes)), samples, size)


def level_bits(model: MaskedLM, codes: Codes, lengths: Array, conditions: Conditions) -> Array:
    """Bits of levels that are predicted whole, each from all levels below it: exact.

    Args:
      model: with stacked layers or with lists of them; masking "levels".
      codes: `[B, K, F]`; one outside of [0, N) is taken for the nearest code.
      lengths: `[B]` frames of each row.
      conditions: of B rows.

    Returns:
      Bits `[B, K - 1, F]` of the levels above the first, 0 after a row's end.
    """
    features, (rows, levels, frames) = model.read(conditions), codes.shape
    inside_BF = jnp.arange(frames)[None] < lengths[:, None]
    k_K = jnp.arange(levels)[None, :, None]

    def one(level: Array) -> Array:
        hidden_BKF = jnp.broadcast_to(k_K >= level, codes.shape)
        masks = Masks(jnp.full(rows, level), hidden_BKF, inside_BF)
        return masked_bits(model, codes, masks, features, lengths)

    return jax.lax.map(one, jnp.arange(1, levels)).swapaxes(0, 1)


def order_bound(
    logits_of: LogitsOf,
    codes: Codes,
    lengths: Array,
    keys: Key,
    samples: int,
    codebook_size: int,
) -> Array:
    """Samples of a bound on the bits of codes that are decoded one at a time, level after level.

    In an order of each level drawn uniformly, codes have the probability that is the mean over
    orders. Its bits are at most the mean of the bits of each order (Jensen), and that is the mean
    over numbers c, uniform on 1 … F, and over masks of c positions, of F / c times the bits of the
    masked (Uria et al. 2014; Hoogeboom et al. 2022). Each sample is unbiased and takes K forwards;
    their spread gives the bound's interval.

    Args:
      logits_of: as of `masked.decode`.
      codes: `[B, K, F]`.
      lengths: `[B]` frames of each row.
      keys: `[B]`, one of each row.
      samples: how many, S.
      codebook_size: N, also the mask id.

    Returns:
      Bits `[S, B, K]` of all frames of a row.
    """
    rows, levels, frames = codes.shape

    def one(number: Array) -> Array:
        level = number % levels
        keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
        masks = uniform_masks(keys_B, lengths, jnp.full(rows, level), levels, frames)
        logits_BFN = logits_of(hide(codes, masks.hidden, codebook_size), level, None)
        own_BF = jax.lax.dynamic_index_in_dim(codes, level, 1, keepdims=False)
        sums_B = jnp.where(masks.scored, bits(logits_BFN, own_BF), 0.0).sum(1)
        return sums_B * lengths / jnp.maximum(masks.scored.sum(1), 1)

    bits_SKB = jax.lax.map(one, jnp.arange(samples * levels)).reshape(samples, levels, rows)
    return bits_SKB.swapaxes(1, 2)
