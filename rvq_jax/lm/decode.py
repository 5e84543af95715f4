"""Decoding: every step of a sequence, for generation and for scoring alike, as one program."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rvq_jax.lm.conditions import Conditions, Guidance, branches, count_branches
from rvq_jax.lm.model import ModelCache, TokenLM, frames_of_steps, teacher_inputs
from rvq_jax.lm.sampling import PLAIN, RECENT, Sampling
from rvq_jax.patterns import Pattern
from rvq_jax.tracing import typed, varying
from rvq_jax.typing import Array, Codes, Key


class Decoded(NamedTuple):
    """Codes, and the bits of each under the logits that it was sampled from."""

    codes: Codes  # [B, K, F]
    bits: Array  # [B, K, F], -log2 p under the guided logits, before temperature, top-k and top-p
    lengths: Array  # [B] frames; those asked for, or fewer where an end was sampled


class DecodeRequest(NamedTuple):
    """What stays the same at every step of decoding."""

    forced: Array  # [B, K, T] int32, -1 where a token is to be sampled
    frames: Array  # [K, T], the frame of each place, -1 for none
    lengths: Array  # [B], frames of each row at most
    keys: Key  # [B]
    guidance: Guidance
    sampling: Sampling


class DecodeState(NamedTuple):
    """What one step of decoding hands to the next."""

    step: Array  # the next one
    inputs: Array  # [B, K], what it reads: the tokens of the step before
    caches: list[ModelCache]  # one of all branches of guidance, or one of each
    tokens: Array  # [B, K, T]
    bits: Array  # [B, K, T]
    lengths: Array  # [B], frames of each row as far as it is known


def row_keys(key: Key, rows: int) -> Key:
    """Keys `[B]`, row i's folded from (key, i): what it samples does not depend on the batch.

    Keys of rows are taken as they are.
    """
    key = typed(key)
    if key.ndim:
        return key
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows))


def prefill(
    model: TokenLM,
    pattern: Pattern,
    conditions: Conditions,
    key: Key,
    forced: Codes,
    lengths: Array,
    *,
    guidance: Guidance = None,
    sampling: Sampling = PLAIN,
    prefill_steps: int = 0,
    sequential_guidance: bool = False,
) -> tuple[DecodeRequest, DecodeState]:
    """Reads the conditions and the first steps of a prompt at once; decoding goes on from there.

    Args:
      model: with lists of layers.
      pattern: of F frames and T steps.
      conditions: of B rows.
      key: one key, from which every row folds its own, or keys `[B]`.
      forced: `[B, K, F]` codes to keep as they are (a prompt, or all of them to score), -1 where
        one is to be sampled. Others outside of [0, N) are taken for the nearest code.
      lengths: `[B]` frames of each row; there are no codes after them.
      guidance: weights of classifier-free guidance, see `conditions.guide`.
      sampling: how a token is taken from logits.
      prefill_steps: number of first steps that are forced in every row and read at once.
      sequential_guidance: run the branches of guidance one after another, not as one batch: less
        memory, more time.

    Returns:
      What stays the same at every step, and the state before step `prefill_steps`.

    Raises:
      ValueError: repetition-aware sampling of a model with a depth transformer.
    """
    if sampling.repetition is not None and model.config.depth is not None:
        raise ValueError("repetition is for heads whose levels are independent: leave it out")
    special = model.config.codebook_size
    # An end is forced by the special id; the id of any other code that there is not is the nearest.
    forced = jnp.clip(forced, -1, special if model.config.end else special - 1).astype(jnp.int32)
    lengths = jnp.asarray(lengths, jnp.int32)
    frames_BKT = jnp.broadcast_to(pattern.frame_at, (len(forced), *pattern.frame_at.shape))
    valid_BKT = (frames_BKT >= 0) & (frames_BKT < lengths[:, None, None])
    forced_BKT = pattern.interleave(forced, fill=-1)
    tokens_BKT = jnp.where(valid_BKT & (forced_BKT >= 0), forced_BKT, special)
    inputs_BKn = teacher_inputs(tokens_BKT[:, :, :prefill_steps], special)
    parts = branches(conditions, guidance)
    if not sequential_guidance:
        parts = [jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)]
    hidden, caches = [], []
    together = count_branches(guidance) // len(parts)
    for part in parts:
        rows = jnp.tile(inputs_BKn, (together, 1, 1))
        found, cache = model.prefill(rows, pattern.steps, part, frames_of_steps(pattern))
        hidden.append(found.reshape(together, len(forced), *found.shape[1:]))
        caches.append(cache)
    cost_BKn = model.heads.bits(jnp.concatenate(hidden), tokens_BKT[:, :, :prefill_steps], guidance)
    inputs_BK = (
        tokens_BKT[:, :, prefill_steps - 1]
        if prefill_steps
        else jnp.full_like(tokens_BKT[:, :, 0], special)
    )
    bits_BKT = jnp.zeros(tokens_BKT.shape, jnp.float32).at[:, :, :prefill_steps].set(cost_BKn)
    frames_KT, keys = jnp.asarray(pattern.frame_at), row_keys(key, len(forced))
    request = DecodeRequest(forced_BKT, frames_KT, lengths, keys, guidance, sampling)
    if model.config.end:
        # Of rows whose end is forced it is known already.
        is_end_BF = forced[:, 0] == special
        ends_B = jnp.where(is_end_BF.any(axis=1), jnp.argmax(is_end_BF, axis=1), lengths)
        lengths = jnp.minimum(lengths, ends_B)
    state = DecodeState(
        jnp.asarray(prefill_steps, jnp.int32), inputs_BK, caches, tokens_BKT, bits_BKT, lengths
    )
    return request, state


def decode_until(
    model: TokenLM, request: DecodeRequest, state: DecodeState, until: Array
) -> DecodeState:
    """Runs the steps from `state.step` up to, but not including, `until`.

    Args:
      model: with lists of layers.
      request: what `prefill` gave.
      state: what `prefill` or an earlier call gave.
      until: scalar int, the first step that is left out.

    Returns:
      The state before step `until`.
    """

    def step(state: DecodeState) -> DecodeState:
        t, inputs_BK, caches, tokens_BKT, bits_BKT, lengths_B = state
        together = count_branches(request.guidance) // len(caches)
        rows = jnp.tile(inputs_BK, (together, 1))
        hidden, after = [], []
        for cache in caches:
            found, cache = model.step(rows, t, cache)
            hidden.append(found.reshape(together, *inputs_BK.shape[:1], -1))
            after.append(cache)
        forced_BK = jax.lax.dynamic_index_in_dim(request.forced, t, 2, keepdims=False)
        frames_K = jax.lax.dynamic_index_in_dim(request.frames, t, 1, keepdims=False)
        valid_BK = (frames_K >= 0)[None] & (frames_K[None] < lengths_B[:, None])
        keys = jax.vmap(jax.random.fold_in, (0, None))(request.keys, t)
        recent = {}
        if request.sampling.repetition is not None:
            # Before the first step nothing repeats: no token is -1.
            before_BKT = jnp.pad(tokens_BKT, [(0, 0), (0, 0), (RECENT, 0)], constant_values=-1)
            recent["recent"] = jax.lax.dynamic_slice_in_dim(before_BKT, t, RECENT, axis=2)
        tokens_BK, cost_BK = model.heads.sample(
            keys,
            jnp.concatenate(hidden),
            forced_BK,
            valid_BK,
            request.sampling,
            request.guidance,
            **recent,
        )
        tokens_BKT, bits_BKT = (
            jax.lax.dynamic_update_index_in_dim(x, row, t, 2)
            for x, row in ((tokens_BKT, tokens_BK), (bits_BKT, cost_BK))
        )
        if model.config.end:
            is_end_B = valid_BK[:, 0] & (tokens_BK[:, 0] == model.config.codebook_size)
            lengths_B = jnp.where(is_end_B, frames_K[0], lengths_B)
        return DecodeState(t + 1, tokens_BK, after, tokens_BKT, bits_BKT, lengths_B)

    request, state, until = varying(request, state, until)

    def goes_on(state: DecodeState) -> Array:
        if not model.config.end:
            return state.step < until
        # Not beyond the last code of rows that ended.
        return state.step < jnp.minimum(until, end_step(request, state.lengths))

    return jax.lax.while_loop(goes_on, step, state)


def end_step(request: DecodeRequest, lengths: Array) -> Array:
    """One more than the last step that has a code, a scalar, for rows of so many frames `[B]`."""
    T = request.frames.shape[1]
    has_T = ((request.frames >= 0) & (request.frames < lengths.max())).any(axis=0)
    return jnp.max(jnp.where(has_T, jnp.arange(1, T + 1), 0))


def gather_codes(pattern: Pattern, request: DecodeRequest, state: DecodeState) -> Decoded:
    """The codes of all steps so far; 0 after the end of a row.

    An end that was sampled has its bits on the first level, at the frame after the row's last.
    """
    f_F = jnp.arange(pattern.frames)[None]
    valid_B1F = (f_F < state.lengths[:, None])[:, None]
    end_BF = (f_F == state.lengths[:, None]) & (f_F < request.lengths[:, None])
    first_K1 = (jnp.arange(pattern.levels) == 0)[:, None]
    codes = jnp.where(valid_B1F, pattern.deinterleave(state.tokens), 0)
    counted_BKF = valid_B1F | (end_BF[:, None] & first_K1[None])
    bits = jnp.where(counted_BKF, pattern.deinterleave(state.bits), 0.0)
    return Decoded(codes, bits, state.lengths)
