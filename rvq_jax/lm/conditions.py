"""Conditions of a token model: named entries, what is left out of them, guidance by that."""

from typing import Literal, NamedTuple

import jax.numpy as jnp

from rvq_jax.typing import Array


class ConditionSpec(NamedTuple):
    """How a model reads one of its conditions."""

    name: str
    way: Literal["cross", "prefix", "frame"]
    """Attended to by every layer; put before the codes; or added to the frame's embedding."""
    dim: int | None = None
    """E, features of its states; None: bytes of a text, read by an encoder of the model's own."""
    null: Literal["zeros", "first"] = "zeros"
    """Where it is left out: features of zeros, or states that are one-hot in the first place."""


class Condition(NamedTuple):
    """One condition of B examples."""

    states: Array  # [B, L, E], or [B, L] int32 of bytes plus 1 (see `conditioner.to_bytes`)
    mask: Array  # [B, L] bool, where there is something
    kept: Array  # [B] bool, False where it is left out


Conditions = dict[str, Condition]
# One weight, or two of double guidance: the outer, and the inner of the text over all others.
Guidance = None | float | Array | tuple[Array, Array]


def condition(states: Array, mask: Array | None = None) -> Condition:
    """A condition that is kept wherever there is any of it; all of it is there without a mask."""
    mask = jnp.ones(states.shape[:2], bool) if mask is None else jnp.asarray(mask, bool)
    return Condition(states, mask, mask.any(axis=1))


def text_condition(text_BL: Array) -> Condition:
    """The condition of texts as bytes `[B, L]`, padded with 0."""
    return condition(text_BL, text_BL > 0)


def without(conditions: Conditions, *names: str, kept_B: Array | bool = False) -> Conditions:
    """Conditions with these entries, all of them by default, left out where `kept_B` is False."""
    names = names or tuple(conditions)
    left = {
        name: one._replace(kept=one.kept & kept_B)
        for name, one in conditions.items()
        if name in names
    }
    return conditions | left


def branches(conditions: Conditions, guidance: Guidance) -> list[Conditions]:
    """The conditions whose logits `guide` puts together, the full ones first."""
    if guidance is None:
        return [conditions]
    if isinstance(guidance, tuple):
        return [conditions, without(conditions, "text"), without(conditions)]
    return [conditions, without(conditions)]


def guide(logits: Array | list[Array], guidance: Guidance) -> Array:
    """Logits of all branches moved away from those of fewer conditions (Ho & Salimans 2022).

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


def count_branches(guidance: Guidance) -> int:
    """How many branches guidance puts together."""
    return 1 if guidance is None else 3 if isinstance(guidance, tuple) else 2
