"""The one training loop: for codecs and language models, on a laptop and on a pod."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from rvq_jax import config as configs
from rvq_jax import files, opening, progress
from rvq_jax.errors import UserError, reading
from rvq_jax.train import guards, hosts, sharding
from rvq_jax.train.checkpoint import Checkpoints, Note, steps_in
from rvq_jax.train.heldout import evaluate
from rvq_jax.train.hosts import warn
from rvq_jax.train.monitoring import NOTHING, Monitoring, Sampler
from rvq_jax.train.state import (
    OptimizerConfig,
    Program,
    Task,
    TrainState,
    restart_mean,
    shared_program,
)
from rvq_jax.train.timetable import LoopConfig, timetable
from rvq_jax.train.watch import Update, Watch

PROFILE_AFTER = 3  # updates: compiles are not what a trace is for
# Fields of a config that came later, and what runs were without them.
NEW_FIELDS = {"evaluate_every": None, "schedule": "cosine", "cooldown": 0}
NEW_FIELDS |= {"start": 0, "probability": 1.0, "decayed": [], "gamma": 1.0}
NEW_FIELDS |= {"depth": None, "block": "musicgen", "kv_heads": None, "rope_theta": 10_000.0}
NEW_FIELDS |= {"eps": 1e-5, "text_as": "cross", "level_norms": False, "tied": False}
NEW_FIELDS |= {"speech": False, "phonemes": None, "attention": "auto"}


def open_run(folder: Path, config: dict) -> None:
    """Makes a run's folder and its config.json, or checks that it holds this very config.

    Of a run at a constant rate (optimizer.schedule) loop.steps may be another number, which
    config.json then has.

    Raises UserError naming the fields that differ, or if the folder cannot be written to.
    """
    path = Path(folder) / "config.json"
    if not path.exists():
        files.write_json(path, config)
        return
    with reading(path, "the config of a run", "delete it or choose another --out"):
        old = json.loads(opening.read_bytes(path).decode())
    if not isinstance(old, dict):
        raise UserError(f"{path} holds no config; delete it or choose another --out")
    if any("tuning" in part for part in (old, *old.values()) if isinstance(part, dict)):
        raise UserError(
            f"{folder} is a run of rvq_jax 0.1, whose checkpoints this version cannot go on from; "
            "choose another --out"
        )
    # Through JSON, so that tuples and lists compare equal.
    config = json.loads(json.dumps(config))
    changed = configs.differences(_with_new_fields(configs.renewed(old), config), config)
    if [line.partition(":")[0] for line in changed] == ["loop.steps"]:
        _check_length(folder, old, config)
        with guards.alone(folder):
            if hosts.first():
                files.write_json(path, config)
    elif changed:
        raise UserError(
            f"{folder} was made with another config ({'; '.join(changed[:3])}); "
            "choose another --out or delete it"
        )


def _with_new_fields(old: dict, config: dict) -> dict:
    """An old config with the fields that came after it, as if they had been there."""
    new = {name: NEW_FIELDS[name] for name in config.keys() & NEW_FIELDS.keys()}
    pairs = ((name, x, config.get(name)) for name, x in old.items())
    parts = {n: _with_new_fields(a, b) for n, a, b in pairs if {type(a), type(b)} == {dict}}
    return new | old | parts


def _schedules(config: dict) -> Iterator[str]:
    """Of all optimizers in a config."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _schedules(value)
        elif name == "schedule":
            yield value


def _check_length(folder: Path, old: dict, config: dict) -> None:
    """Raises UserError if a run cannot be one of loop.steps instead."""
    steps, before = config["loop"]["steps"], old["loop"]["steps"]
    if any(schedule != "constant" for schedule in _schedules(config)):
        raise UserError(
            f"{folder} is a run of {before} updates, along a cosine of that length: it cannot "
            f"become one of {steps}; choose another --out, with optimizer.schedule constant if it "
            "is to be extended"
        )
    done = max(steps_in(Path(folder) / "checkpoints"), default=0)
    if done > steps:
        raise UserError(
            f"{folder} has done {done} updates: set loop.steps to at least that, not to {steps}, "
            "or choose another --out"
        )


def fit(
    folder: Path,
    task: Task,
    batches: Iterator[dict],
    config: LoopConfig,
    optimizer: OptimizerConfig,
    *,
    mesh: Mesh | None = None,
    names: Callable[[np.ndarray], list[str]] = lambda index: [f"#{i}" for i in index],
    label: str = "training",
    program: Program | None = None,
    dataset: dict | None = None,
    heldout: Sequence[dict] = (),
    monitoring: Monitoring = NOTHING,
    sample: Sampler | None = None,
) -> TrainState:
    """Trains a task, resuming from the newest checkpoint in the folder.

    A run killed at any moment and started again ends with the same bits as one never killed. An
    update whose loss or gradient is not finite is skipped. A spike of the loss (`config.spike`)
    leads back to the newest checkpoint and past the data seen since.

    Args:
      folder: of the run: metrics.jsonl, checkpoints.
      task: what is trained.
      batches: yields dicts of arrays `[B, …]` with the records' `index` `[B]`; its get_state and
        set_state give the position that checkpoints keep.
      config: length and habits.
      optimizer: of the run.
      mesh: of devices; the first one alone by default.
      names: from indices of records to their names, for errors.
      label: of the progress bar.
      program: compiled functions (see `make_program`); those that tasks alike share for None.
      dataset: JSON values by which the data differ from others; under `heldout` those held out.
      heldout: batches that the running means of the weights are evaluated on, each like a part
        (`optimizer.accumulate`) of a batch of the run.
      monitoring: what is kept for people to look at; traces go into folder / profile.
      sample: from a state to clips, as many as monitoring says; all processes call it. They are
        made at every evaluation, or where nothing is held out at every checkpoint.

    Returns:
      The state after `config.steps` updates, or the best of those saved (`config.result`).

    Raises:
      UserError: `config.skips` updates in a row that were skipped, with the step and the records;
        spikes without an end; a folder that another run holds; data that changed.
      Preempted: after SIGTERM or Ctrl-C, with all saved.
    """
    folder, dataset = Path(folder), {} if dataset is None else dataset
    mesh = sharding.make_mesh(devices=jax.devices()[:1]) if mesh is None else mesh
    program = shared_program(task, optimizer, config.steps, mesh) if program is None else program
    if heldout and program.evaluate is None:
        raise ValueError("held-out batches go with a task and a program that evaluate")
    optimizers = [optimizer] if task.optimizers is None else task.optimizers.values()
    table = timetable(config, optimizers, len(heldout) / optimizer.accumulate)
    profile = monitoring.profile
    kept = {"keep": config.keep, "best": config.result == "best", "cooldown": table.cooldown}
    with (
        guards.alone(folder),
        Checkpoints(folder / "checkpoints", adopt=table.adopt, **kept) as checkpoints,
        hosts.preemption() as preempted,
        progress.bar(
            total=config.steps,
            desc=label,
            unit="update",
            disable=not hosts.first(),
        ) as bar,
        contextlib.ExitStack() as traced,
        contextlib.ExitStack() as ended,
    ):
        state = program.init(jax.random.key(config.seed), task.aux, task.init_params)
        # Taken before any is restored: JAX 0.10 refuses the place that a restored key has.
        like = jax.tree.map(_shape_and_place, state)
        note = Note(0, None, batches.get_state(), dataset, [])
        state, note = checkpoints.restore(like) or (state, note)
        guards.check_dataset(note.dataset, dataset, folder)
        batches.set_state(note.data)
        watch = Watch(folder, table, names, bar, note, mesh)
        ended.callback(watch.close)
        watch.track(monitoring.track)
        count = sum(x.size for x in jax.tree.leaves(state.params))
        model = f"{label}, {count / 1e6:.3g} M parameters"
        if monitoring.listened and sample is None:
            warn("no clips are kept: that needs held-out data, and of a token model its codec")
        if heldout and not table.evaluates_at_all:
            warn(
                f"a run of {config.steps} updates is too short to be evaluated in 2 % of its time: "
                "loop.evaluate_every does it anyway"
            )
        step, taken, waiting = watch.step, 0, None
        while step < config.steps:
            if task.init_codebooks is not None and step == task.codebook_step:
                state = _init_codebooks(task, state, batches, mesh)
            if profile and taken == PROFILE_AFTER:
                traced.enter_context(jax.profiler.trace(folder / "profile"))
            batch = watch.log.take(batches)
            said = hosts.first() and not taken
            with (
                progress.compiling("the first update", model) if said else contextlib.nullcontext()
            ):
                state, metrics = program.step(state, sharding.place_batch(batch, mesh))
            step, taken = step + 1, taken + 1
            if profile and taken == PROFILE_AFTER + profile:
                jax.block_until_ready(state)
                traced.close()
            stop = preempted(taken)
            save, look = stop or table.saves(step), table.evaluates(step)
            # The step before is looked at while this one runs: the device never waits.
            before, waiting = waiting, Update(step, metrics, batch["index"])
            hears = look if table.evaluates_at_all else table.saves(step)
            spike = watch.record(before)
            if look:
                found = evaluate(program.evaluate, state.ema, state.aux, heldout, mesh)
                waiting = waiting._replace(heldout=found)
            if save or look:
                spike, waiting = watch.record(waiting) or spike, None
            if monitoring.listened and sample is not None and hears and not stop:
                watch.hear(step, state, sample)
            if spike and (back := checkpoints.restore(like)) is not None:
                # The data go on where they are: what was seen since is not seen again.
                state, note = back
                watch.go_back(note)
                step, waiting, save = note.step, None, False
            if save:
                checkpoints.save(watch.note(batches.get_state(), dataset), state)
            if stop:
                checkpoints.wait()
                raise stop(f"saved at step {step}; the same command goes on from there")
        checkpoints.wait()
        # Asked for in the last update, when all else had looked: what comes next shall not begin.
        if stop := preempted(taken + 1):
            raise stop(f"saved at step {step}, its last; the same command writes the model")
        if config.result == "best":
            state, _ = checkpoints.restore(like, best=True)
    return state


def _shape_and_place(x) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _init_codebooks(task: Task, state: TrainState, batches, mesh: Mesh) -> TrainState:
    first = [sharding.place_batch(next(batches), mesh) for _ in range(task.codebook_batches)]
    # Updates fold in 0, 1, 2 …; this takes a number they never reach.
    key = jax.random.fold_in(state.key, 2**31 - 1)
    aux = task.init_codebooks(state.params, state.aux, first, key)
    places = jax.tree.map(lambda x: x.sharding, (state.aux, state.ema))
    return restart_mean(task, state._replace(aux=jax.device_put(aux, places[0])), places[1])
