"""Decoding: every step of a sequence, for generation and for scoring alike, as one program."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rvq_jax.lm.model import TokenLM, bits
from rvq_jax.lm.sampling import guide, sample
from rvq_jax.patterns import Pattern
from rvq_jax.typing import Array, Codes, Key


class Decoded(NamedTuple):
    """Codes and what each cost the model that drew them."""

    codes: Codes  # [B, K, F]
    bits: Array  # [B, K, F], -log2 of the probability under the (guided) logits


def decode(
    model: TokenLM,
    pattern: Pattern,
    text_BL: Array,
    key: Key,
    forced: Codes | None = None,
    *,
    guidance: float | Array | None = None,
    temperature: float | Array = 1.0,
    top_k: int = 0,
    top_p: float = 0.0,
) -> Decoded:
    """Codes `[B, K, F]` drawn step by step, with their bits.

    forced `[B, K, F]`: codes to keep as they are (a prompt, or all of them to score), -1 where one
    is to be drawn. guidance: classifier-free, both conditions as one doubled batch; None runs the
    conditional model alone. Row i draws from keys folded from (key, i, step), so its result does
    not depend on the rest of the batch.

    Call it inside `jax.jit` with the pattern as an argument: the loop over steps is a scan, and
    another pattern of the same shape runs the same program.
    """
    batch, special = text_BL.shape[0], model.config.size
    levels, frames = pattern.levels, pattern.frames
    if forced is None:
        forced = jnp.full((batch, levels, frames), -1, jnp.int32)
    guided = guidance is not None
    both = jnp.concatenate([text_BL, jnp.zeros_like(text_BL)]) if guided else text_BL
    layers, memories, caches = model.begin(pattern.steps, both)
    row_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))

    def step(carry, inputs):
        tokens_BK, caches = carry
        t, forced_BK, valid_K = inputs
        fed_BK = jnp.concatenate([tokens_BK, tokens_BK]) if guided else tokens_BK
        logits_BKN, caches = model.step(fed_BK, t, layers, memories, caches)
        if guided:
            logits_BKN = guide(logits_BKN[:batch], logits_BKN[batch:], guidance)

        def draw(row_key, logits_KN):
            return sample(
                jax.random.fold_in(row_key, t),
                logits_KN,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
            )

        drawn_BK = jnp.where(forced_BK >= 0, forced_BK, jax.vmap(draw)(row_keys, logits_BKN))
        cost_BK = bits(logits_BKN, drawn_BK)
        return (jnp.where(valid_K[None], drawn_BK, special), caches), (drawn_BK, cost_BK)

    first_BK = jnp.full((batch, levels), special, jnp.int32)
    forced_BKT = pattern.interleave(forced, fill=-1)
    steps = jnp.arange(pattern.steps), jnp.moveaxis(forced_BKT, 2, 0), pattern.valid.T
    _, (codes_TBK, bits_TBK) = jax.lax.scan(step, (first_BK, caches), steps)
    codes, cost = (pattern.deinterleave(jnp.moveaxis(x, 0, 2)) for x in (codes_TBK, bits_TBK))
    return Decoded(codes, cost)
