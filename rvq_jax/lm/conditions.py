"""What a token model is told beside the codes, what of it may be left out, and guidance by that.

A model that reads captions with its own encoder is told bytes `[B, L]`; one that reads a frozen
text encoder is told `Conditions`. Either is a pytree with one row per example.
"""

from typing import NamedTuple

import jax.numpy as jnp

from rvq_jax.typing import Array


class Conditions(NamedTuple):
    """States of a frozen text encoder and, for models that follow one, a melody."""

    states: Array  # [B, L, E]
    mask: Array  # [B, L] bool, where there is text
    kept: Array  # [B] bool, False where the text is left out: its features are then zeros
    melody: Array | None = None  # [B, P, bins] one-hot chroma


Told = Array | Conditions
# One weight, or two of double guidance: the outer, and the inner of the text over the melody.
Guidance = None | float | Array | tuple[Array, Array]


def tell(states: Array, mask: Array, melody: Array | None = None) -> Conditions:
    """All of it; a row without any text counts as left out."""
    return Conditions(states, mask, mask.any(axis=1), melody)


def without_text(told: Told, kept_B: Array | bool = False) -> Told:
    """Text left out of the rows where `kept` is False."""
    if not isinstance(told, Conditions):
        return jnp.where(jnp.reshape(kept_B, (-1, 1)), told, 0)
    return told._replace(kept=told.kept & kept_B)


def without_melody(told: Told, kept_B: Array | bool = False) -> Told:
    """The melody left out, all of its frames in bin 0, of the rows where `kept` is False."""
    if not isinstance(told, Conditions) or told.melody is None:
        return told
    silent = jnp.arange(told.melody.shape[-1]) == 0
    kept = jnp.reshape(kept_B, (-1, 1, 1))
    melody = jnp.where(kept, told.melody, silent[None, None].astype(told.melody.dtype))
    return told._replace(melody=melody)


def branches(told: Told, guidance: Guidance) -> list[Told]:
    """The conditions whose logits `guide` puts together, the full ones first."""
    if guidance is None:
        return [told]
    null = without_melody(without_text(told))
    return [told, without_text(told), null] if isinstance(guidance, tuple) else [told, null]


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
