"""What training a token language model means: its loss, and condition dropout."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.lm import forms
from rvq_jax.lm.conditions import Conditions, encode_conditions, without_melody, without_text
from rvq_jax.lm.model import LMConfig, TokenLM, score
from rvq_jax.patterns import Pattern
from rvq_jax.train.state import Task
from rvq_jax.typing import Array, Key


@dataclass(frozen=True)
class ConditionDropout:
    """Shares of examples trained without their conditions, for classifier-free guidance."""

    all: float = 0.1  # without any of them
    text: float = 0.0  # of the rest, without the text
    melody: float = 0.0  # of the rest, without the melody


def lm_task(
    config: LMConfig,
    pattern: Pattern,
    condition_dropout: ConditionDropout = ConditionDropout(),
    init_params: nnx.State | None = None,
) -> Task:
    """Mean bits per code over batches of codes `[B, K, F]`, mask `[B, F]`, text `[B, L]`.

    With a frozen text encoder, batches have its states `[B, L, E]` and text_mask `[B, L]` in
    place of the text, and perhaps a melody `[B, P, bins]`. The pattern travels in the state:
    patterns of one shape share one compiled step. init_params: parameters to begin with, with lists
    of layers; random without.
    """

    def init(key: Key):
        if init_params is not None:
            return jax.tree.map(jnp.zeros_like, forms.abstract(config, stacked=True))
        return nnx.state(TokenLM(config, nnx.Rngs(params=key)), nnx.Param)

    def loss(params, pattern, batch, key):
        model = forms.model(config, params, stacked=True)
        value, metrics = mean_bits(model, pattern, batch, key, condition_dropout)
        return value, (pattern, metrics)

    stacked = None if init_params is None else forms.stack(config, init_params)
    aux = jax.tree.map(jnp.asarray, pattern)
    return Task(init, aux, loss, init_params=stacked, weight=frames_of)


def mean_bits(
    model: TokenLM, pattern: Pattern, batch: dict, key: Key, condition_dropout: ConditionDropout
) -> tuple[Array, dict]:
    """Mean bits per code of a batch, and metrics."""
    conditions = drop(key, conditions_of(batch), batch["index"], condition_dropout)
    bits_BKF = score(model, pattern, batch["codes"], conditions, batch["mask"])
    frames = jnp.maximum(frames_of(batch), 1)
    bits_K = bits_BKF.sum((0, 2)) / frames
    return bits_K.mean(), {"bits_per_frame": bits_K.sum(), "bits_by_level": bits_K}


def frames_of(batch: dict) -> Array:
    """Frames of a batch that are not padding."""
    return batch["mask"].sum()


def conditions_of(batch: dict) -> Conditions:
    """Conditions of a batch."""
    if "states" not in batch:
        return batch["text"]
    return encode_conditions(batch["states"], batch["text_mask"], batch.get("melody"))


def drop(
    key: Key, conditions: Conditions, index_B: Array, condition_dropout: ConditionDropout
) -> Conditions:
    """Conditions left out of a share of examples; each draw is its own record's."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index_B)
    draws_B3 = jax.vmap(lambda k: jax.random.uniform(k, 3))(keys)
    any_B = draws_B3[:, 0] >= condition_dropout.all
    conditions = without_text(conditions, any_B & (draws_B3[:, 1] >= condition_dropout.text))
    return without_melody(conditions, any_B & (draws_B3[:, 2] >= condition_dropout.melody))
