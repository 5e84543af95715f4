"""A sweep: one config trained at every point of a grid and with every seed, and what came of it."""

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rvq_jax import config as configs
from rvq_jax import files, opening, patterns
from rvq_jax.errors import LeftOut, UserError, reading
from rvq_jax.evaluate.runs import SWEEP
from rvq_jax.train.hosts import warn
from rvq_jax.train.runs import Run

SEED = "seed"
SEED_FIELD, LENGTH = "loop.seed", "loop.steps:"
# Fields that a run's folder has of its codes, and those that it has of the model it begins with.
OF_CODES = tuple(
    f"{part}.{x}:" for part in ("lm", "first", "rest") for x in ("levels", "codebook_size")
)
OF_MODEL = "lm.", "codec.", "pattern:"
ONE_TPU = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
RESULTS = "results.json", "results.md", "sweep.html", SWEEP


class Axis(NamedTuple):
    """A field of a config, and the values that it takes."""

    field: str  # as its flag has it, such as lm.dim
    values: tuple[str, ...]


class Cell(NamedTuple):
    """One training of a sweep."""

    name: str  # of its folder
    values: dict[str, str]  # by field
    seed: int
    words: tuple[str, ...]  # flags of `rvq-jax train`
    run: Run


def axis(text: str) -> Axis:
    """An axis of FIELD=VALUE,VALUE…; raises UserError for anything else."""
    field, _, values = text.partition("=")
    found = tuple(value.strip() for value in values.split(",") if value.strip())
    if not field.strip() or not found:
        raise UserError(
            f"--grid is {text!r}; write it as FIELD=VALUE,VALUE, such as lm.dim=128,256"
        )
    if len({*found}) < len(found):
        raise UserError(f"--grid {text} has a value twice; leave one away")
    return Axis(field.strip().lstrip("-").replace("_", "-"), found)


def cells(
    axes: Sequence[Axis], seeds: Sequence[int], parse: Callable[[tuple[str, ...]], Run]
) -> list[Cell]:
    """Every point of a grid with every seed.

    Args:
      axes: of the grid; the last changes fastest.
      seeds: of the trainings.
      parse: from flags to a run.

    Returns:
      The cells; those of a point follow one another.

    Raises:
      UserError: a field or a value that there is not, or two cells that are one.
    """
    fields = [x.field for x in axes]
    if SEED_FIELD in fields:
        raise UserError(f"--grid {SEED_FIELD}: give the seeds with --seeds")
    twice = next((field for field in fields if fields.count(field) > 1), None)
    if twice or len({*seeds}) < len(seeds):
        what = f"--grid {twice}" if twice else "a seed"
        raise UserError(f"{what} is given twice; give its values at once")
    found = []
    for point in itertools.product(*(x.values for x in axes)):
        values = dict(zip(fields, point, strict=True))
        words = [word for pair in values.items() for word in _flag(*pair)]
        said = [f"{field}={re.sub('[ /]', '+', value)}" for field, value in values.items()]
        for seed in seeds:
            more = (*words, f"--{SEED_FIELD}", f"{seed}")
            name = ",".join([*said, f"{SEED}={seed}"])
            found.append(Cell(name, values, seed, more, parse(more)))
    known: dict[str, str] = {}
    for cell in found:
        same = {cell.name, json.dumps(configs.to_dict(cell.run))}
        if other := next((known[x] for x in same if x in known), None):
            raise UserError(f"{other} and {cell.name} are one run; leave one of the values away")
        known |= dict.fromkeys(same, cell.name)
    return found


def _flag(field: str, value: str) -> list[str]:
    """The words of a field's value: several numbers are several, a truth is the flag alone."""
    if value in ("True", "False"):
        part, dot, name = field.rpartition(".")
        return [f"--{part}{dot}{'' if value == 'True' else 'no-'}{name}"]
    return [f"--{field}", *value.split()]


def begin(out: Path, found: Sequence[Cell], given: dict[str, str | None]) -> None:
    """Writes down what a sweep is of; raises UserError if its folder has runs of something else.

    Args:
      out: folder of the sweep.
      found: its cells.
      given: what all runs have alike beside their configs, such as the data.
    """
    path = out / SWEEP
    if path.exists():
        with reading(path, "what a sweep is of", "choose another --out"):
            stated = json.loads(opening.read_bytes(path, files.CONFIG_BYTES))
            if not isinstance(stated, dict):
                raise ValueError("it holds no object")
        if changed := configs.differences(stated, given):
            raise UserError(
                f"{out} is a sweep of something else ({'; '.join(changed)}); choose another --out"
            )
    for cell in found:
        changed = [line for line in differences(out, cell) if not line.startswith(LENGTH)]
        if changed:
            raise UserError(
                f"{out / cell.name} was made with another config ({'; '.join(changed[:3])}); "
                "choose another --out"
            )
    files.write_json(path, given)


def differences(out: Path, cell: Cell) -> list[str]:
    """In what the run in a cell's folder differs from the cell's, but for what it has of its codes
    and of the model it begins with. Nothing where there is no run yet."""
    place = out / cell.name
    if not (place / "config.json").is_file():
        return []
    there = configs.renewed(files.load_config(place))
    here = json.loads(json.dumps(configs.to_dict(cell.run)))
    for config in (there, here):
        if isinstance(config.get("pattern"), str):
            config["pattern"] = patterns.canonical(config["pattern"])
    begun = OF_MODEL if here.get("init_from") else ()
    lines = configs.differences(there, here)
    return [line for line in lines if not line.startswith((*OF_CODES, "semantic:", *begun))]


def is_done(out: Path, cell: Cell) -> bool:
    """Whether a cell has its model, of as many updates as are asked for."""
    there = (out / cell.name / files.RUN_MODEL / "config.json").is_file()
    return there and not differences(out, cell)


def train(
    out: Path, found: Sequence[Cell], fit: Callable[[Run, Path], Any]
) -> list[tuple[str, str]]:
    """Trains what is not done yet, one after another: programs of one shape are compiled once.

    Args:
      out: folder of the sweep.
      found: its cells.
      fit: trains a run into a folder, and returns what is saved as its model.

    Returns:
      Cells that could not be trained, and why.
    """
    left = []
    for i, cell in enumerate(found, 1):
        if is_done(out, cell):
            continue
        warn(f"run {i} of {len(found)}: {cell.name}")
        try:
            fit(cell.run, out / cell.name).save(out / cell.name / files.RUN_MODEL)
            continue
        except UserError as error:
            why = f"{error}"
        except (MemoryError, RuntimeError) as error:  # JAX's is a RuntimeError
            if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in f"{error}":
                raise
            why = "out of memory"
        warn(why)
        left.append((cell.name, why))
    return left


def train_on_devices(command: Sequence[str], count: int) -> None:
    """Trains the shares of a sweep in so many processes, each with a device of its own.

    Args:
      command: of the sweep; every process gets its share and its device beside it.
      count: of processes.

    Raises:
      UserError: one of them failed, which has said why; or there are fewer devices.
    """
    places, started = [_alone(i) for i in range(count)], []
    try:
        for i, place in enumerate(places):
            words = [sys.executable, "-m", "rvq_jax", *command, "--share", f"{i}", f"{count}"]
            started.append(subprocess.Popen(words, env=os.environ | place))
        ends = [process.wait() for process in started]
    finally:
        # They save what they are at, and end.
        for process in started:
            if process.poll() is None:
                process.terminate()
        for process in started:
            process.wait()
    if worst := [code for code in ends if code not in (0, 2)]:
        raise UserError(
            f"a process ended with {worst[0]}; run the same command again, and it goes on"
        )


def _alone(i: int) -> dict[str, str]:
    """Environment of a process that sees one device, the i-th of those that this one may see."""
    found = dict(ONE_TPU)
    for name in ("CUDA_VISIBLE_DEVICES", "TPU_VISIBLE_DEVICES"):
        listed = [x for x in os.environ.get(name, "").split(",") if x]
        if listed and i >= len(listed):
            raise UserError(f"{name} has {len(listed)} devices: ask for no more --devices")
        found[name] = listed[i] if listed else f"{i}"
    return found


def raise_left(left: Sequence[tuple[str, str]], total: int) -> None:
    """Raises what names the runs that could not be trained, if there are any."""
    if left:
        raise LeftOut([*left], total, "the others are trained", "runs")
