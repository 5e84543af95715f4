"""What the host knows of a run while it goes: its log, and what its losses say."""

import functools
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from rvq_jax.errors import UserError
from rvq_jax.train import guards, hosts
from rvq_jax.train.checkpoint import Note
from rvq_jax.train.hosts import warn
from rvq_jax.train.log import Log
from rvq_jax.train.monitoring import Sampler, undisturbed, write_samples
from rvq_jax.train.state import TrainState
from rvq_jax.train.timetable import Timetable
from rvq_jax.train.trackers import open_tracker

ROLLBACKS = 3  # in a row, without a checkpoint between them


class Update(NamedTuple):
    """What an update leaves to look at."""

    step: int
    metrics: dict
    index: np.ndarray  # of its records
    heldout: dict | None = None  # fields of the log, where it was evaluated


class Watch:
    """Of one run, whose bar, log, trackers and clips it keeps."""

    def __init__(self, folder: Path, table: Timetable, names, bar, note: Note, mesh: Mesh):
        self.table, self.config, self.names, self.bar = table, table.config, names, bar
        self.folder, self.trackers, self.backs, self.shown = folder, [], 0, {}
        self.is_deaf = False
        end = None
        if note.steps not in (None, self.config.steps):
            where = f"{note.step}" + ", before its cool-down" * (table.cooldown is not None)
            warn(f"a run of {note.steps} updates is now of {self.config.steps}: on from {where}")
            end = note.steps
        adopt = functools.partial(table.adopt_line, end=end)
        devices = [*mesh.devices.flat]
        self.log = Log(folder / "metrics.jsonl", note.step, adopt, devices)
        self._go_on(note)

    def track(self, names: Sequence[str]) -> None:
        """Shows what is logged to trackers too; raises UserError for one that cannot be."""
        if hosts.first():
            for name in dict.fromkeys(names):
                self.trackers.append(open_tracker(name, self.folder, self.step))

    def hear(self, step: int, state: TrainState, sample: Sampler) -> None:
        """Keeps clips of an update, which are no part of its time; where there can be none, as of
        texts that a model does not read, the run goes on."""
        began = time.perf_counter()
        try:
            samples = sample(state)
        except Exception as error:
            if not self.is_deaf:
                warn(f"no clips are made: {type(error).__name__}: {error}; the run goes on")
            self.is_deaf = True
        else:
            if hosts.first():
                write_samples(self.folder, step, samples, self.trackers)
        self.log.aside += time.perf_counter() - began

    def close(self) -> None:
        """Ends the trackers."""
        for tracker in self.trackers:
            with undisturbed(tracker):
                tracker.close()

    def _go_on(self, note: Note) -> None:
        self.step = self.bar.n = note.step
        self.losses = deque(note.losses, maxlen=guards.WINDOW)
        self.since, self.bad, self.heldout = [], [], None

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
        for tracker in self.trackers:
            with undisturbed(tracker):
                tracker.go_back(note.step)
        self._go_on(note)

    def note(self, data: dict, dataset: dict) -> Note:
        """For a checkpoint of the last step that was looked at."""
        mean = float(np.mean(self.since)) if self.since else None
        self.since, self.backs = [], 0
        losses, steps = list(self.losses), self.config.steps
        return Note(self.step, mean, data, dataset, losses, self.heldout, steps)

    def record(self, what: Update | None) -> bool:
        """Logs what an update measured; says whether its loss is a spike.

        Raises UserError if it is the last of too many that were skipped.
        """
        if what is None:
            return False
        self.step = what.step
        values = {
            name: np.asarray(value, np.float64).tolist()
            for name, value in jax.device_get(what.metrics).items()
        }
        self.bar.update()
        values["skipped"] = int(values["skipped"])
        loss, in_a_row = values["loss"], int(values.pop("skipped_in_a_row"))
        self.heldout = None
        if what.heldout is not None:
            mean = what.heldout["heldout"]["loss"]
            self.heldout = mean if np.isfinite(mean) else None
            self.shown["held_out"] = f"{mean:.3f}"
        self.bar.set_postfix(loss=f"{loss:.3f}", **self.shown, refresh=False)
        spike = False
        if in_a_row:
            self._skipped(in_a_row, values, what.index)
        else:
            self.bad = []
            spike = guards.spiked(self.losses, loss, self.config.spike)
            self.losses.append(loss)
            self.since.append(loss)
        if what.heldout is not None or self.table.logs(self.step):
            rows = len(what.index) * jax.process_count()
            line = self.log.write(self.step, values | (what.heldout or {}), rows)
            for tracker in self.trackers:
                with undisturbed(tracker):
                    tracker.line(self.step, line)
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
