"""AdamW and the schedules of its rate, of which one allows a run to become a longer one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import optax

from rvq_jax.errors import UserError
from rvq_jax.typing import Array


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019) with a linear warm-up, and a rate that ends at zero.

    Along a cosine the rate depends on how long the run is from its first update on. A constant one
    does not before its cool-down, so that a run can be extended (Hägele et al. 2024).
    """

    learning_rate: float = 1e-3
    warmup: int = 50  # updates of linear warm-up
    schedule: Literal["cosine", "constant"] = "cosine"  # of the rate, after the warm-up
    cooldown: int = 0  # last updates of a constant rate, in which it falls to zero linearly
    b1: float = 0.9
    b2: float = 0.95
    weight_decay: float = 0.1
    clip: float = 1.0  # largest global norm of the gradient
    ema: float = 0.99  # of the weights used for evaluation; shorter at first
    accumulate: int = 1  # parts of a batch, worked through one after another: less memory
    every: int = 1  # updates of the run, skipped ones not counted, for one of this optimizer


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
    tx = optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            learning_rate(config, steps), config.b1, config.b2, weight_decay=config.weight_decay
        ),
    )
    if config.every == 1:
        return tx
    return optax.conditionally_mask(tx, lambda step, **_: step % config.every == 0)


def learning_rate(config: OptimizerConfig, steps: int) -> Callable[[Array], Array]:
    """The rate of each of the optimizer's own updates, from 0 on, in a run of `steps` updates.

    Raises UserError for a cool-down longer than the run, or of another schedule than constant.
    """
    own_steps = _own(config, steps)
    if config.schedule == "cosine":
        if config.cooldown:
            raise UserError(
                f"optimizer.cooldown is {config.cooldown}, but a cosine cools down by itself: "
                "set optimizer.schedule to constant, or leave it out"
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
        return config.learning_rate * rise * fall

    return constant


def cooldown_start(optimizers: Iterable[OptimizerConfig], steps: int) -> int | None:
    """Updates that a run of `steps` has in common with any longer one: those before the first of
    its cool-downs; None where there is none."""
    cooled = [one for one in optimizers if one.cooldown]
    return min(((_own(one, steps) - one.cooldown) * one.every for one in cooled), default=None)


def _own(config: OptimizerConfig, steps: int) -> int:
    """Updates of an optimizer in a run of `steps`."""
    return -(-steps // config.every)
