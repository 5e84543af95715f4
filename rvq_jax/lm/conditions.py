"""Conditions of a token model: named entries, dropping them, guidance by that."""

from typing import Literal, NamedTuple

import jax.numpy as jnp

from rvq_jax.typing import Array


class ConditionSpec(NamedTuple):
    """How a model reads one of its conditions."""

    name: str
    mechanism: Literal["cross", "prefix", "frame"]
    """Attended to by every layer; put before the codes; or added to the frame's embedding."""
    dim: int | None = None
    """E, features of its states; None: bytes of a text, read by an encoder of the model's own."""
    null: Literal["zeros", "first_bin"] = "zeros"
    """What stands for it where it is dropped: features of zeros, or one-hot states of bin 0."""
    vocab: int | None = None
    """Ids of its tokens; None: it has states, or bytes."""
    repeat: int = 1
    """Frames of one token."""
    projected: bool = False
    """States as wide as the model go through a linear layer too, as in audiocraft; else they are
    taken as they are, as in transformers."""

    def projects(self, dim: int) -> bool:
        """Whether its states go through a linear layer to be features of a model so wide."""
        return self.dim != dim or self.null != "zeros" or self.projected


class Condition(NamedTuple):
    """One condition of B examples."""

    # [B, L, E], or [B, L] int32: tokens, or bytes plus 1 (see `conditioner.to_bytes`).
    states: Array
    mask: Array  # [B, L] bool, where there is something
    kept: Array  # [B] bool, False for rows in which it is dropped


Conditions = dict[str, Condition]
# No guidance; one weight w; or two of double guidance (w, v), v that of the text over the others.
Guidance = None | float | Array | tuple[Array, Array]


def condition(states: Array, mask: Array | None = None) -> Condition:
    """A condition of states `[B, L, …]`; rows without any True in the mask count as dropped.

    mask: `[B, L]`, True where there is something; all True by default.
    """
    mask = jnp.ones(states.shape[:2], bool) if mask is None else jnp.asarray(mask, bool)
    return Condition(states, mask, mask.any(axis=1))


def text_condition(text_BL: Array) -> Condition:
    """The condition of texts as bytes `[B, L]`, padded with 0."""
    return condition(text_BL, text_BL > 0)


def drop(conditions: Conditions, *names: str, where_B: Array | bool = True) -> Conditions:
    """Drops these conditions, all of them by default, in the rows where `where_B` is True."""
    names = names or tuple(conditions)
    left = {
        name: one._replace(kept=one.kept & ~jnp.asarray(where_B))
        for name, one in conditions.items()
        if name in names
    }
    return conditions | left


def branches(conditions: Conditions, guidance: Guidance) -> list[Conditions]:
    """The conditions whose logits `guide` puts together, the full ones first."""
    if guidance is None:
        return [conditions]
    if isinstance(guidance, tuple):
        return [conditions, drop(conditions, "text"), drop(conditions)]
    return [conditions, drop(conditions)]


def guide(logits: Array | list[Array], guidance: Guidance) -> Array:
    """Combines the logits of all branches by classifier-free guidance (Ho & Salimans 2022).

    One weight w: null + w · (full - null), where null drops every condition; w = 1 is no guidance.
    Two, (w, v): null + w · (middle + v · (full - middle) - null), where middle drops the text alone
    (double guidance, Rouard et al. 2024).
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
