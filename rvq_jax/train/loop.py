"""The one training loop: for codecs and language models, on a laptop and on a pod."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from rvq_jax import config as configs
from rvq_jax import files
from rvq_jax.errors import UserError
from rvq_jax.train import sharding
from rvq_jax.train.checkpoint import Checkpoints
from rvq_jax.train.state import OptimizerConfig, Program, Task, TrainState, make_program


@dataclass(frozen=True)
class LoopConfig:
    """Length and habits of a run."""

    steps: int = 400  # updates
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 200
    keep: int = 2  # newest checkpoints kept


def open_run(folder: Path, config: dict) -> None:
    """Makes a run's folder and its config.json, or checks that it holds this very config.

    Raises UserError naming the fields that differ, or if the folder cannot be written to.
    """
    path = Path(folder) / "config.json"
    if not path.exists():
        files.write_json(path, config)
        return
    try:
        old = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); delete it or choose another --out") from (
            error
        )
    if not isinstance(old, dict):
        raise UserError(f"{path} holds no config; delete it or choose another --out")
    # Through JSON, so that tuples and lists compare equal.
    changed = configs.differences(old, json.loads(json.dumps(config)))
    if changed:
        raise UserError(
            f"{folder} was made with another config ({'; '.join(changed[:3])}); "
            "choose another --out or delete it"
        )


def fit(
    folder: Path,
    task: Task,
    batches: Iterator[dict],
    config: LoopConfig,
    tuning: OptimizerConfig,
    *,
    mesh: Mesh | None = None,
    names: Callable[[np.ndarray], list[str]] = lambda index: [f"#{i}" for i in index],
    label: str = "training",
    program: Program | None = None,
) -> TrainState:
    """Trains for `config.steps` updates, resuming from the newest checkpoint in `folder`.

    batches yields dicts of arrays `[B, …]` with the records' `index` `[B]`, and its
    get_state / set_state give the position that checkpoints keep: a run killed at any moment and
    started again ends with the same bits as one never killed. `program` shares compiled functions
    between runs (see `make_program`).
    Raises UserError if the loss or gradient is no longer finite, naming the step and the records.
    """
    folder = Path(folder)
    mesh = sharding.make_mesh(devices=jax.devices()[:1]) if mesh is None else mesh
    program = make_program(task, tuning, config.steps, mesh) if program is None else program
    with Checkpoints(folder / "checkpoints", config.keep) as checkpoints:
        state = program.init(jax.random.key(config.seed), task.rest, task.given)
        if checkpoints.latest() is not None:
            state = checkpoints.restore(state, batches)
        done = int(state.step)
        log = Log(folder / "metrics.jsonl", done)
        waiting: tuple[int, dict, np.ndarray] | None = None
        bar = tqdm(
            total=config.steps, initial=done, desc=label, unit="update", disable=not _first()
        )
        with bar:
            for step in range(done + 1, config.steps + 1):
                if task.start is not None and step == task.start_at + 1:
                    state = _start(task, state, batches, mesh)
                batch = next(batches)
                state, metrics = program.step(state, sharding.place_batch(batch, mesh))
                # The step before is looked at while this one runs: the device never waits.
                if waiting is not None:
                    _report(waiting, log, bar, config, checkpoints, names)
                waiting = (step, metrics, batch["index"])
                bar.update()
                if step % config.checkpoint_every == 0 or step == config.steps:
                    _report(waiting, log, bar, config, checkpoints, names)
                    waiting = None
                    checkpoints.save(step, state, batches)
    return state


class Log:
    """metrics.jsonl: one JSON line each, written by the first process alone."""

    def __init__(self, path: Path, done: int):
        self.path = path
        self.began = time.perf_counter()
        if not _first() or not path.exists():
            return
        # Lines after the checkpoint belong to updates that are done again.
        lines = [line for line in path.read_text().splitlines() if _step(line) <= done]
        with files.writing(path) as target:
            target.write_text("".join(line + "\n" for line in lines))
        # Seconds go on from the last line: they count training, not what was lost or waited.
        self.began -= json.loads(lines[-1])["seconds"] if lines else 0.0

    def write(self, step: int, metrics: dict) -> None:
        if _first():
            seconds = round(time.perf_counter() - self.began, 3)
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, "seconds": seconds, **metrics}) + "\n")


def _report(waiting, log: Log, bar, config: LoopConfig, checkpoints: Checkpoints, names) -> None:
    step, metrics, index = waiting
    values = {
        name: np.asarray(value, np.float64).tolist()
        for name, value in jax.device_get(metrics).items()
    }
    if not np.isfinite([values["loss"], values["gradient_norm"]]).all():
        latest = checkpoints.latest()
        kept = "no checkpoint yet" if latest is None else f"the checkpoint of step {latest} is kept"
        raise UserError(
            f"the loss is {values['loss']} and the gradient's norm {values['gradient_norm']} at "
            f"step {step}, on {', '.join(names(np.asarray(index)))}; {kept}; "
            "look at these examples or lower the learning rate"
        )
    bar.set_postfix(loss=f"{values['loss']:.3f}", refresh=False)
    if step % config.log_every == 0 or step == config.steps or step == 1:
        log.write(step, values)


def _start(task: Task, state: TrainState, batches, mesh: Mesh) -> TrainState:
    first = [sharding.place_batch(next(batches), mesh) for _ in range(task.start_batches)]
    # Updates fold in 0, 1, 2 …; the start takes a number they never reach.
    key = jax.random.fold_in(state.key, 2**31 - 1)
    rest = task.start(state.params, state.rest, first, key)
    return state._replace(rest=jax.device_put(rest, sharding.replicated(mesh)))


def _step(line: str) -> float:
    """The step of a line of the log; infinity for one cut short by a crash."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return float("inf")


def _first() -> bool:
    return jax.process_index() == 0
