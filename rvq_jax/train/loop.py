"""The one training loop: for codecs and language models, on a laptop and on a pod."""

import contextlib
import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from rvq_jax import config as configs
from rvq_jax import files, opening, screen
from rvq_jax.errors import UserError, reading
from rvq_jax.train import guards, hosts, sharding
from rvq_jax.train.checkpoint import Checkpoints, Note
from rvq_jax.train.hosts import Preempted, warn
from rvq_jax.train.log import Log
from rvq_jax.train.state import OptimizerConfig, Program, Task, TrainState, make_program

ROLLBACKS = 3  # in a row, without a checkpoint between them
PROFILE_AFTER = 3  # updates: compiles are not what a trace is for


@dataclass(frozen=True)
class LoopConfig:
    """Length and habits of a run."""

    steps: int = 400  # updates
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 200
    keep: int = 2  # newest checkpoints kept
    result: Literal["last", "best"] = "last"  # checkpoint that the model is of; best: least loss
    skips: int = 3  # updates in a row without a finite loss and gradient that end a run
    spike: float | None = None  # loss relative to the last ones that leads back to a checkpoint


def open_run(folder: Path, config: dict) -> None:
    """Makes a run's folder and its config.json, or checks that it holds this very config.

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
    optimizer: OptimizerConfig,
    *,
    mesh: Mesh | None = None,
    names: Callable[[np.ndarray], list[str]] = lambda index: [f"#{i}" for i in index],
    label: str = "training",
    program: Program | None = None,
    dataset: dict | None = None,
    profile: int | None = None,
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
      program: compiled functions that runs share (see `make_program`).
      dataset: JSON values by which the data differ from others.
      profile: updates to trace into folder / profile; none for None.

    Returns:
      The state after `config.steps` updates, or that of the least loss (`config.result`).

    Raises:
      UserError: `config.skips` updates in a row that were skipped, with the step and the records;
        spikes without an end; a folder that another run holds; data that changed.
      Preempted: after SIGTERM, with all saved.
    """
    folder, dataset = Path(folder), {} if dataset is None else dataset
    mesh = sharding.make_mesh(devices=jax.devices()[:1]) if mesh is None else mesh
    program = make_program(task, optimizer, config.steps, mesh) if program is None else program
    with (
        guards.alone(folder),
        Checkpoints(folder / "checkpoints", config.keep, config.result == "best") as checkpoints,
        hosts.preemption() as preempted,
        tqdm(
            total=config.steps,
            desc=label,
            unit="update",
            disable=not hosts.first(),
            file=screen.STDERR,
        ) as bar,
        contextlib.ExitStack() as traced,
    ):
        state = program.init(jax.random.key(config.seed), task.aux, task.init_params)
        note = Note(0, None, batches.get_state(), dataset, [])
        state, note = checkpoints.restore(state) or (state, note)
        guards.check_dataset(note.dataset, dataset, folder)
        batches.set_state(note.data)
        watch = Watch(folder, config, names, bar, note)
        step, taken, waiting = watch.step, 0, None
        while step < config.steps:
            if task.init_codebooks is not None and step == task.codebook_step:
                state = _init_codebooks(task, state, batches, mesh)
            if profile and taken == PROFILE_AFTER:
                traced.enter_context(jax.profiler.trace(folder / "profile"))
            batch = watch.log.take(batches)
            state, metrics = program.step(state, sharding.place_batch(batch, mesh))
            step, taken = step + 1, taken + 1
            if profile and taken == PROFILE_AFTER + profile:
                jax.block_until_ready(state)
                traced.close()
            stop = preempted(taken)
            save = stop or step == config.steps or step % config.checkpoint_every == 0
            # The step before is looked at while this one runs: the device never waits.
            before, waiting = waiting, (step, metrics, batch["index"])
            spike = watch.record(before)
            if save:
                spike, waiting = watch.record(waiting) or spike, None
            if spike and (back := checkpoints.restore(state)) is not None:
                # The data go on where they are: what was seen since is not seen again.
                state, note = back
                watch.go_back(note)
                step, waiting, save = note.step, None, False
            if save:
                checkpoints.save(watch.note(batches.get_state(), dataset), state)
            if stop:
                checkpoints.wait()
                raise Preempted(f"saved at step {step}; the same command goes on from there")
        checkpoints.wait()
        if config.result == "best":
            state, _ = checkpoints.restore(state, best=True)
    return state


class Watch:
    """What the host knows of a run while it goes: its log, and what its losses say."""

    def __init__(self, folder: Path, config: LoopConfig, names, bar: tqdm, note: Note):
        self.config, self.names, self.bar = config, names, bar
        self.backs = 0
        self.log = Log(folder / "metrics.jsonl", note.step)
        self._go_on(note)

    def _go_on(self, note: Note) -> None:
        self.step = self.bar.n = note.step
        self.losses = deque(note.losses, maxlen=guards.WINDOW)
        self.since, self.bad = [], []

    def go_back(self, note: Note) -> None:
        """To a checkpoint, after a spike; raises UserError if that leads nowhere."""
        self.backs += 1
        if self.backs > ROLLBACKS:
            raise UserError(
                f"the loss leapt {self.backs} times after step {note.step}, each time on other "
                "data; lower the learning rate, or raise loop.spike"
            )
        warn(f"the loss leapt at step {self.step}: back to step {note.step}, past the data since")
        self.log.go_back(note.step)
        self._go_on(note)

    def note(self, data: dict, dataset: dict) -> Note:
        """For a checkpoint of the last step that was looked at."""
        mean = float(np.mean(self.since)) if self.since else None
        self.since, self.backs = [], 0
        return Note(self.step, mean, data, dataset, list(self.losses))

    def record(self, what: tuple[int, dict, np.ndarray] | None) -> bool:
        """Logs an update's metrics; says whether its loss is a spike.

        Raises UserError if it is the last of too many that were skipped.
        """
        if what is None:
            return False
        self.step, metrics, index = what
        values = {
            name: np.asarray(value, np.float64).tolist()
            for name, value in jax.device_get(metrics).items()
        }
        self.bar.update()
        values["skipped"] = int(values["skipped"])
        loss, in_a_row = values["loss"], int(values.pop("skipped_in_a_row"))
        self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        spike = False
        if in_a_row:
            self._skipped(in_a_row, values, index)
        else:
            self.bad = []
            spike = guards.spiked(self.losses, loss, self.config.spike)
            self.losses.append(loss)
            self.since.append(loss)
        if self.step % self.config.log_every == 0 or self.step in (1, self.config.steps):
            self.log.write(self.step, values)
        return spike

    def _skipped(self, in_a_row: int, values: dict, index: np.ndarray) -> None:
        self.bad += self.names(np.asarray(index))
        what = (
            f"the loss is {values['loss']} and the gradient's norm {values['gradient_norm']} at "
            f"step {self.step}"
        )
        if in_a_row < self.config.skips:
            warn(f"{what}: skipped")
            return
        raise UserError(
            f"{what}, as in all of the last {in_a_row}, on {', '.join(self.bad)}; "
            "look at these examples or lower the learning rate"
        )


def _init_codebooks(task: Task, state: TrainState, batches, mesh: Mesh) -> TrainState:
    first = [sharding.place_batch(next(batches), mesh) for _ in range(task.codebook_batches)]
    # Updates fold in 0, 1, 2 …; this takes a number they never reach.
    key = jax.random.fold_in(state.key, 2**31 - 1)
    aux = task.init_codebooks(state.params, state.aux, first, key)
    return state._replace(aux=jax.device_put(aux, sharding.replicated(mesh)))
