"""At which updates a run is logged, evaluated and saved, and what of it a longer one keeps."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rvq_jax.train.optimizers import OptimizerConfig, cooldown_start

SHARE = 0.02  # of a run's updates that evaluating costs at most, where the config does not say
HELDOUT = ("heldout", "heldout_seconds")  # fields of a line of the log
FORWARD = 0.5  # updates that a held-out batch is counted as; about a third, without its gradient


@dataclass(frozen=True)
class LoopConfig:
    """Length and habits of a run."""

    steps: int = 400  # updates; a constant rate (optimizer.schedule) lets a run be given more later
    seed: int = 0  # of parameters, crops, dropout and samples
    log_every: int = 10  # updates from one line of metrics.jsonl to the next
    checkpoint_every: int = 200  # updates from one checkpoint to the next
    # Updates from one evaluation on held-out data to the next, the last one beside; 0 for none.
    # None: at checkpoints, as many of them as cost at most 2 % of the run's time.
    evaluate_every: int | None = None
    keep: int = 2  # newest checkpoints kept
    # Checkpoint that the model is of. best: of least held-out loss, evaluated updates being saved;
    # where nothing is held out of least mean loss.
    result: Literal["last", "best"] = "last"
    skips: int = 3  # updates in a row without a finite loss and gradient that end a run
    spike: float | None = None  # loss relative to the last ones that leads back to a checkpoint


@dataclass(frozen=True)
class Timetable:
    """Of updates by their number, from 1 on; of counts alone, so that it is the same again."""

    config: LoopConfig
    evaluate_every: int  # 0 for never
    evaluate_end: bool
    optimizers: tuple[OptimizerConfig, ...]

    @property
    def cooldown(self) -> int | None:
        """The update after which the rate begins to fall to zero; None if it is no constant one."""
        return cooldown_start(self.optimizers, self.config.steps)

    def logs(self, step: int) -> bool:
        """Whether a line of the log is written, evaluated or not."""
        return step % self.config.log_every == 0 or step in (1, self.config.steps)

    def evaluates(self, step: int) -> bool:
        """Whether the weights after an update are evaluated."""
        if step == self.config.steps and self.evaluate_end:
            return True
        return self.evaluate_every > 0 and step % self.evaluate_every == 0

    @property
    def evaluates_at_all(self) -> bool:
        """Whether any update is evaluated."""
        return self.evaluate_end or 0 < self.evaluate_every <= self.config.steps

    def saves(self, step: int) -> bool:
        """Whether there is a checkpoint of an update: also of the last before the cool-down, and of
        every one that may be the best."""
        regular = step % self.config.checkpoint_every == 0 or step == self.config.steps
        best = self.config.result == "best" and self.evaluates(step)
        return regular or best or step == self.cooldown

    def adopt(self, note: dict) -> dict | None:
        """The note of a checkpoint as this run has it; None for one that is no part of it, as of
        the cool-down of a shorter run.

        That the shorter run was evaluated at its end is forgotten, unless it was the turn.
        """
        if note["steps"] in (None, self.config.steps):
            return note
        ends = [cooldown_start(self.optimizers, n) for n in (note["steps"], self.config.steps)]
        if None not in ends and note["step"] > min(ends):
            return None
        return note if self.evaluates(note["step"]) else {**note, "heldout": None}

    def adopt_line(self, line: dict, end: int | None) -> dict | None:
        """The same of a line of the log, where `end` is the last update of the shorter run."""
        if line["step"] != end or self.evaluates(end):
            return line
        if not self.logs(end):
            return None
        return {name: value for name, value in line.items() if name not in HELDOUT}


def timetable(
    config: LoopConfig, optimizers: Iterable[OptimizerConfig], heldout: float
) -> Timetable:
    """The timetable of a run.

    Args:
      config: its habits.
      optimizers: of all its networks.
      heldout: what an evaluation reads, in batches of an update; 0 where nothing is held out.

    Returns:
      The timetable.
    """
    cost = FORWARD * heldout
    every, end = config.evaluate_every, True
    if every is None and heldout:
        every = config.checkpoint_every
        every *= math.ceil(cost / SHARE / every)
        end = (config.steps // every + 1) * cost <= SHARE * config.steps
    on = bool(heldout) and bool(every)
    return Timetable(config, every if on else 0, on and end, tuple(optimizers))
