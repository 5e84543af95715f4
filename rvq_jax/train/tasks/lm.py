"""What training a token language model means: its loss, and condition dropout."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.lm import forms
from rvq_jax.lm.conditions import Conditions, condition, drop, text_condition
from rvq_jax.lm.model import LMConfig, TokenLM, score
from rvq_jax.patterns import Pattern
from rvq_jax.train.state import Task
from rvq_jax.typing import Array, Key

PREFIX = "condition/"  # of the names of a batch's other conditions


@dataclass(frozen=True)
class ConditionDropout:
    """Shares of examples trained without their conditions, for classifier-free guidance."""

    all: float = 0.1  # without any of them
    text: float = 0.0  # of the rest, without the text
    melody: float = 0.0  # of the rest, without the melody
    others: float = 0.0  # of the rest, without each of the other conditions


def lm_task(
    config: LMConfig,
    pattern: Pattern,
    condition_dropout: ConditionDropout = ConditionDropout(),
    init_params: nnx.State | None = None,
) -> Task:
    """Training a token model: mean bits per code.

    Batches have codes `[B, K, F]`, mask `[B, F]` and text `[B, L]` in bytes; with a frozen text
    encoder its states `[B, L, E]` and text_mask `[B, L]` in place of the text, and perhaps a melody
    `[B, P, bins]`. The pattern travels in the state: patterns of one shape share one compiled step.

    Args:
      config: of the model.
      pattern: of the crops.
      condition_dropout: shares of examples trained without their conditions.
      init_params: parameters to begin with, with lists of layers; random for None.

    Returns:
      The task.
    """

    def init(key: Key):
        if init_params is not None:
            return jax.tree.map(jnp.zeros_like, forms.abstract(config, stacked=True))
        return forms.init(config, key)

    def loss(params, pattern, batch, key):
        model = forms.model(config, params, stacked=True)
        value, metrics = mean_bits(model, pattern, batch, key, condition_dropout)
        return value, (pattern, metrics)

    def evaluate(params, pattern, batch):
        return sum_of_bits(forms.model(config, params, stacked=True), pattern, batch)

    stacked = None if init_params is None else forms.stack(config, init_params)
    aux = jax.tree.map(jnp.asarray, pattern)
    # What is shared is kept, and with it what the functions hold: no weights of others.
    alike = ("lm", config, condition_dropout) if init_params is None else None
    return Task(
        init, aux, loss, init_params=stacked, weight=weight_of, evaluate=evaluate, alike=alike
    )


def mean_bits(
    model: TokenLM, pattern: Pattern, batch: dict, key: Key, condition_dropout: ConditionDropout
) -> tuple[Array, dict]:
    """The loss of a batch.

    Args:
      model: with stacked layers.
      pattern: of F frames.
      batch: as of `lm_task`.
      key: of the update, for dropout.
      condition_dropout: shares of examples.

    Returns:
      Mean bits per code, and metrics.
    """
    conditions = apply_dropout(key, conditions_of(batch), batch["index"], condition_dropout)
    bits_BKF = score(model, pattern, batch["codes"], conditions, batch["mask"])
    frames = jnp.maximum(frames_of(batch), 1)
    bits_K = bits_BKF.sum((0, 2)) / frames
    return bits_K.mean(), {"bits_per_frame": bits_K.sum(), "bits_by_level": bits_K}


def sum_of_bits(model: TokenLM, pattern: Pattern, batch: dict) -> tuple[dict, Array]:
    """Of a held-out batch with all of its conditions: sums, and how many frames they are of."""
    bits_BKF = score(model, pattern, batch["codes"], conditions_of(batch), batch["mask"])
    bits_K = bits_BKF.sum((0, 2))
    found = {"loss": bits_K.mean(), "bits_per_frame": bits_K.sum(), "bits_by_level": bits_K}
    return found, frames_of(batch)


def frames_of(batch: dict) -> Array:
    """Frames of a batch that are not padding."""
    return batch["mask"].sum()


def weight_of(batch: dict, key: Key) -> Array:
    """What a batch counts for: its frames, whatever is drawn."""
    return frames_of(batch)


def conditions_of(batch: dict) -> Conditions:
    """Conditions of a batch: its text or the states of it, a melody, and `condition/NAME`."""
    found = {}
    if "states" in batch:
        found["text"] = condition(batch["states"], batch["text_mask"])
    elif "text" in batch:
        found["text"] = text_condition(batch["text"])
    if "melody" in batch:
        found["melody"] = condition(batch["melody"])
    named = {name.removeprefix(PREFIX): batch[name] for name in batch if name.startswith(PREFIX)}
    return found | {name: condition(states) for name, states in named.items()}


def apply_dropout(
    key: Key, conditions: Conditions, index_B: Array, condition_dropout: ConditionDropout
) -> Conditions:
    """Conditions left out of a share of examples.

    Args:
      key: of the update.
      conditions: by name, of B rows.
      index_B: of the records, so that a draw is its record's own, whatever the batch.
      condition_dropout: shares of examples.

    Returns:
      The same entries, marked where they are left out.
    """
    names = sorted(conditions)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index_B)
    draws_BN = jax.vmap(lambda k: jax.random.uniform(k, 1 + len(names)))(keys)
    any_B = draws_BN[:, 0] >= condition_dropout.all
    shares = {"text": condition_dropout.text, "melody": condition_dropout.melody}
    for i, name in enumerate(names, 1):
        kept_B = any_B & (draws_BN[:, i] >= shares.get(name, condition_dropout.others))
        conditions = drop(conditions, name, where_B=~kept_B)
    return conditions
