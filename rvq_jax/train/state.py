"""What training changes, and the one step that changes it."""

import functools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from rvq_jax.errors import UserError
from rvq_jax.train import sharding
from rvq_jax.train.optimizers import OptimizerConfig, make_optimizer, rates
from rvq_jax.typing import Array, Key

SHARED: dict[Hashable, "Program"] = {}  # of this process, the oldest first
KEPT = 8  # of them


@dataclass(frozen=True)
class Task:
    """What the loop must know of a model; `codec_task` and `lm_task` make one each.

    Params are what the optimizer moves; `aux` is all else a loss needs and may change: a codec's
    codebooks, a language model's pattern and frozen weights.
    """

    init: Callable[[Key], Any]  # key -> params
    aux: Any
    loss: Callable[[Any, Any, dict, Key], tuple[Array, tuple[Any, dict]]]
    # After update `codebook_step`, from the next batches: params, aux, batches, key -> aux
    init_codebooks: Callable[[Any, Any, list[dict], Key], Any] | None = None
    codebook_batches: int = 0
    codebook_step: int = 0
    init_params: Any = None  # params to begin with in place of those of `init`
    # Batch, key -> what it counts for in the mean over parts of one: the loss is a mean of that
    # many. None for a loss that changes `aux`, which parts cannot share.
    weight: Callable[[dict, Key], Array] | None = None
    # Of several networks that are trained together, {name: params}: an optimizer for each name.
    # The run's own then says how parts of a batch and the running mean are worked out, no more.
    optimizers: dict[str, OptimizerConfig] | None = None
    # What the running mean is of, of params and aux: what is evaluated and saved; params for None.
    averaged: Callable[[Any, Any], Any] | None = None
    # Updates that parts of that lag behind by themselves, by name: means of them add so much less.
    lags: dict[str, float] = field(default_factory=dict)
    # Of the running mean, aux and a batch, held out: sums by name, the loss among them, and what
    # they are means over; nothing random or changed. None for a task that cannot be evaluated.
    evaluate: Callable[[Any, Any, dict], tuple[dict, Array]] | None = None
    # What decides the functions above but for the arrays that they are given: tasks alike share
    # what is compiled. None for a task like no other.
    alike: Hashable | None = None


class TrainState(NamedTuple):
    """Everything a checkpoint holds beside its note.

    An update whose loss or gradient is not finite is skipped: it moves the step alone.
    """

    step: Array  # int32, updates done
    key: Key  # of the run; update i draws from fold_in(key, i), so resuming needs no more
    params: Any
    ema: Any  # running mean of params, or of what the task says
    opt: Any
    aux: Any
    skips: Array  # int32 [2], updates that changed nothing: in a row up to now, and in all


class Program(NamedTuple):
    """The functions of a run; runs of the same shapes share them, and their compiles."""

    init: Callable[..., TrainState]  # key, aux, params or None -> state, where the table says
    step: Callable[[TrainState, dict], tuple[TrainState, dict]]  # donates the state it is given
    evaluate: Callable[[Any, Any, dict], tuple[dict, Array]] | None = None  # as the task's


def shared_program(task: Task, optimizer: OptimizerConfig, steps: int, mesh: Mesh) -> Program:
    """What `make_program` gives, or gave this process before for a task alike: no second compile.

    Args, errors and what is returned are as of `make_program`.
    """
    if task.alike is None:
        return make_program(task, optimizer, steps, mesh)
    leaves, structure = jax.tree.flatten((task.aux, task.init_params))
    shapes = tuple((np.shape(x), x.dtype) for x in leaves)
    key = task.alike, structure, shapes, optimizer, steps, mesh
    try:
        hash(key)
    except TypeError:  # a config with a list in it
        return make_program(task, optimizer, steps, mesh)
    if key not in SHARED:
        while len(SHARED) >= KEPT:
            SHARED.pop(next(iter(SHARED)))
        SHARED[key] = make_program(task, optimizer, steps, mesh)
    return SHARED[key]


def make_program(task: Task, optimizer: OptimizerConfig, steps: int, mesh: Mesh) -> Program:
    """The functions of a run, compiled once for all runs of the same shapes.

    Args:
      task: what is trained; its aux and init_params are arguments of the functions.
      optimizer: of the run.
      steps: updates of the run, for the learning rate's schedule.
      mesh: of devices.

    Returns:
      The functions.

    Raises:
      UserError: a task whose batches cannot be worked through in parts; see also `make_optimizer`.
    """
    tx, parts = make_optimizer(optimizer, steps, task.optimizers), optimizer.accumulate
    if parts < 1 or (parts > 1 and task.weight is None):
        more = "" if task.weight is None else " or more"
        raise UserError(f"optimizer.accumulate must be 1{more}")

    loss_and_grads = _loss_and_grads
    if parts > 1:
        loss_and_grads = functools.partial(_loss_and_grads_by_parts, parts)

    def step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        key = jax.random.fold_in(state.key, state.step)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for `rvq_jax.axes.place`
            (loss, (aux, metrics)), grads = loss_and_grads(task, state, batch, key)
        norm = optax.tree.norm(grads)
        fine = jnp.isfinite(loss) & jnp.isfinite(norm)

        def kept(new, old):
            return jax.tree.map(lambda new, old: jnp.where(fine, new, old), new, old)

        updates, opt = tx.update(grads, state.opt, state.params)
        # Kept before the mean reads them, which so is one pass over the weights, not two.
        params = kept(optax.apply_updates(state.params, updates), state.params)
        # A mean over few updates would hold the random start: the horizon grows with the step.
        longest = (1.0 + state.step) / (10.0 + state.step)
        rate = 1.0 - jnp.minimum(optimizer.ema, longest)
        newest = _averaged(task, params, aux)
        ema = optax.incremental_update(newest, state.ema, rate)
        for name, lag in task.lags.items():
            rate = 1.0 - jnp.minimum(_less(optimizer.ema, lag), longest)
            ema[name] = optax.incremental_update(newest[name], state.ema[name], rate)
        skips = jnp.where(fine, state.skips * jnp.array([0, 1]), state.skips + 1)
        ema, opt, aux = kept((ema, opt, aux), (state.ema, state.opt, state.aux))
        new = TrainState(state.step + 1, state.key, params, ema, opt, aux, skips)
        counted = {"skipped_in_a_row": skips[0], "skipped": skips[1]}
        norms = {f"gradient_norm_{n}": optax.tree.norm(grads[n]) for n in task.optimizers or ()}
        moved = rates(optimizer, steps, task.optimizers, state.opt)
        return new, {"loss": loss, "gradient_norm": norm, **norms, **moved, **metrics, **counted}

    placed = jax.tree.map(lambda x: x.sharding, abstract_state(task, optimizer, steps, mesh))
    # A start is many random draws, run once. LLVM's full effort takes 28 s for a small codec, none
    # 4 s, after which 400 million weights are drawn in half as long again.
    cpu = mesh.devices.flat[0].platform == "cpu"
    quick = {"xla_backend_optimization_level": 0} if cpu else None
    init_state = jax.jit(
        functools.partial(_init_state, task, tx),
        out_shardings=placed._replace(ema=None, aux=None),
        compiler_options=quick,
    )

    mean = _new_mean(task, placed.ema)

    def init(key: Key, aux: Any, init_params: Any = None) -> TrainState:
        state = init_state(key)
        state = state._replace(aux=jax.device_put(_copy_arrays(aux), placed.aux))
        if init_params is not None:
            state = state._replace(params=jax.device_put(_copy_arrays(init_params), placed.params))
        return state._replace(ema=mean(state.params, state.aux))

    def evaluate(params: Any, aux: Any, batch: dict) -> tuple[dict, Array]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return task.evaluate(params, aux, batch)

    evaluate = jax.jit(evaluate, out_shardings=sharding.replicated(mesh))
    # Without it XLA copies weights and moments that it could change where they lie.
    lean = {"xla_cpu_copy_insertion_use_region_analysis": True} if cpu else None
    step = jax.jit(step, donate_argnums=0, out_shardings=(placed, None), compiler_options=lean)
    return Program(init, step, None if task.evaluate is None else evaluate)


def abstract_state(task: Task, optimizer: OptimizerConfig, steps: int, mesh: Mesh) -> TrainState:
    """The shapes of a run's state, and where each lies on the mesh; computes nothing.

    Args:
      task: what is trained.
      optimizer: of the run.
      steps: updates of the run.
      mesh: of devices.

    Returns:
      A state of jax.ShapeDtypeStruct with shardings.
    """
    tx = make_optimizer(optimizer, steps, task.optimizers)
    shapes = jax.eval_shape(lambda: _init_state(task, tx, jax.random.key(0)))
    shapes = shapes._replace(aux=jax.eval_shape(lambda: task.aux))
    ema = jax.eval_shape(functools.partial(_averaged, task), shapes.params, shapes.aux)
    shapes = shapes._replace(ema=ema)
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        shapes,
        state_shardings(shapes, mesh),
    )


def _init_state(task: Task, tx: optax.GradientTransformation, key: Key) -> TrainState:
    """A new state, but for its running mean and its aux."""
    params = task.init(key)
    none = jnp.zeros((), jnp.int32)
    return TrainState(none, key, params, None, tx.init(params), None, jnp.zeros(2, jnp.int32))


def restart_mean(task: Task, state: TrainState, places: Any) -> TrainState:
    """The state with a running mean of itself alone: at the beginning, and where codebooks start.

    places: of the mean's arrays on the mesh.
    """

    return state._replace(ema=_new_mean(task, places)(state.params, state.aux))


def _new_mean(task: Task, places: Any) -> Callable[[Any, Any], Any]:
    """From params and aux to a running mean of these alone, compiled; places: of its arrays."""

    @functools.partial(jax.jit, out_shardings=places)
    def copied(params, aux):
        return jax.tree.map(jnp.copy, _averaged(task, params, aux))

    return copied


def _averaged(task: Task, params: Any, aux: Any) -> Any:
    return params if task.averaged is None else task.averaged(params, aux)


def _less(decay: float, lag: float) -> float:
    """The decay of a running mean that lags so many updates less than one of `decay`, if it can."""
    left = max(0.0, decay / (1.0 - decay) - lag) if decay < 1.0 else math.inf
    return left / (1.0 + left) if left < math.inf else 1.0


def _copy_arrays(tree):
    """Arrays on a device copied: steps take the state they are given, not the caller's arrays."""
    return jax.tree.map(lambda x: jnp.copy(x) if isinstance(x, jax.Array) else x, tree)


def _loss_and_grads(task: Task, state: TrainState, batch: dict, key: Key):
    """((loss, (aux, metrics)), gradients) of a batch."""
    value_and_grad = jax.value_and_grad(task.loss, has_aux=True)
    return value_and_grad(state.params, state.aux, batch, key)


def _loss_and_grads_by_parts(parts: int, task: Task, state: TrainState, batch: dict, key: Key):
    """The same of a batch in parts: each weighs what it counts for, so that the sum is the whole.

    Raises UserError if the batch cannot be cut into so many.
    """
    rows = len(batch["index"])
    if rows % parts:
        raise UserError(f"a batch of {rows} cannot be cut in {parts}: change optimizer.accumulate")
    # Every parts-th row to a part: of rows that follow one another each device keeps its own.
    split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)

    def weighed(part: dict):
        (loss, (_, metrics)), grads = _loss_and_grads(task, state, part, key)
        weight = task.weight(part, key).astype(jnp.float32)
        return weight, jax.tree.map(lambda x: weight * x, (loss, metrics, grads))

    def add(total, part):
        return jax.tree.map(jnp.add, total, weighed(part)), None

    shapes = jax.eval_shape(weighed, jax.tree.map(lambda x: x[0], split))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    (weight, total), _ = jax.lax.scan(add, zeros, split)
    loss, metrics, grads = jax.tree.map(lambda x: x / jnp.maximum(weight, 1.0), total)
    return (loss, (state.aux, metrics)), grads


def state_shardings(abstract: TrainState, mesh: Mesh) -> TrainState:
    """Shardings of a train state: variables by the table, those of an optimizer that mirror them
    alike, all else whole."""
    whole = sharding.replicated(mesh)
    names = ("params", "ema", "opt", "aux")
    params, ema, opt, aux = (sharding.of_params(getattr(abstract, x), mesh) for x in names)
    return TrainState(whole, whole, params, ema, opt, aux, whole)
