"""Decoding: every step of a sequence, for generation and for scoring alike, as one program."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rvq_jax.lm.conditions import Guidance, Told, branches, guide
from rvq_jax.lm.model import Stream, TokenLM, bits, teacher_inputs
from rvq_jax.lm.sampling import PLAIN, Sampling, sample
from rvq_jax.patterns import Pattern
from rvq_jax.typing import Array, Codes, Key


class Decoded(NamedTuple):
    """Codes and what each cost the model that drew them."""

    codes: Codes  # [B, K, F]
    bits: Array  # [B, K, F], -log2 of the probability under the (guided) logits


class Job(NamedTuple):
    """What is asked of decoding, the same at every step."""

    forced: Array  # [B, K, T] int32, -1 where a token is to be drawn
    valid: Array  # [B, K, T] bool, where there is a code
    keys: Key  # [B]
    guidance: Guidance
    how: Sampling


class Drawing(NamedTuple):
    """How far decoding has come."""

    step: Array  # the next one
    fed: Array  # [B, K], its input: the tokens of the step before
    streams: list[Stream]  # one of all branches of guidance, or one of each
    tokens: Array  # [B, K, T]
    bits: Array  # [B, K, T]


def row_keys(key: Key, rows: int) -> Key:
    """Keys `[B]`, row i's folded from (key, i): its draws do not depend on the batch.

    Keys of rows are taken as they are.
    """
    if key.ndim:
        return key
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows))


def begin(
    model: TokenLM,
    pattern: Pattern,
    told: Told,
    key: Key,
    forced: Codes,
    lengths: Array,
    *,
    guidance: Guidance = None,
    how: Sampling = PLAIN,
    known: int = 0,
    two_pass: bool = False,
) -> tuple[Job, Drawing]:
    """Decoding before its first step that draws.

    key: of which every row folds its own, or one of each row `[B]`: its result does not depend on
    the rest of the batch. forced `[B, K, F]`: codes to keep as they are (a prompt, or all of them
    to score), -1 where one is to be drawn. lengths `[B]`: frames of each row; there are no codes
    after them. guidance: see `conditions.guide`; its branches run as one batch, or with two_pass
    one after another in less memory. known: so many first steps are forced in every row, and read
    at once.
    """
    special = model.config.size
    frames_BKT = jnp.broadcast_to(pattern.frame_at, (len(forced), *pattern.frame_at.shape))
    valid_BKT = (frames_BKT >= 0) & (frames_BKT < lengths[:, None, None])
    forced_BKT = pattern.interleave(forced, fill=-1)
    tokens_BKT = jnp.where(valid_BKT & (forced_BKT >= 0), forced_BKT, special)
    inputs_BKn = teacher_inputs(tokens_BKT[:, :, :known], special)
    parts = branches(told, guidance)
    if not two_pass:
        parts = [jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)]
    logits, streams = [], []
    for part in parts:
        rows = jnp.tile(inputs_BKn, (_count(guidance) // len(parts), 1, 1))
        found, stream = model.begin(rows, pattern.steps, part)
        logits += jnp.split(found, _count(guidance) // len(parts))
        streams.append(stream)
    cost_BKn = bits(guide(logits, guidance), jnp.maximum(forced_BKT[:, :, :known], 0))
    fed_BK = tokens_BKT[:, :, known - 1] if known else jnp.full_like(tokens_BKT[:, :, 0], special)
    bits_BKT = jnp.zeros(tokens_BKT.shape).at[:, :, :known].set(cost_BKn)
    job = Job(forced_BKT, valid_BKT, row_keys(key, len(forced)), guidance, how)
    return job, Drawing(jnp.asarray(known), fed_BK, streams, tokens_BKT, bits_BKT)


def advance(model: TokenLM, job: Job, drawing: Drawing, until: Array) -> Drawing:
    """All steps before step `until`."""
    count = _count(job.guidance)

    def draw(key, logits_KN):
        return sample(key, logits_KN, job.how)

    def one(drawing: Drawing) -> Drawing:
        t, fed_BK, streams, tokens_BKT, bits_BKT = drawing
        fed = jnp.tile(fed_BK, (count // len(streams), 1))
        logits, after = [], []
        for stream in streams:
            found, stream = model.step(fed, t, stream)
            logits += jnp.split(found, count // len(streams))
            after.append(stream)
        logits_BKN = guide(logits, job.guidance)
        forced_BK, valid_BK = (
            jax.lax.dynamic_index_in_dim(x, t, 2, keepdims=False) for x in (job.forced, job.valid)
        )
        keys = jax.vmap(jax.random.fold_in, (0, None))(job.keys, t)
        drawn_BK = jnp.where(forced_BK >= 0, forced_BK, jax.vmap(draw)(keys, logits_BKN))
        cost_BK = bits(logits_BKN, drawn_BK)
        drawn_BK = jnp.where(valid_BK, drawn_BK, model.config.size)
        tokens_BKT, bits_BKT = (
            jax.lax.dynamic_update_index_in_dim(x, row, t, 2)
            for x, row in ((tokens_BKT, drawn_BK), (bits_BKT, cost_BK))
        )
        return Drawing(t + 1, drawn_BK, after, tokens_BKT, bits_BKT)

    return jax.lax.while_loop(lambda drawing: drawing.step < until, one, drawing)


def end(job: Job) -> Array:
    """The step after the last that has a code."""
    T = job.valid.shape[2]
    return jnp.max(jnp.where(job.valid.any((0, 1)), jnp.arange(1, T + 1), 0))


def finish(pattern: Pattern, job: Job, drawing: Drawing) -> Decoded:
    """The codes of all steps; 0 where there is none, or none yet."""
    valid = pattern.deinterleave(job.valid)
    codes = jnp.where(valid, pattern.deinterleave(drawing.tokens), 0)
    return Decoded(codes, jnp.where(valid, pattern.deinterleave(drawing.bits), 0.0))


def decode(model: TokenLM, pattern: Pattern, *args, **options) -> Decoded:
    """Codes `[B, K, F]` drawn step by step, with their bits; arguments as of `begin`.

    Call it inside `jax.jit` with the pattern as an argument: the loop over steps is one program,
    and another pattern of the same shape runs the same.
    """
    job, drawing = begin(model, pattern, *args, **options)
    return finish(pattern, job, advance(model, job, drawing, end(job)))


def _count(guidance: Guidance) -> int:
    """How many branches guidance puts together."""
    return 1 if guidance is None else 3 if isinstance(guidance, tuple) else 2
