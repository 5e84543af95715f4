"""What training a masked token model means: bits of what is masked, of one level in each row."""

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.lm import forms
from rvq_jax.lm.conditions import Conditions
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.masked_score import masked_bits
from rvq_jax.lm.masking import Masks, record_keys
from rvq_jax.train.state import Task
from rvq_jax.train.tasks.lm import ConditionDropout, apply_dropout, conditions_of
from rvq_jax.typing import Array, Key


def masked_task(config: MaskedLMConfig, condition_dropout: ConditionDropout) -> Task:
    """Training a masked token model: mean bits per masked code.

    Batches are as of `lm_task`; semantic tokens `[B, L]` are `condition/semantic`. Levels and masks
    are drawn anew at each update; held-out batches are always masked alike.

    Args:
      config: of the model.
      condition_dropout: shares of examples trained without their conditions.

    Returns:
      The task.
    """

    def init(key: Key):
        return forms.init(config, key)

    def loss(params, aux, batch, key):
        masks_key, dropout_key = jax.random.split(key)
        conditions = read_conditions(config, batch)
        conditions = apply_dropout(dropout_key, conditions, batch["index"], condition_dropout)
        bits, count = sum_of_bits(config, params, batch, conditions, masks_key)
        return bits / jnp.maximum(count, 1), (aux, {})

    def weight(batch, key):
        return drawn_masks(config, batch, jax.random.split(key)[0]).scored.sum()

    def evaluate(params, aux, batch):
        conditions, key = read_conditions(config, batch), jax.random.key(0)
        bits, count = sum_of_bits(config, params, batch, conditions, key)
        return {"loss": bits}, count

    alike = "masked", config, condition_dropout
    return Task(init, jnp.zeros(()), loss, weight=weight, evaluate=evaluate, alike=alike)


def sum_of_bits(
    config: MaskedLMConfig, params: nnx.State, batch: dict, conditions: Conditions, key: Key
) -> tuple[Array, Array]:
    """Bits of all that was masked in a batch, and how much that was.

    Args:
      config: of the model.
      params: with stacked layers.
      batch: as of `masked_task`.
      conditions: of its rows.
      key: that levels and masks are drawn from.

    Returns:
      The sum, and the number of masked codes.
    """
    model = forms.model(config, params, stacked=True)
    masks = drawn_masks(config, batch, key)
    lengths = batch["mask"].sum(1)
    bits_BF = masked_bits(model, batch["codes"], masks, model.read(conditions), lengths)
    return bits_BF.sum(), masks.scored.sum()


def read_conditions(config: MaskedLMConfig, batch: dict) -> Conditions:
    """Those of a batch's conditions that the model reads; batches of codes always have a text."""
    found = conditions_of(batch)
    return {spec.name: found[spec.name] for spec in config.conditions if spec.name in found}


def drawn_masks(config: MaskedLMConfig, batch: dict, key: Key) -> Masks:
    """Levels and masks of a batch, each record's own: neither its batch nor its device matters."""
    keys = record_keys(key, batch["index"])
    return config.masks(keys, batch["mask"].sum(1), batch["codes"].shape[2])
