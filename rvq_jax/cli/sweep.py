"""Many trainings: of a grid of a config's fields, and compared on a page."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rvq_jax import builtin
from rvq_jax.cli.terminal import command_line, parse, say, show
from rvq_jax.cli.train import check_sizes, load_config
from rvq_jax.errors import UserError


@dataclass(frozen=True)
class Sweep:
    """Trains a config at every point of a grid and with every seed, and tables what came of it.

    One run after another in one process, which compiles what runs share once; or, with --devices,
    in as many processes. What is done is not done again: started once more, it goes on. --print
    prints a command for each run instead, for an array of jobs. Other fields of the config follow
    as flags.

    rvq-jax sweep configs/lm_delay.py --data codes/train.npz --out runs/sweep \
--grid pattern=delay,flatten --grid lm.dim=128,256 --seeds 0 1 2
    """

    config: Annotated[Path, tyro.conf.Positional]
    """Python file with get_config(), as in configs/."""
    data: Path
    """A dataset or a code cache, as of `rvq-jax train`."""
    out: Path
    """Folder of the sweep, with a run folder for each run."""
    grid: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """FIELD=VALUE,VALUE of the config, such as lm.dim=128,256; given once for each field."""
    seeds: tuple[int, ...] = (0,)
    """Of the trainings, each at every point."""
    codec: str | None = None
    """As of `rvq-jax train`."""
    text: Path | None = None
    """As of `rvq-jax train`."""
    listened: int = 0
    """As of `rvq-jax train`."""
    plot: tuple[str, str] | None = None
    """Two columns of the table, or fields of the grid, to plot: the second against the first.
    Default: held-out loss against the first field that is a number."""
    devices: int = 1
    """Processes, each with an accelerator of its own, that share out the runs."""
    share: tuple[int, int] | None = None
    """Of so many shares of the runs, the second, train the first alone, counted from 0; tables
    nothing."""
    print: bool = False
    """Print the command of each run, one a line, and do nothing."""
    json: bool = False
    """Print results.json to standard output at the end."""
    overrides: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> dict | None:
        from rvq_jax import files
        from rvq_jax.study import sweep, sweep_report

        default = load_config(self.config)

        def parsed(words: tuple[str, ...]):
            return parse(type(default), [*self.overrides, *words], f"sweep {self.config}", default)

        if f"--{sweep.SEED_FIELD}" in (word.partition("=")[0] for word in self.overrides):
            raise UserError(f"--{sweep.SEED_FIELD}: give the seeds with --seeds")
        axes = [sweep.axis(text) for text in self.grid]
        cells = sweep.cells(axes, self.seeds, parsed)
        check_sizes([(cell.run, (*self.overrides, *cell.words)) for cell in cells], self.data)
        if self.print:
            show("\n".join(self._command(cell) for cell in cells))
            return None
        if self.share is not None and self.share[0] >= self.share[1]:
            raise UserError(f"--share is {self.share[0]} of {self.share[1]}; count from 0")
        columns = sweep_report.columns_of(axes, self.plot)
        files.check_folder(self.out, ours=("*", "*/"))
        for name in sweep.RESULTS:
            files.check_file(self.out / name)
        given = {name: getattr(self, name) for name in ("data", "codec", "text")}
        given = {name: _absolute(x) for name, x in given.items()}
        sweep.begin(self.out, cells, given)
        left = self._train(cells)
        if self.share is not None:
            sweep.raise_left(left, len(cells[self.share[0] :: self.share[1]]))
            return None
        return self._table(axes, cells, columns, left)

    def _train(self, cells) -> list[tuple[str, str]]:
        from rvq_jax.study import sweep
        from rvq_jax.train import sharding
        from rvq_jax.train.monitoring import Monitoring

        if self.devices > 1 and self.share is None:
            sweep.train_on_devices(self._share_command(), self.devices)
            return [(cell.name, "see above") for cell in cells if not sweep.is_done(self.out, cell)]
        given = {"codec": self.codec, "text": self.text}
        given["monitoring"] = Monitoring(listened=self.listened)

        mesh = sharding.make_mesh()

        def fit(run, folder: Path):
            return run.train(folder, self.data, mesh, **given)

        first, ways = self.share or (0, 1)
        return sweep.train(self.out, cells[first::ways], fit)

    def _table(self, axes, cells, columns, left) -> dict:
        from rvq_jax.evaluate import table
        from rvq_jax.study import sweep, sweep_report

        done = sweep_report.results(self.out, cells)
        if done["points"]:
            columns = columns or sweep_report.default_columns(axes, done)
            written = sweep_report.write(self.out, cells, done, columns, command_line())
            say(self.json, table.columns(sweep_report.table(done), len(axes) + 1))
            for path in written:
                say(self.json, f"{path}")
        sweep.raise_left(left, len(cells))
        return done

    def _command(self, cell) -> str:
        import shlex

        words = ["rvq-jax", "train", *self._shared(os.path.join(self.out, cell.name))]
        return shlex.join([*words, *self.overrides, *cell.words])

    def _share_command(self) -> list[str]:
        """The words of this sweep, but for those of its tables."""
        words = ["sweep", *self._shared(f"{self.out}")]
        words += [word for text in self.grid for word in ("--grid", text)]
        return [*words, "--seeds", *map(str, self.seeds), *self.overrides]

    def _shared(self, out: str) -> list[str]:
        """The words that `rvq-jax train` has too."""
        words = [f"{self.config}", "--data", f"{self.data}", "--out", out]
        for name in ("codec", "text"):
            words += [f"--{name}", f"{getattr(self, name)}"] if getattr(self, name) else []
        return words + (["--listened", f"{self.listened}"] if self.listened else [])


def _absolute(path: str | Path | None) -> str | None:
    """A path from anywhere; the built-in codec's word stays it."""
    if path is None or path == builtin.WORD:
        return path
    return os.path.abspath(path)


@dataclass(frozen=True)
class Compare:
    """Puts runs beside each other on one page: a table, their curves, what they sound like.

    rvq-jax compare runs/delay runs/flatten --out compare.html
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = ()
    """Run folders of `rvq-jax train`, finished or not; of a sweep all of its runs."""
    out: Path = Path("compare.html")
    """The page."""
    json: bool = False
    """Print the table as JSON."""

    def run(self) -> dict:
        from rvq_jax import files
        from rvq_jax.evaluate import compare, folders, runs, table

        if not self.runs:
            raise UserError("nothing to compare: name run folders")
        paths = [run for path in self.runs for run in runs.runs_in(path)]
        if len({os.path.abspath(path) for path in paths}) < len(paths):
            raise UserError("a run is named twice; leave one away")
        names = folders.labels(paths)
        found = [runs.open_run_log(*pair) for pair in zip(names, paths, strict=True)]
        files.check_file(self.out)
        rows = compare.write(self.out, found, command_line())
        say(self.json, table.columns(compare.table(rows)))
        say(self.json, f"{self.out}")
        return rows
