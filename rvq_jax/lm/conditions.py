"""What a token model is conditioned on, what of it may be left out, and guidance by that.

A model that reads captions with its own encoder takes bytes `[B, L]`; one that reads a frozen text
encoder takes `EncodedConditions`. Either is a pytree with one row per example.
"""

from typing import NamedTuple

import jax.numpy as jnp

from rvq_jax.typing import Array


class EncodedConditions(NamedTuple):
    """States of a frozen text encoder and, for models that follow one, a melody."""

    states: Array  # [B, L, E]
    mask: Array  # [B, L] bool, where there is text
    kept: Array  # [B] bool, False where the text is left out: its features are then zeros
    melody: Array | None = None  # [B, P, bins] one-hot chroma


Conditions = Array | EncodedConditions
# One weight, or two of double guidance: the outer, and the inner of the text over the melody.
Guidance = None | float | Array | tuple[Array, Array]


def encode_conditions(states: Array, mask: Array, melody: Array | None = None) -> EncodedConditions:
    """All of it; a row without any text counts as left out."""
    return EncodedConditions(states, mask, mask.any(axis=1), melody)


def without_text(conditions: Conditions, kept_B: Array | bool = False) -> Conditions:
    """Text left out of the rows where `kept` is False."""
    if not isinstance(conditions, EncodedConditions):
        return jnp.where(jnp.reshape(kept_B, (-1, 1)), conditions, 0)
    return conditions._replace(kept=conditions.kept & kept_B)


def without_melody(conditions: Conditions, kept_B: Array | bool = False) -> Conditions:
    """The melody left out, all of its frames in bin 0, of the rows where `kept` is False."""
    if not isinstance(conditions, EncodedConditions) or conditions.melody is None:
        return conditions
    silent = jnp.arange(conditions.melody.shape[-1]) == 0
    kept = jnp.reshape(kept_B, (-1, 1, 1))
    melody = jnp.where(kept, conditions.melody, silent[None, None].astype(conditions.melody.dtype))
    return conditions._replace(melody=melody)


def branches(conditions: Conditions, guidance: Guidance) -> list[Conditions]:
    """The conditions whose logits `guide` puts together, the full ones first."""
    if guidance is None:
        return [conditions]
    null = without_melody(without_text(conditions))
    if isinstance(guidance, tuple):
        return [conditions, without_text(conditions), null]
    return [conditions, null]


def guide(logits: list[Array], guidance: Guidance) -> Array:
    """Logits moved away from those of fewer conditions (Ho & Salimans 2022).

    One weight: null + w · (full - null), which w = 1 leaves as it is. Two: null + w · (middle +
    v · (full - middle) - null), the middle without the text (Copet et al. 2023, style).
    """
    if guidance is None:
        return logits[0]
    null = logits[-1]
    if not isinstance(guidance, tuple):
        return null + guidance * (logits[0] - null)
    outer, inner = guidance
    return null + outer * (logits[1] + inner * (logits[0] - logits[1]) - null)
