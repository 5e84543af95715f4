"""What training VALL-E means: bits of the first level and its end, and of one level above it."""

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.lm import forms
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.masked_score import level_bits
from rvq_jax.lm.model import LMConfig, score
from rvq_jax.patterns import Pattern
from rvq_jax.systems.valle import FIRST, REST
from rvq_jax.train.state import OptimizerConfig, Task
from rvq_jax.train.tasks.lm import conditions_of, frames_of, weight_of
from rvq_jax.train.tasks.masked import sum_of_bits
from rvq_jax.typing import Array, Key


def valle_task(
    first: LMConfig, rest: MaskedLMConfig, pattern: Pattern, optimizer: OptimizerConfig
) -> Task:
    """Training both stages of VALL-E at once: networks that share batches and nothing else.

    Batches are as of `lm_task`. The loss is bits per frame: of the first level with its end, and of
    a level above it that is drawn for each example, after a prompt of its own.

    Args:
      first: of the first level.
      rest: of the levels above.
      pattern: of one level and F frames.
      optimizer: of either network.

    Returns:
      The task.
    """

    def init(key: Key):
        return {FIRST: forms.init(first, key), REST: forms.init(rest, key)}

    def loss(params, pattern, batch, key):
        drawn, _ = sum_of_bits(rest, params[REST], batch, conditions_of(batch), key)
        bits = {FIRST: first_bits(first, params[FIRST], pattern, batch).sum(), REST: drawn}
        frames = jnp.maximum(frames_of(batch), 1)
        found = {f"bits_{name}": value / frames for name, value in bits.items()}
        return sum(found.values()), (pattern, found)

    def evaluate(params, pattern, batch):
        model = forms.model(rest, params[REST], stacked=True)
        args = batch["codes"], batch["mask"].sum(1), conditions_of(batch)
        above_BKF = level_bits(model, *args)
        first_BF = first_bits(first, params[FIRST], pattern, batch)
        bits_K = jnp.append(first_BF.sum(), above_BKF.sum((0, 2)))
        found = {"loss": bits_K.sum(), "bits_per_frame": bits_K.sum(), "bits_by_level": bits_K}
        return found, frames_of(batch)

    optimizers = {FIRST: optimizer, REST: optimizer}
    aux = jax.tree.map(jnp.asarray, pattern)
    options = {"weight": weight_of, "optimizers": optimizers, "evaluate": evaluate}
    return Task(init, aux, loss, **options, alike=("valle", first, rest))


def first_bits(config: LMConfig, params: nnx.State, pattern: Pattern, batch: dict) -> Array:
    """Bits of the first level of a batch, and of where its rows end.

    Args:
      config: of the network.
      params: with stacked layers.
      pattern: of one level and F frames.
      batch: as of `valle_task`.

    Returns:
      Bits `[B, F]`.
    """
    model = forms.model(config, params, stacked=True)
    codes = batch["codes"][:, :1]
    return score(model, pattern, codes, conditions_of(batch), batch["mask"])[:, 0]
