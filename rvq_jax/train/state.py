"""What training changes, and the one step that changes it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from rvq_jax.train import sharding
from rvq_jax.typing import Array, Key


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up and cosine decay to zero (Loshchilov & Hutter 2019)."""

    learning_rate: float = 1e-3
    warmup: int = 50  # updates of linear warm-up
    b1: float = 0.9
    b2: float = 0.95
    weight_decay: float = 0.1
    clip: float = 1.0  # largest global norm of the gradient
    ema: float = 0.99  # of the weights used for evaluation; shorter at first


@dataclass(frozen=True)
class Task:
    """What the loop must know of a model; `codec_task` and `lm_task` make one each.

    Params are what the optimizer moves; `rest` is all else a loss needs and may change: a codec's
    codebooks, a language model's pattern.
    """

    init: Callable[[Key], Any]  # key -> params
    rest: Any
    loss: Callable[[Any, Any, dict, Key], tuple[Array, tuple[Any, dict]]]
    # After update `start_at`, from the next batches: params, rest, batches, key -> rest
    start: Callable[[Any, Any, list[dict], Key], Any] | None = None
    start_batches: int = 0
    start_at: int = 0


class TrainState(NamedTuple):
    """Everything a checkpoint holds beside the data's position."""

    step: Array  # int32, updates done
    key: Key  # of the run; update i draws from fold_in(key, i), so resuming needs no more
    params: Any
    ema: Any  # running mean of params
    opt: Any
    rest: Any


def optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The optimizer of a run of `steps` updates."""
    warmup = min(config.warmup, max(steps - 1, 1))
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, steps)
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(schedule, config.b1, config.b2, weight_decay=config.weight_decay),
    )


class Program(NamedTuple):
    """The two jitted functions of a run; runs of the same shapes share them, and their compiles."""

    init: Callable[[Key, Any], TrainState]  # key, rest -> state, born where the table says
    step: Callable[[TrainState, dict], tuple[TrainState, dict]]  # donates the state it is given


def make_program(task: Task, tuning: OptimizerConfig, steps: int, mesh: Mesh) -> Program:
    """The program of runs of `steps` updates; the seed and `task.rest` are arguments to it."""
    tx = optimizer(tuning, steps)

    def init(key: Key, rest: Any) -> TrainState:
        params = task.init(key)
        ema = jax.tree.map(jnp.copy, params)
        return TrainState(jnp.zeros((), jnp.int32), key, params, ema, tx.init(params), rest)

    def step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        key = jax.random.fold_in(state.key, state.step)
        value_and_grad = jax.value_and_grad(task.loss, has_aux=True)
        (loss, (rest, metrics)), grads = value_and_grad(state.params, state.rest, batch, key)
        updates, opt = tx.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        # A mean over few updates would hold the random start: the horizon grows with the step.
        decay = jnp.minimum(tuning.ema, (1.0 + state.step) / (10.0 + state.step))
        ema = optax.incremental_update(params, state.ema, 1.0 - decay)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(grads), **metrics}
        return TrainState(state.step + 1, state.key, params, ema, opt, rest), metrics

    abstract = jax.eval_shape(init, jax.random.key(0), task.rest)
    placed = state_shardings(abstract, tx, mesh)
    # A start is many random draws, run once: LLVM's full effort took 14 s on it, this 3 s.
    cpu = mesh.devices.flat[0].platform == "cpu"
    quick = {"xla_backend_optimization_level": 1} if cpu else None
    return Program(
        jax.jit(init, out_shardings=placed, compiler_options=quick),
        jax.jit(step, donate_argnums=0, out_shardings=(placed, None)),
    )


def state_shardings(abstract: TrainState, tx: optax.GradientTransformation, mesh: Mesh):
    """Shardings of a train state: parameters by the table, what mirrors them alike, rest whole."""
    params = sharding.of_params(abstract.params, mesh)
    whole = sharding.replicated(mesh)
    opt = optax.tree.map_params(
        tx,
        lambda _, placed: placed,
        abstract.opt,
        params,
        transform_non_params=lambda _: whole,
    )
    return TrainState(whole, whole, params, params, opt, whole)
