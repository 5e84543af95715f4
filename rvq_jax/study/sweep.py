"""A sweep: one config trained at every point of a grid and with every seed, and what came of it."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rvq_jax import config as configs
from rvq_jax import files, opening
from rvq_jax.errors import LeftOut, UserError, reading
from rvq_jax.train.hosts import warn
from rvq_jax.train.runs import Run

SEED = "seed"
STATED = "sweep.json"  # the configs of its runs, by name
ONE_TPU = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
RESULTS = "results.json", "results.md", "sweep.html", STATED


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
      UserError: a field or a value that there is not.
    """
    twice = [x for x in axes if sum(x.field == y.field for y in axes) > 1]
    if twice or len({*seeds}) < len(seeds):
        what = f"--grid {twice[0].field}" if twice else "a seed"
        raise UserError(f"{what} is given twice; give its values at once")
    found = []
    for point in itertools.product(*(x.values for x in axes)):
        values = dict(zip((x.field for x in axes), point, strict=True))
        # A value of several words is one of several numbers.
        words = [w for field, value in values.items() for w in (f"--{field}", *value.split())]
        said = [
            f"{field}={value.replace(' ', '+').replace('/', '+')}"
            for field, value in values.items()
        ]
        for seed in seeds:
            all_words = (*words, "--loop.seed", f"{seed}")
            name = ",".join([*said, f"{SEED}={seed}"])
            found.append(Cell(name, values, seed, all_words, parse(all_words)))
    return found


def state_configs(out: Path, found: Sequence[Cell]) -> None:
    """Writes down the configs of a sweep's runs; raises UserError if its folder has others."""
    path, stated = out / STATED, {}
    if path.exists():
        with reading(path, "what a sweep is of", "choose another --out"):
            stated = json.loads(opening.read_bytes(path).decode())
    new = {cell.name: json.loads(json.dumps(configs.to_dict(cell.run))) for cell in found}
    for name in stated.keys() & new.keys():
        if changed := configs.differences(stated[name], new[name]):
            raise UserError(
                f"{out / name} was made with another config ({'; '.join(changed[:3])}); choose "
                "another --out"
            )
    if not stated.keys() >= new.keys():
        files.write_json(path, stated | new)


def is_done(out: Path, cell: Cell) -> bool:
    """Whether a cell has its model."""
    return (out / cell.name / files.RUN_MODEL / "config.json").is_file()


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
        except UserError as error:
            warn(f"{error}")
            left.append((cell.name, f"{error}"))
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
    for i, place in enumerate(places):
        words = [sys.executable, "-m", "rvq_jax", *command, "--share", f"{i}", f"{count}"]
        started.append(subprocess.Popen(words, env=os.environ | place))
    codes = [process.wait() for process in started]
    if worst := [code for code in codes if code not in (0, 2)]:
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
