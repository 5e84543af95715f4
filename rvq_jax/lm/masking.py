"""Masks that masked token models are trained with, of SoundStorm, MAGNeT and VALL-E, and measured
with."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rvq_jax.lm.schedule import masked_share
from rvq_jax.typing import Array, Codes, Key


class Masks(NamedTuple):
    """What is hidden from a model, and what it is asked for; each row has a level of its own."""

    level: Array  # [B] int32
    hidden: Array  # [B, K, F] bool, where the model reads the mask id
    scored: Array  # [B, F] bool, codes of the level that the loss is of


def record_keys(key: Key, index: Array) -> Key:
    """Keys `[B]` of records `[B]`: what is drawn for one does not depend on its batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def hide(codes: Codes, hidden: Array, codebook_size: int) -> Array:
    """Codes `[B, K, F]` with the mask id N where they are hidden `[B, K, F]`."""
    return jnp.where(hidden, codebook_size, codes)


def bernoulli_masks(
    keys: Key, lengths: Array, levels: int, frames: int, *, first: int = 0, whole: bool = False
) -> Masks:
    """Masks of SoundStorm: a prompt, then every position of the level with one probability.

    The prompt of t frames, t uniform on 0 … length - 1, is shown in all levels. After it level q,
    uniform, is masked with probability cos(u pi / 2), u uniform; levels above q wholly, levels
    below not at all (Borsos et al. 2023). VALL-E's second stage masks a whole level above the first
    (Wang et al. 2023).

    Args:
      keys: `[B]`, one of each row, see `record_keys`.
      lengths: `[B]` frames of each row; nothing after them is scored.
      levels: K.
      frames: F.
      first: the first level that q may be.
      whole: the level is masked with probability 1.

    Returns:
      The masks.
    """

    def row(key: Key, length: Array):
        parts = jax.random.split(key, 4)
        level = jax.random.randint(parts[0], (), first, levels)
        prompt = jax.random.randint(parts[1], (), 0, jnp.maximum(length, 1))
        share = 1.0 if whole else masked_share("cosine", jax.random.uniform(parts[2]))
        masked_F = jax.random.uniform(parts[3], (frames,)) < share
        f_F = jnp.arange(frames)
        return level, masked_F & (f_F >= prompt) & (f_F < length), f_F >= prompt

    level_B, scored_BF, after_BF = jax.vmap(row)(keys, lengths)
    return Masks(level_B, _hidden(level_B, scored_BF, after_BF, levels), scored_BF)


def span_masks(keys: Key, lengths: Array, levels: int, frames: int, span: int) -> Masks:
    """Masks of MAGNeT: spans of the level that may overlap, levels above it wholly.

    So many spans begin, at distinct places, that the mean share of masked positions is
    cos(u pi / 2), u uniform (Ziv et al. 2024, appendix C): u spans of L leave a position of T
    unmasked with probability C(T - L, u) / C(T, u).

    Args:
      keys: `[B]`, one of each row, see `record_keys`.
      lengths: `[B]` frames of each row; nothing after them is scored.
      levels: K.
      frames: F.
      span: L, frames of a span.

    Returns:
      The masks.
    """

    def row(key: Key, length: Array):
        parts = jax.random.split(key, 3)
        level = jax.random.randint(parts[0], (), 0, levels)
        share = masked_share("cosine", jax.random.uniform(parts[1]))
        spans = jnp.maximum(jnp.sum(mean_shares(length, frames, span) < share), 1)
        inside_F = jnp.arange(frames) < length
        draws_F = jnp.where(inside_F, jax.random.uniform(parts[2], (frames,)), jnp.inf)
        begins_F = jnp.argsort(jnp.argsort(draws_F)) < spans
        began_F = jnp.cumsum(begins_F)
        # Masked where a span began within the last L frames.
        before_F = jnp.concatenate([jnp.zeros(span, began_F.dtype), began_F])[:frames]
        return level, (began_F > before_F) & inside_F

    level_B, scored_BF = jax.vmap(row)(keys, lengths)
    everywhere_BF = jnp.ones_like(scored_BF)
    return Masks(level_B, _hidden(level_B, scored_BF, everywhere_BF, levels), scored_BF)


def uniform_masks(keys: Key, lengths: Array, level: Array, levels: int, frames: int) -> Masks:
    """Masks of which every number of positions is as likely as any other, and all of one number.

    Args:
      keys: `[B]`, one of each row.
      lengths: `[B]` frames of each row.
      level: `[B]`, the level of each row; levels above it are masked wholly.
      levels: K.
      frames: F.

    Returns:
      The masks, of 1 … length positions in each row.
    """

    def row(key: Key, length: Array) -> Array:
        parts = jax.random.split(key)
        count = jax.random.randint(parts[0], (), 1, jnp.maximum(length, 1) + 1)
        inside_F = jnp.arange(frames) < length
        draws_F = jnp.where(inside_F, jax.random.uniform(parts[1], (frames,)), jnp.inf)
        return (jnp.argsort(jnp.argsort(draws_F)) < count) & inside_F

    scored_BF = jax.vmap(row)(keys, lengths)
    hidden_BKF = _hidden(level, scored_BF, jnp.ones_like(scored_BF), levels)
    return Masks(level, hidden_BKF, scored_BF)


def mean_shares(length: Array, frames: int, span: int) -> Array:
    """Mean share `[F + 1]` of `length` positions that 0 … F spans mask, 1 where there is no room.

    C(T - L, u) / C(T, u) is the product of (T - u - i) / (T - i) over i < L.
    """
    u_U = jnp.arange(frames + 1)[:, None]
    i_L = jnp.arange(span)[None]
    left_UL = jnp.maximum(length - u_U - i_L, 0) / jnp.maximum(length - i_L, 1)
    return 1.0 - jnp.prod(left_UL, axis=1)


def _hidden(level_B: Array, scored_BF: Array, after_BF: Array, levels: int) -> Array:
    """What is hidden `[B, K, F]`: of the level what is scored, above it all after the prompt."""
    k_K = jnp.arange(levels)[None, :, None]
    own_BKF = (k_K == level_B[:, None, None]) & scored_BF[:, None]
    return own_BKF | ((k_K > level_B[:, None, None]) & after_BF[:, None])
