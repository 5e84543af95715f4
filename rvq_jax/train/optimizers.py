"""AdamW and the schedules of its rate, of which one allows a run to become a longer one."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from rvq_jax.errors import UserError
from rvq_jax.typing import Array

NAMES = {"simple": True, "separator": "/"}


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019) with a linear warm-up, and a rate that ends at zero.

    Along a cosine the rate depends on how long the run is from its first update on. A constant one
    does not before its cool-down, so that a run can be extended (Hägele et al. 2024).
    """

    learning_rate: float = 1e-3  # the highest, after the warm-up
    warmup: int = 50  # updates of linear warm-up
    schedule: Literal["cosine", "constant"] = "cosine"  # of the rate, after the warm-up
    cooldown: int = 0  # last updates of a constant rate, in which it falls to zero linearly
    gamma: float = 1.0  # factor of a constant rate from each update to the next
    b1: float = 0.9  # decay of AdamW's mean of gradients
    b2: float = 0.95  # decay of AdamW's mean of their squares
    weight_decay: float = 0.1  # AdamW's, times the learning rate
    clip: float = 1.0  # largest global norm of the gradient
    ema: float = 0.99  # of the weights used for evaluation; shorter at first
    accumulate: int = 1  # parts of a batch, worked through one after another: less memory
    # Which updates of the run, skipped ones not counted, are also this optimizer's: from `start`
    # on every so many of them, and of these a share that is drawn.
    every: int = 1
    start: int = 0
    probability: float = 1.0
    decayed: tuple[str, ...] = ()  # names in the paths of weights that decay; () for all weights


def make_optimizer(
    config: OptimizerConfig, steps: int, networks: dict[str, OptimizerConfig] | None = None
) -> optax.GradientTransformation:
    """The optimizer of a run of `steps` updates; networks: one each, by their names.

    Raises UserError for an interval or a cool-down that cannot be.
    """
    if networks is not None:
        each = {name: make_optimizer(one, steps) for name, one in networks.items()}
        return optax.partition(each, {name: name for name in networks})
    if config.every < 1:
        raise UserError(f"optimizer.every is {config.every}; set it to at least 1")

    def decays(params):
        def named(path, _):
            return any(
                key in config.decayed for key in jax.tree_util.keystr(path, **NAMES).split("/")
            )

        return jax.tree_util.tree_map_with_path(named, params)

    tx = optax.chain(
        clip(config.clip),
        optax.adamw(
            learning_rate(config, steps),
            config.b1,
            config.b2,
            weight_decay=config.weight_decay,
            mask=decays if config.decayed else None,
        ),
    )
    if (config.every, config.start, config.probability) == (1, 0, 1.0):
        return tx

    def moves(step: Array, **_) -> Array:
        # By the number of the update alone: a run that was stopped draws what it would have.
        drawn = jax.random.bernoulli(
            jax.random.fold_in(jax.random.key(0), step), config.probability
        )
        return (step >= config.start) & ((step - config.start) % config.every == 0) & drawn

    return optax.conditionally_mask(tx, moves)


def clip(most: float) -> optax.GradientTransformation:
    """Gradients of at most a global norm (Pascanu et al. 2013), times one factor.

    `optax.clip_by_global_norm` divides them, and what is divided XLA writes out for its readers, a
    pass over all weights more.

    Args:
      most: of the norm.

    Returns:
      The transformation, without a state.
    """

    def update(gradients, params=None):
        norm = optax.tree.norm(gradients)
        factor = jnp.where(norm < most, 1.0, most / norm)
        return jax.tree.map(lambda x: x * factor.astype(x.dtype), gradients)

    return optax.stateless(update)


def learning_rate(config: OptimizerConfig, steps: int) -> Callable[[Array], Array]:
    """The rate of each of the optimizer's own updates, from 0 on, in a run of `steps` updates.

    Raises UserError for a cool-down longer than the run, or of another schedule than constant.
    """
    own_steps = _own(config, steps)
    if config.cooldown and config.probability < 1.0:
        raise UserError(
            f"optimizer.cooldown is {config.cooldown}, of updates that are drawn: set "
            "optimizer.probability to 1, and optimizer.every to more"
        )
    if config.schedule == "cosine":
        unset = OptimizerConfig()
        for name in ("cooldown", "gamma"):
            if getattr(config, name) != getattr(unset, name):
                raise UserError(
                    f"optimizer.{name} is {getattr(config, name)}, but a cosine cools down by "
                    "itself: set optimizer.schedule to constant, or leave it out"
                )
        warmup = min(config.warmup, max(own_steps - 1, 1))
        decay = max(own_steps, warmup + 1)
        return optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, decay)
    if config.cooldown > own_steps:
        raise UserError(
            f"optimizer.cooldown is {config.cooldown} of {own_steps} updates; set it to fewer"
        )

    def constant(step: Array) -> Array:
        # Of the length of the run only the last factor knows, which is 1 before the cool-down.
        rise = jnp.minimum(1.0, step / max(config.warmup, 1)) if config.warmup else 1.0
        fall = jnp.clip((own_steps - step) / config.cooldown, 0.0, 1.0) if config.cooldown else 1.0
        # By the exponent: so near to one, a factor in float32 would be another.
        less = jnp.exp(step * math.log(config.gamma)) if config.gamma < 1.0 else 1.0
        return config.learning_rate * rise * fall * less

    return constant


def rates(
    config: OptimizerConfig, steps: int, networks: dict[str, OptimizerConfig] | None, state
) -> dict[str, Array]:
    """The rates of the next update of an optimizer, of a state of it.

    Args:
      config: of the run.
      steps: updates of the run.
      networks: of several, one each, by their names.
      state: of what `make_optimizer` made of these.

    Returns:
      `learning_rate`, or one for each network, `learning_rate_NAME`.
    """

    def scheduled(path, _) -> bool:
        return getattr(path[-1], "tuple_name", "") == optax.ScaleByScheduleState.__name__

    def rate(one: OptimizerConfig, state) -> Array:
        return learning_rate(one, steps)(optax.tree.get(state, "count", filtering=scheduled))

    if networks is None:
        return {"learning_rate": rate(config, state)}
    parts = state.inner_states
    return {f"learning_rate_{name}": rate(one, parts[name]) for name, one in networks.items()}


def cooldown_start(optimizers: Iterable[OptimizerConfig], steps: int) -> int | None:
    """Updates that a run of `steps` has in common with any longer one: those before the first of
    its cool-downs; None where there is none."""
    cooled = [one for one in optimizers if one.cooldown]
    begins = (one.start + (_own(one, steps) - one.cooldown) * one.every for one in cooled)
    return min(begins, default=None)


def _own(config: OptimizerConfig, steps: int) -> int:
    """Updates of an optimizer in a run of `steps`; of those that are drawn, how many to expect."""
    return round(-(-max(steps - config.start, 0) // config.every) * config.probability)
