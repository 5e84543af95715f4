"""Captions → the condition that token models read, and how many rows they are."""

from collections.abc import Sequence

import numpy as np

from rvq_jax.lm.conditions import Condition, Conditions, condition, text_condition
from rvq_jax.lm.text_bytes import to_bytes
from rvq_jax.systems.text_encoder import TextEncoder
from rvq_jax.typing import Array

# Captions; or their tokens, dict(input_ids=…, attention_mask=…); or encoded conditions.
Captions = Sequence[str] | dict[str, Array] | Conditions


def encode(captions: Captions, config, text: TextEncoder | None) -> Condition:
    """The condition of captions that are not encoded yet.

    Args:
      captions: a text for each row, or tokens `dict(input_ids=…, attention_mask=…)`.
      config: of the token model, with text_dim and caption_bytes.
      text: its frozen text encoder; None for a model that reads captions itself.

    Returns:
      The condition of B rows.

    Raises:
      ValueError: no caption at all, or none that this model can read.
    """
    if config.text_dim is None:
        return text_condition(to_bytes(some(captions), config.caption_bytes))
    if text is None:
        raise ValueError("this model has no text encoder: give it encoded conditions")
    if isinstance(captions, dict):
        ids = np.asarray(captions["input_ids"], np.int32)
        mask = np.asarray(captions.get("attention_mask", np.ones_like(ids)), bool)
    else:
        ids, mask = text.tokens(some(captions))
    return condition(text.encode_tokens(ids, mask), mask)


def some(captions: Sequence[str]) -> Sequence[str]:
    """Captions as they are; raises ValueError unless they are a list of at least one text."""
    texts = not isinstance(captions, str | dict) and len(captions)
    if not texts or not all(isinstance(caption, str) for caption in captions):
        raise ValueError(f"captions must be a list of at least one text, got {captions!r}")
    return captions


def encoded(captions: Captions) -> bool:
    """Whether they are conditions already."""
    return isinstance(captions, dict) and "input_ids" not in captions


def rows_of(captions: Captions) -> int:
    """How many rows captions are of; raises ValueError for none."""
    if not isinstance(captions, dict):
        return len(some(captions))
    if not captions:
        raise ValueError(
            "conditions are empty: give captions, tokens or what encode_conditions gave"
        )
    if "input_ids" in captions:
        return len(captions["input_ids"])
    return len(next(iter(captions.values())).kept)
