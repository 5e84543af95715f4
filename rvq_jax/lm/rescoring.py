"""Another model's opinion of what a masked decode is sure of (MAGNeT, Ziv et al. 2024)."""

import jax
import jax.numpy as jnp

from rvq_jax.lm.conditions import Conditions
from rvq_jax.lm.masked import Confidence
from rvq_jax.lm.model import TokenLM, frames_of_steps, teacher_inputs
from rvq_jax.patterns import Pattern
from rvq_jax.typing import Array, Tokens


def mixture(
    model: TokenLM, pattern: Pattern, conditions: Conditions, lengths: Array, weight: Array
) -> Confidence:
    """Confidences of the probability (1 - w) · p + w · q, q that of an autoregressive model.

    One teacher-forced pass at each iteration. Levels that are not decoded yet are empty places to
    it, which it may not know from training: under a pattern by which a level sees finer ones of
    earlier frames (all but coarse_first on level 0) q is an approximation.

    Args:
      model: of the same K and N, with independent heads.
      pattern: of F frames, that of the model.
      conditions: its own, of B rows.
      lengths: `[B]` frames of each row.
      weight: w in [0, 1].

    Returns:
      The function that `masked.decode` takes.
    """
    special, frame_of = model.config.codebook_size, frames_of_steps(pattern)
    inside_BF = jnp.arange(pattern.frames)[None] < lengths[:, None]

    def rescore(tokens: Tokens, level: Array, log_p_BF: Array) -> Array:
        tokens = jnp.where(inside_BF[:, None], tokens, special)
        steps_BKT = pattern.interleave(tokens, fill=special)
        hidden_BTD = model.hidden(teacher_inputs(steps_BKT, special), conditions, frame_of)
        bits_BKF = pattern.deinterleave(model.heads.bits(hidden_BTD[None], steps_BKT))
        log_q_BF = -jnp.log(2.0) * jax.lax.dynamic_index_in_dim(bits_BKF, level, 1, keepdims=False)
        return jnp.logaddexp(jnp.log1p(-weight) + log_p_BF, jnp.log(weight) + log_q_BF)

    return rescore
