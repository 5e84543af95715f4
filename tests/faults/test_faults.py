"""Two real processes: their numbers are those of one, and no death of one is the other's hang.

They take minutes, so the ordinary suite leaves them out: pytest tests/faults
"""

import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from faults.kill import MESHES, table
from faults.processes import (
    BOUND,
    PAIR,
    Mesh,
    check_same,
    ends,
    free_port,
    furthest,
    kill,
    left,
    lines_of,
    prepare,
    reached,
    said,
    small_run,
    start,
    until,
)
from small_runs import TUNED_SLOWLY, log_of, mesh_parts, one_window
from tiers import wide

from rvq_jax.train.loop import LoopConfig, fit

STEPS = 60
RUN = small_run(STEPS, every=3)
ALONE = Mesh(1, 1, 1, 1)


@pytest.mark.parametrize("kind", [wide("lm"), "codec"])
def test_two_processes_are_one(kind, tmp_path):
    """Losses, parameters, codebooks and their statistics, after fifty updates on eight devices of
    two processes, are those of one device: k-means start and replaced codes included."""
    task, batches = mesh_parts(kind)
    config = LoopConfig(steps=50, log_every=1, checkpoint_every=100)
    with one_window():
        state = fit(tmp_path / "one", task, batches, config, TUNED_SLOWLY)
    script, coordinator = Path(__file__).with_name("one_of_two.py"), f"localhost:{free_port()}"
    words = [sys.executable, str(script), kind, str(tmp_path / "two"), coordinator]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4"}
    with (tmp_path / "said").open("w") as output:
        options = {"env": environment, "stdout": output, "stderr": subprocess.STDOUT}
        pair = [subprocess.Popen([*words, str(i)], **options) for i in range(2)]
        assert ends(pair, 300) == [0, 0], (tmp_path / "said").read_text()[-3000:]
    losses = [[line["loss"] for line in log_of(tmp_path / name)] for name in ("one", "two")]
    assert len(losses[0]) == 50
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-5)
    want = jax.tree.leaves((state.params, state.ema, state.aux))
    with np.load(tmp_path / "two" / "state.npz") as got:
        for name, leaf in zip(got.files, want, strict=True):
            np.testing.assert_allclose(got[name], leaf, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of runs, one of them never disturbed."""
    folder = tmp_path_factory.mktemp("runs")
    prepare(folder, RUN)
    assert ends(start(folder, "whole"), 300) == [0, 0], said(folder, "whole").read_text()[-3000:]
    return folder


def test_killed_runs_end_as_one_never_killed(place):
    """The short form of kill.py: bit by bit on one mesh, to 1e-5 when every start has another."""
    rng, want = random.Random(1), left(place / "whole", RUN)
    same = [kill(rng, place, "same", PAIR, longest=2.0)]
    moved = [kill(rng, place, "moved", MESHES[1], longest=2.0)]
    for name in ("same", "moved"):
        assert ends(start(place, name), 300) == [0, 0]
    assert all(death["others_end_seconds"] < BOUND for death in same + moved)
    assert all(-signal.SIGKILL in death["codes"] for death in same + moved)
    check_same(left(place / "same", RUN), want)
    assert furthest(left(place / "moved", RUN), want) < 1e-5
    results = {"here": {"deaths": same, "equal_bits": True, "apart": 0.0}}
    assert "| here | 1 |" in table(results)


def test_a_dead_process_takes_the_other_with_it(place):
    """In the middle of training: an exit code that is not 0, and in bounded time."""
    for victim in (0, 1):
        pair = start(place, f"dead {victim}")
        until(lambda victim=victim: reached(place / f"dead {victim}") > 2)
        pair[victim].kill()
        codes = ends(pair, BOUND)
        assert codes[victim] == -signal.SIGKILL and codes[1 - victim] != 0


@pytest.mark.parametrize("mesh", [PAIR, ALONE])
def test_a_preempted_run_saves_and_asks_to_be_started_again(place, mesh):
    """SIGTERM to one process: all save the update they are at, exit with 75, and go on from it."""
    name = f"preempted {mesh.processes}"
    processes = start(place, name, mesh)
    until(lambda: reached(place / name) > 4)
    processes[-1].terminate()
    assert set(ends(processes, 120)) == {75}
    (line,) = lines_of(said(place, name))
    step = int(line.split("saved at step ")[1].split(";")[0])
    assert (place / name / "checkpoints" / f"{step}.json").exists()
    assert 4 < step == log_of(place / name)[-1]["step"] < STEPS
    assert set(ends(start(place, name, mesh), 300)) == {0}
    got, want = left(place / name, RUN), left(place / "whole", RUN)
    if mesh == PAIR:
        check_same(got, want)
    assert furthest(got, want) < 1e-5


def children(process: subprocess.Popen) -> list[int]:
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(word) for word in text.split()]


def stop(folder: Path, workers: int, number: int, victim: str) -> tuple[int, str]:
    """Starts or goes on with a run, and sends a signal: its exit code and last line, once none of
    its processes is left."""
    before = reached(folder / "run")
    (run,) = start(folder, "run", ALONE, workers)
    until(lambda: reached(folder / "run") > before + 1)
    begun = children(run)
    assert len(begun) == workers
    for each in {"run": [run.pid], "worker": begun[:1], "all": [run.pid, *begun]}[victim]:
        os.kill(each, number)
    (code,) = ends([run], 120)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in begun), 20)
    return code, lines_of(said(folder, "run"))[-1]


def test_a_run_with_workers_leaves_none(tmp_path):
    """Told to stop, killed, or one of them killed, whatever number it goes on with: it ends as the
    run without, no process is left, and what is said of one that died is a line."""
    prepare(tmp_path, RUN)
    assert ends(start(tmp_path, "whole", ALONE), 300) == [0]
    assert stop(tmp_path, 2, signal.SIGTERM, "run")[0] == 75
    assert stop(tmp_path, 1, signal.SIGKILL, "run")[0] == -signal.SIGKILL
    code, line = stop(tmp_path, 2, signal.SIGKILL, "worker")
    assert code == 2 and "a process that makes batches ended (SIGKILL)" in line
    assert stop(tmp_path, 2, signal.SIGTERM, "all")[0] == 75
    assert "Traceback" not in said(tmp_path, "run").read_text()
    assert ends(start(tmp_path, "run", ALONE), 300) == [0]
    check_same(left(tmp_path / "run", RUN), left(tmp_path / "whole", RUN))


def test_a_second_run_is_refused_while_the_first_works(place):
    first = start(place, "twice")
    until(lambda: reached(place / "twice") > 2)
    assert ends(start(place, "twice", ALONE), 120) == [2]
    (line,) = lines_of(said(place, "twice"))
    assert f"another run is at work in {place / 'twice'} (process {first[0].pid} on" in line
    assert ends(first, 300) == [0, 0]


def test_a_disk_that_fills_up_stops_a_run_cleanly(place):
    """From some moment on the first process can write no file that is longer than its log: it ends
    with a line and code 2, the other after it, and with room again they go on from what was saved
    to where they would have been."""
    pair = start(place, "full")
    until(lambda: (place / "full" / "checkpoints" / "6.json").exists())
    size = (place / "full" / "metrics.jsonl").stat().st_size
    room = max(size, said(place, "full").stat().st_size) + 10_000
    resource.prlimit(pair[0].pid, resource.RLIMIT_FSIZE, (room, room))
    codes = ends(pair, 120)
    assert codes[0] == 2 and codes[1] != 0, (codes, said(place, "full").read_text()[-3000:])
    assert "cannot write" in lines_of(said(place, "full"))[-1]
    assert "Traceback" not in said(place, "full").read_text()
    assert ends(start(place, "full"), 300) == [0, 0]
    check_same(left(place / "full", RUN), left(place / "whole", RUN))


def test_a_process_that_nobody_joins_gives_up(place):
    """The first process, whose others never come: bounded by --hosts.wait."""
    words = ["train", place / "config.py", "--data", place / "codes.npz", "--out", place / "lone"]
    words += ["--hosts.coordinator", f"localhost:{free_port()}", "--hosts.processes", 2]
    words += ["--hosts.process", 0, "--hosts.wait", 5]
    command = [sys.executable, "-m", "rvq_jax", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "waiting up to 5 s for 2 processes" in done.stderr
