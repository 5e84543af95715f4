"""Masked parallel decoding: level after level, the surest positions first.

At each iteration a model predicts every masked code of one level at once. All are sampled, those
that it is least sure of are masked again, and what has once stayed is never changed (MaskGIT, Chang
et al. 2022; SoundStorm, Borsos et al. 2023; MAGNeT, Ziv et al. 2024). Which model it is, `decode`
does not know: it asks a function for logits. What that function sees is what training shows:
levels above the one that is decoded are the mask id N, whatever is known of them already.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rvq_jax.lm.heads import bits as bits_of
from rvq_jax.lm.sampling import PLAIN, Sampling, limit
from rvq_jax.lm.schedule import Timetable
from rvq_jax.tracing import varying
from rvq_jax.typing import Array, Codes, Key, Tokens

# Tokens [B, K, F] with mask ids, level, weight of guidance or None -> its logits [B, F, N].
LogitsOf = Callable[[Tokens, Array, Array | None], Array]
# Tokens [B, K, F] with what was sampled, level, log p [B, F] of it -> confidences [B, F].
Confidence = Callable[[Tokens, Array, Array], Array]

TIE = 1e-3  # budgets are sums of floats: 2.9999998 positions are 3


class Parallel(NamedTuple):
    """Codes, and the bits of each under the logits that it was sampled from."""

    codes: Codes  # [B, K, F], 0 after the end of a row
    bits: Array  # [B, K, F], -log2 p under the guided logits at temperature 1; 0 of given codes


def decode(
    logits_of: LogitsOf,
    table: Timetable,
    forced: Codes,
    lengths: Array,
    keys: Key,
    codebook_size: int,
    *,
    sampling: Sampling = PLAIN,
    span: int = 1,
    show_prompts: bool = True,
    confidence: Confidence | None = None,
) -> Parallel:
    """Decodes all levels of the timetable in one loop.

    A row keeps floor(share · n) of the n positions (spans) masked that its level was to be given, 1
    at least, until the level's last iteration. Ranks and budgets are each row's own. What is
    sampled depends on the row's key, the iteration and the position: not on the batch, nor on the
    padding.

    Args:
      logits_of: the model.
      table: the iterations.
      forced: `[B, K, F]` codes that are given, anywhere; -1 where one is wanted. Others outside of
        [0, N) are taken for the nearest code.
      lengths: `[B]` frames of each row; there are no codes after them.
      keys: `[B]`, one of each row.
      codebook_size: N, also the mask id.
      sampling: top-k and top-p; its temperature multiplies the timetable's.
      span: frames that are masked and kept together, counted from the first; a span's confidence is
        that of its surest position (MAGNeT has 3).
      show_prompts: frames of which all levels are given show them at every level, as SoundStorm's
        prompts do in training; else levels above the one that is decoded are masked there too.
      confidence: another opinion of what is sure than log p, e.g. `rescoring.mixture`.

    Returns:
      The codes, with those given as they were, and their bits.
    """
    frames = forced.shape[2]
    inside_BF = jnp.arange(frames)[None] < lengths[:, None]
    forced = jnp.clip(forced, -1, codebook_size - 1).astype(jnp.int32)
    forced = jnp.where(inside_BF[:, None], forced, -1)
    wanted_BKF = (forced < 0) & inside_BF[:, None]
    prompt_BF = (forced >= 0).all(axis=1) & show_prompts
    totals_BK = _spans(wanted_BKF, span).any(axis=3).sum(axis=2)
    tokens_BKF = jnp.where(forced >= 0, forced, codebook_size)

    def iterate(state: tuple[Tokens, Array], now: tuple[Array, Timetable]):
        (tokens_BKF, bits_BKF), (i, now) = state, now
        shown_BKF = _shown(tokens_BKF, now.level, prompt_BF, codebook_size)
        logits_BFN = logits_of(shown_BKF, now.level, now.guidance)
        own_BF, wanted_BF = (_level(x, now.level) for x in (tokens_BKF, wanted_BKF))
        masked_BF = wanted_BF & (own_BF == codebook_size)
        keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
        how = sampling._replace(temperature=sampling.temperature * now.temperature)
        drawn_BF = _sample(keys_B, logits_BFN, how)
        own_BF = jnp.where(masked_BF, drawn_BF, own_BF)
        sure_BF = -bits_of(logits_BFN / now.score_temperature, drawn_BF) * jnp.log(2.0)
        if confidence is not None:
            sampled_BKF = _with_level(shown_BKF, own_BF, now.level)
            sure_BF = confidence(sampled_BKF, now.level, sure_BF)
        noise_BS = now.noise * _gumbel(keys_B, frames)[:, ::span]
        total_B = _level(totals_BK, now.level)
        budget_B = jnp.maximum(jnp.floor(now.share * total_B + TIE), 1).astype(jnp.int32)
        budget_B = jnp.where(now.last, 0, budget_B)
        again_BF = least_sure(sure_BF, masked_BF, budget_B, span, noise_BS)
        own_BF = jnp.where(again_BF, codebook_size, own_BF)
        cost_BF = jnp.where(masked_BF, bits_of(logits_BFN, drawn_BF), _level(bits_BKF, now.level))
        tokens_BKF = _with_level(tokens_BKF, own_BF, now.level)
        return (tokens_BKF, _with_level(bits_BKF, cost_BF, now.level)), None

    state = tokens_BKF, jnp.zeros(forced.shape, jnp.float32)
    count = len(table.level)
    state, steps, _ = varying(state, (jnp.arange(count), table), (keys, lengths))
    (tokens_BKF, bits_BKF), _ = jax.lax.scan(iterate, state, steps)
    codes = jnp.where(inside_BF[:, None] & (tokens_BKF < codebook_size), tokens_BKF, 0)
    return Parallel(codes, bits_BKF)


def least_sure(
    sure_BF: Array, masked_BF: Array, budget_B: Array, span: int = 1, noise_BS: Array | None = None
) -> Array:
    """Which masked positions are masked again: each row's spans of the least confidence.

    Args:
      sure_BF: confidence of each position.
      masked_BF: which positions were masked; no other is masked again.
      budget_B: how many spans of each row are masked again.
      span: frames of a span; one counts if any of its positions was masked.
      noise_BS: added to the confidence of each span.

    Returns:
      Mask `[B, F]`.
    """
    masked_BSL = _spans(masked_BF, span)
    sure_BS = jnp.where(masked_BSL, _spans(sure_BF, span), -jnp.inf).max(axis=2)
    if noise_BS is not None:
        sure_BS = sure_BS + noise_BS
    # The first of equals: sorts are stable.
    rank_BS = jnp.argsort(jnp.argsort(jnp.where(masked_BSL.any(2), sure_BS, jnp.inf)))
    again_BS = rank_BS < budget_B[:, None]
    return jnp.repeat(again_BS, span, axis=1)[:, : masked_BF.shape[1]] & masked_BF


def _shown(tokens_BKF: Tokens, level: Array, prompt_BF: Array, mask_id: int) -> Tokens:
    """What the model reads: above the level nothing but prompts."""
    above_K = jnp.arange(tokens_BKF.shape[1]) > level
    return jnp.where(above_K[None, :, None] & ~prompt_BF[:, None], mask_id, tokens_BKF)


def _sample(keys_B: Key, logits_BFN: Array, sampling: Sampling) -> Array:
    """Codes `[B, F]`, each position's with a key of its own."""
    temperature, top_k, top_p = map(jnp.asarray, sampling[:3])
    cold = temperature <= 0
    warm_BFN = logits_BFN / jnp.where(cold, 1.0, temperature)
    limited = (top_k > 0) | (top_p > 0)  # sorting every position's logits takes long
    warm_BFN = jax.lax.cond(limited, lambda x: limit(x, top_k, top_p), lambda x: x, warm_BFN)

    def row(key: Key, logits_FN: Array) -> Array:
        keys_F = _fold(key, 2 * jnp.arange(len(logits_FN)))
        return jax.vmap(jax.random.categorical)(keys_F, logits_FN)

    drawn_BF = jax.vmap(row)(keys_B, warm_BFN)
    return jnp.where(cold, jnp.argmax(logits_BFN, axis=-1), drawn_BF).astype(jnp.int32)


def _gumbel(keys_B: Key, frames: int) -> Array:
    """Standard Gumbel noise `[B, F]`, each position's with a key of its own."""

    def row(key: Key) -> Array:
        return jax.vmap(jax.random.gumbel)(_fold(key, 2 * jnp.arange(frames) + 1))

    return jax.vmap(row)(keys_B)


def _fold(key: Key, numbers: Array) -> Key:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


def _spans(x: Array, span: int) -> Array:
    """`[…, F]` cut into spans `[…, S, L]`, the last filled up with zeros."""
    missing = -x.shape[-1] % span
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
    return x.reshape(*x.shape[:-1], -1, span)


def _level(x: Array, level: Array) -> Array:
    """One level `[B, …]` of `[B, K, …]`."""
    return jax.lax.dynamic_index_in_dim(x, level, 1, keepdims=False)


def _with_level(x_BKF: Array, own_BF: Array, level: Array) -> Array:
    """`[B, K, F]` with another level."""
    return jax.lax.dynamic_update_index_in_dim(x_BKF, own_BF, level, 1)
