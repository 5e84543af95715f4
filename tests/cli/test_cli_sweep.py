"""Sweeps and pages of runs from the command line: what is trained, what is tabled, what is said."""

import dataclasses
import json
import shlex
import shutil

import numpy as np
import pytest
from command import refuses, run
from small_runs import one_device
from test_cli import CONFIG

from rvq_jax import cli
from rvq_jax.cli.terminal import parse
from rvq_jax.cli.train import load_config
from rvq_jax.data.codes import CodeSet
from rvq_jax.evaluate import runs
from rvq_jax.study import sweep, sweep_report
from rvq_jax.train import sharding
from rvq_jax.train.runs import LMRun

GRID = ["--grid", "pattern=parallel,delay", "--grid", "loop.log-every=1,2"]  # one program


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Codes, held-out ones beside them, and a config that trains two updates on them."""
    place = tmp_path_factory.mktemp("sweep")
    rng = np.random.default_rng(0)
    for name in ("codes", "heldout"):
        rows = [rng.integers(0, 7, (2, 9)).astype(np.int32) for _ in range(3)]
        CodeSet(rows, ["a", "b", "c"], [""] * 3, [""] * 3, 50.0, 7).save(place / f"{name}.npz")
    (place / "config.py").write_text(CONFIG)
    return place


def words(made, out, *more) -> list[str]:
    own = ["--loop.evaluate-every", "1"]
    return ["sweep", made / "config.py", "--data", made / "codes.npz", "--out", out, *own, *more]


@pytest.fixture(scope="module", autouse=True)
def alone():
    """One device: programs of eight compile for longer."""
    mesh = one_device()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", lambda **_: mesh)
        yield


@pytest.fixture(scope="module")
def swept(alone, made):
    """A sweep of two patterns, by two ways of logging, by two seeds."""
    out = made / "swept"
    line = words(made, out, *GRID, "--seeds", "0", "1")
    assert cli.main([str(word) for word in line]) == 0
    return out


def test_it_trains_what_single_commands_train(swept, made, tmp_path):
    """Sharing programs changes no bit."""
    name = "pattern=delay,loop.log-every=2,seed=1"
    line = ["train", made / "config.py", "--data", made / "codes.npz", "--out", tmp_path / "run"]
    line += ["--loop.evaluate-every", "1", "--pattern", "delay"]
    assert (
        cli.main([str(word) for word in [*line, "--loop.log-every", "2", "--loop.seed", "1"]]) == 0
    )
    both = [np.load(place / "model" / "weights.npz") for place in (swept / name, tmp_path / "run")]
    assert both[0].files == both[1].files
    for array in both[0].files:
        np.testing.assert_array_equal(both[0][array], both[1][array])


def test_what_came_of_it_is_what_the_logs_say(swept):
    done = json.loads((swept / "results.json").read_text())
    assert len(done["points"]) == 4 and done["seeds"] == [0, 1]
    for point in done["points"]:
        name = ",".join(f"{field}={value}" for field, value in point["values"].items())
        lines = [
            json.loads(
                (swept / f"{name},seed={seed}" / "metrics.jsonl").read_text().splitlines()[-1]
            )
            for seed in (0, 1)
        ]
        held = [line["heldout"]["loss"] for line in lines]
        mean = point["means"]["heldout_loss"]
        np.testing.assert_allclose(
            [mean["mean"], mean["std"]], [np.mean(held), np.std(held, ddof=1)]
        )
    rows = sweep_report.table(done)
    means = [point["means"]["heldout_loss"]["mean"] for point in done["points"]]
    best = done["points"][int(np.argmin(means))]["values"]
    assert rows[1][:2] == [*best.values()]


def test_started_again_it_trains_nothing_and_says_the_same(swept, made, capsys, monkeypatch):
    before = (swept / "results.json").read_text()

    def train(*_, **__):
        raise AssertionError("it is trained")

    monkeypatch.setattr(LMRun, "train", train)
    code, out, _ = run(capsys, *words(made, swept, *GRID, "--seeds", "0", "1"))
    assert code == 0 and "held-out loss" in out
    assert (swept / "results.json").read_text() == before


def test_stopped_in_the_middle_it_goes_on(made, tmp_path, monkeypatch, capsys):
    """What is done stays as it is, what had begun ends, and nothing is lost."""
    train, trained = LMRun.train, []

    def once(self, folder, *args, **options):
        trained.append(folder.name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(self, folder, *args, **options)

    monkeypatch.setattr(LMRun, "train", once)
    line = words(made, tmp_path / "out", "--grid", "pattern=parallel,delay")
    assert run(capsys, *line)[0] == 130
    assert run(capsys, *line)[0] == 0
    assert trained == ["pattern=parallel,seed=0", "pattern=delay,seed=0", "pattern=delay,seed=0"]
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["points"]) == 2


def test_a_run_that_cannot_be_leaves_the_others(made, tmp_path, capsys):
    line = words(made, tmp_path / "out", "--grid", "frames=4,40")
    code, out, lines = run(capsys, *line)
    assert code == 2 and "frames" in out
    assert "1 of 2 runs are left out, the others are trained" in lines[-1]
    assert "frames=40" in lines[-1] and "--frames" in lines[-1]


def test_printed_commands_are_the_runs(made, tmp_path, capsys):
    """Each trains the very run of its folder, whatever the shell makes of its words."""
    out = tmp_path / "a b"
    line = words(made, out, *GRID, "--grid", "optimizer.decayed=weight bias,x", "--print")
    code, printed, _ = run(capsys, *line, "--lm.dim", "32")
    default = load_config(made / "config.py")

    def parsed(more):
        own = ["--loop.evaluate-every", "1", "--lm.dim", "32"]
        return parse(type(default), [*own, *more], "sweep", default)

    axes = [sweep.axis(text) for text in (GRID[1], GRID[3], "optimizer.decayed=weight bias,x")]
    cells = sweep.cells(axes, (0,), parsed)
    assert code == 0 and not out.exists() and len(cells) == 8
    for text, cell in zip(printed.splitlines(), cells, strict=True):
        command, name, config, *rest = shlex.split(text)
        assert (command, name) == ("rvq-jax", "train")
        made_of = parse(cli.load("train"), [config, *rest], "train")
        assert made_of.out == out / cell.name
        found = parse(type(default), [*made_of.overrides], "train", default)
        assert found == cell.run and cell.run.optimizer.decayed in (("weight", "bias"), ("x",))


def test_processes_of_devices_are_given_their_share_of_this_very_sweep(
    made, tmp_path, monkeypatch, capsys
):
    """Each sees a device of its own; what one of them could not do is told."""
    started = []

    class Process:
        def __init__(self, words, env):
            started.append((words[3:], env))

        def poll(self) -> int:
            return 0

        wait = poll

    monkeypatch.setattr(sweep.subprocess, "Popen", Process)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3,7")
    line = words(made, tmp_path / "out", *GRID, "--seeds", "0", "1", "--devices", "3")
    code, _, said = run(capsys, *line, "--lm.dim", "8")
    assert code == 2 and "8 of 8 runs are left out" in said[-1]
    default, found = load_config(made / "config.py"), []
    for i, (given, environment) in enumerate(started):
        share = parse(cli.load("sweep"), given[1:], "sweep")
        assert share.share == (i, 3) and environment["CUDA_VISIBLE_DEVICES"] == "537"[i]
        assert share.out == tmp_path / "out" and share.data == made / "codes.npz"

        def parsed(more, own=share.overrides):
            return parse(type(default), [*own, *more], "sweep", default)

        cells = sweep.cells([sweep.axis(text) for text in share.grid], share.seeds, parsed)
        assert all(cell.run.lm.dim == 8 for cell in cells)
        found += [cell.name for cell in cells[i::3]]
    assert len(found) == len({*found}) == 8
    more = [*line[:-1], "4", "--lm.dim", "8"]
    refuses(capsys, *more, say=("CUDA_VISIBLE_DEVICES has 3",))


def test_shares_are_the_whole_once(made, tmp_path, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(sweep, "train", lambda out, cells, fit: trained.extend(cells) or [])
    for i in range(3):
        own = ["--seeds", "0", "1", "--share", str(i), "3"]
        assert run(capsys, *words(made, tmp_path / "out", *GRID, *own))[0] == 0
    assert len(trained) == 8 and len({cell.name for cell in trained}) == 8


@pytest.mark.parametrize(
    ("more", "say"),
    [
        (["--grid", "pattern"], ["'pattern'", "FIELD=VALUE"]),
        (["--grid", "pattern="], ["FIELD=VALUE"]),
        (["--grid", "pattern=delay,delay"], ["twice"]),
        (["--grid", "pattern=delay", "--grid", "pattern=flatten"], ["--grid pattern", "twice"]),
        (["--seeds", "1", "1"], ["seed", "twice"]),
        (["--grid", "lm.dims=16,32"], ["--lm.dims", "--lm.dim"]),
        (["--grid", "lm.levels=2,3"], ["--lm.levels is 3", "have 2"]),
        (["--grid", "lm.dim=x"], ["lm.dim", "x"]),
        (["--grid", "loop.seed=1,2"], ["loop.seed", "--seeds"]),
        (["--loop.seed", "7"], ["loop.seed", "--seeds"]),
        (["--grid", "frames=4,04"], ["frames=4", "frames=04", "one run"]),
        (["--grid", "optimizer.decayed=a b,a/b"], ["one run"]),
        (["--grid", "lm.dim=16", "--plot", "lm.dim", "loss2"], ["'loss2'", "lm.dim", "loss"]),
        (["--grid", "pattern=delay", "--plot", "loss", "pattern"], ["pattern", "words"]),
        (["--grid", "lm.dim=16", "--share", "2", "2"], ["--share", "count from 0"]),
    ],
)
def test_a_grid_that_cannot_be_is_told_before_anything(made, tmp_path, capsys, more, say):
    refuses(capsys, *words(made, tmp_path / "out", *more), say=tuple(say))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_config_is_told(swept, made, capsys):
    more = [*GRID, "--seeds", "0", "1", "--lm.dim", "8"]
    refuses(capsys, *words(made, swept, *more), say=("another config", "lm.dim"))


def test_columns_of_all_kinds_are_plotted(swept):
    """Words to the right stand side by side, also those among numbers; where a mean is missing
    there is nothing to plot."""
    done = json.loads((swept / "results.json").read_text())
    for pair in [("pattern", "seconds"), ("seconds", "loop.log-every"), ("loss", "heldout_loss")]:
        assert sweep_report.plot(done, *pair).startswith("<svg ")
    for point, value in zip(done["points"], ("None", "2", "4", "None"), strict=True):
        point["values"]["loop.log-every"] = value
    assert sweep_report.plot(done, "loop.log-every", "loss").startswith("<svg ")
    del done["points"][0]["means"]["loss"]
    assert sweep_report.plot(done, "pattern", "loss") is None
    axes = [sweep.axis("lm.kv-heads=1,2")]
    assert sweep_report.columns_of(axes, ("lm.kv_heads", "loss")) == ("lm.kv-heads", "loss")


def test_a_truth_is_its_flag(made):
    default = load_config(made / "config.py")

    def parsed(more):
        return parse(type(default), [*more], "sweep", default)

    cells = sweep.cells([sweep.axis("lm.remat=everything,nothing")], (0,), parsed)
    assert [cell.run.lm.remat for cell in cells] == ["everything", "nothing"]


def test_runs_of_other_data_or_of_another_config_are_not_taken(swept, made, tmp_path, capsys):
    """Whatever wrote them: a sweep, or the commands that one printed."""
    own = [*GRID, "--seeds", "0", "1"]
    other = [str(word) for word in words(made, swept, *own)]
    other[other.index("--data") + 1] = str(made / "heldout.npz")
    refuses(capsys, *other, say=("sweep of something else", "data"))
    refuses(capsys, *words(made, swept, *own, "--codec", "builtin"), say=("codec",))
    place = tmp_path / "out"
    shutil.copytree(swept, place)
    (place / "sweep.json").unlink()
    more = [*own, "--optimizer.learning-rate", "0.5"]
    refuses(capsys, *words(made, place, *more), say=("another config", "learning_rate"))
    code, out, _ = run(capsys, *words(made, place, *own))
    assert code == 0 and "held-out loss" in out


def test_a_run_without_memory_leaves_the_others(made, tmp_path, monkeypatch, capsys):
    train = LMRun.train

    def small(self, *args, **options):
        if self.frames == 5:
            raise RuntimeError("RESOURCE_EXHAUSTED: 9 GiB")
        return train(self, *args, **options)

    monkeypatch.setattr(LMRun, "train", small)
    code, _, lines = run(capsys, *words(made, tmp_path / "out", "--grid", "frames=5,4"))
    assert code == 2 and "1 of 2 runs" in lines[-1] and "out of memory" in lines[-1]
    assert (tmp_path / "out" / "frames=4,seed=0" / "model").is_dir()


# Runs on a page.


def test_compared_runs_have_their_numbers_and_what_differs(swept, tmp_path, capsys):
    names = [f"pattern={x},loop.log-every=2,seed=0" for x in ("parallel", "delay")]
    page = tmp_path / "page.html"
    line = ["compare", *(swept / name for name in names), "--out", page]
    code, out, _ = run(capsys, *line, "--json")
    rows = json.loads(out)
    assert code == 0 and [*rows] == names
    for name in names:
        last = json.loads((swept / name / "metrics.jsonl").read_text().splitlines()[-1])
        assert rows[name]["heldout_loss"] == last["heldout"]["loss"]
        assert rows[name]["updates"] == last["step"] == 2
    text = page.read_text()
    assert all(name in text for name in names) and "<td>parallel</td><td>delay</td>" in text
    logs = [runs.open_run_log(name, swept / name / "model") for name in names]
    assert f"the newest update of {runs.newest(logs)}" in text and "What next" in text
    best = min(names, key=lambda name: rows[name]["best_heldout_loss"])
    command = shlex.join(["rvq-jax", "info", f"{swept / best}"])
    assert command in text and run(capsys, *shlex.split(command)[1:])[0] == 0
    assert runs.differences(logs) == {"pattern": ["parallel", "delay"]}


def test_a_sweep_is_its_runs(swept, tmp_path, capsys):
    line = ["compare", swept, swept / "results.json", "--out", tmp_path / "x.html", "--json"]
    code, out, _ = run(capsys, *line)
    assert code == 0 and len(json.loads(out)) == 8
    twice = [swept, swept / "pattern=delay,loop.log-every=2,seed=0"]
    refuses(capsys, "compare", *twice, "--out", tmp_path / "y.html", say=("twice",))


def test_runs_alike_share_their_programs():
    """Whatever decides what is compiled is in what they are compared by."""
    from rvq_jax.train.runs import CodecRun, MaskedRun, VALLERun

    for kind in (LMRun, CodecRun, MaskedRun, VALLERun):
        one, other = kind(), dataclasses.replace(kind(), batch=4)
        assert one.task().alike == other.task().alike and hash(one.task().alike)
