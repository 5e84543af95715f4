"""What tuning a token model by low-rank adapters means: they alone are trained."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax import files
from rvq_jax.lm import forms, lora
from rvq_jax.lm.lora import LoRAConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.patterns import Pattern
from rvq_jax.train.state import Task
from rvq_jax.train.tasks.lm import ConditionDropout, mean_bits, sum_of_bits, weight_of
from rvq_jax.typing import Key

Adapters = dict[str, dict[str, nnx.Param]]


class Frozen(NamedTuple):
    """What the loss reads and no update moves."""

    pattern: Pattern
    base: nnx.State  # with stacked layers


def lora_task(
    config: LMConfig,
    adapted: LoRAConfig,
    base: nnx.State,
    pattern: Pattern,
    condition_dropout: ConditionDropout,
) -> Task:
    """Training adapters of a token model, which stays as it is (Hu et al. 2021).

    The optimizer, its moments and the running mean hold the adapters alone.

    Args:
      config: of the model.
      adapted: rank and scale of the adapters.
      base: its parameters, with lists of layers.
      pattern: of the crops.
      condition_dropout: shares of examples trained without their conditions.

    Returns:
      The task; batches are those of `lm_task`.
    """

    def init(key: Key) -> Adapters:
        return placed(lora.init(key, forms.abstract(config, stacked=True), adapted), config)

    def loss(adapters, frozen: Frozen, batch, key):
        params = merged(frozen.base, adapters, adapted)
        model = forms.model(config, params, stacked=True)
        value, metrics = mean_bits(model, frozen.pattern, batch, key, condition_dropout)
        return value, (frozen, metrics)

    def evaluate(adapters, frozen: Frozen, batch):
        params = merged(frozen.base, adapters, adapted)
        return sum_of_bits(forms.model(config, params, stacked=True), frozen.pattern, batch)

    aux = Frozen(jax.tree.map(jnp.asarray, pattern), forms.stack(config, base))
    return Task(init, aux, loss, weight=weight_of, evaluate=evaluate)


def merged(base: nnx.State, adapters: Adapters, adapted: LoRAConfig) -> nnx.State:
    """Base with the adapters in it."""
    plain = jax.tree.map(lambda x: x.get_value(), adapters, is_leaf=_is_variable)
    return lora.merge(base, plain, adapted)


def placed(adapters: dict, config: LMConfig) -> Adapters:
    """Adapters as variables, with the axes of the weights that they are added to.

    a goes in where the weight does and b out where it does; the rank is whole everywhere.
    """
    shapes = forms.abstract(config, stacked=True)
    variables = jax.tree.leaves(shapes, is_leaf=_is_variable)
    axes = dict(zip(files.named(shapes), (x.axes for x in variables), strict=True))
    found = {}
    for path, pair in adapters.items():
        into, out = lora.fan_axes(path, axes[path])
        found[path] = {
            "a": nnx.Param(pair["a"], axes=(None, into)),
            "b": nnx.Param(pair["b"], axes=(out, None)),
        }
    return found


def _is_variable(x) -> bool:
    return isinstance(x, nnx.Variable)
