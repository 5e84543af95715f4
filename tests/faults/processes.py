"""Runs of real processes over loopback: started, killed, and what they leave compared."""

import dataclasses
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from small_runs import CONFIG_FILE, RUN, bits_of, code_set, log_of, one_device

from rvq_jax import patterns
from rvq_jax.train.checkpoint import Checkpoints
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import LMRun
from rvq_jax.train.state import abstract_state
from rvq_jax.train.tasks.lm import lm_task

HEARTBEAT = 10  # seconds, the least that the runtime takes
WAIT = 30  # seconds for the other process to come
BOUND = WAIT + 3 * HEARTBEAT  # seconds in which a process must notice that another died


class Mesh(NamedTuple):
    """Processes and devices of a run, and how its parameters lie."""

    processes: int = 2
    devices: int = 4  # of each
    fsdp: int = 2
    tensor: int = 2


PAIR = Mesh()


def small_run(steps: int, every: int) -> LMRun:
    """A token model that every mesh of eight devices can train."""
    loop = LoopConfig(steps, log_every=1, checkpoint_every=every, evaluate_every=every)
    return dataclasses.replace(RUN, batch=8, loop=loop)


def prepare(folder: Path, run: LMRun) -> None:
    """What every run of the folder reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.py").write_text(CONFIG_FILE.format(run=run))
    codes = code_set()
    codes.save(folder / "codes.npz")
    held = dataclasses.replace(codes, codes=[x[:, ::-1] for x in codes.codes])
    held.save(folder / "heldout.npz")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def start(folder: Path, name: str, mesh: Mesh = PAIR, workers: int = 0) -> list[subprocess.Popen]:
    """The processes of the run `name`; what process i says goes to the end of `name`.i."""
    port, started = free_port(), []
    environment = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(mesh.devices),
        # Every start compiles the same programs.
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    for i in range(mesh.processes):
        words = ["train", folder / "config.py", "--data", folder / "codes.npz"]
        words += ["--out", folder / name, "--fsdp", mesh.fsdp, "--tensor", mesh.tensor]
        words += ["--workers", workers]
        if mesh.processes > 1:
            words += ["--hosts.coordinator", f"localhost:{port}", "--hosts.process", i]
            words += ["--hosts.processes", mesh.processes, "--hosts.heartbeat", HEARTBEAT]
            # Killed before it listens, the first is waited for; after that it is missed.
            words += ["--hosts.wait", WAIT]
        command = [sys.executable, "-m", "rvq_jax", *map(str, words)]
        with said(folder, name, i).open("a") as output:
            started.append(
                subprocess.Popen(
                    command, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT
                )
            )
    return started


def said(folder: Path, name: str, process: int = 0) -> Path:
    return folder / f"{name}.{process}"


def lines_of(path: Path) -> list[str]:
    """What a process said to a person, but for what it waits for."""
    lines = re.findall(r"rvq-jax: [^\r\n]*", path.read_text())
    waits = "waiting up to", "compiling for"
    return [line for line in lines if not any(word in line for word in waits)]


def ends(processes: list[subprocess.Popen], seconds: float) -> list[int]:
    """Exit codes; raises TimeoutExpired, with all killed, if one goes on for longer."""
    deadline = time.monotonic() + seconds
    try:
        return [process.wait(max(0.0, deadline - time.monotonic())) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def until(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def reached(out: Path) -> int:
    """The last update that a run logged."""
    try:
        return log_of(out)[-1]["step"]
    except (OSError, IndexError, ValueError):
        return 0


class Left(NamedTuple):
    """What a run leaves."""

    bits: list[bytes]  # of the state
    state: object
    data: dict
    log: list[dict]


def left(out: Path, run: LMRun) -> Left:
    """The last checkpoint and the log; the state on one device."""
    task = lm_task(
        run.lm,
        patterns.padded_pattern(run.pattern, run.lm.levels, run.frames),
        run.condition_dropout,
    )
    like = abstract_state(task, run.optimizer, run.loop.steps, one_device())
    with Checkpoints(out / "checkpoints") as checkpoints:
        state, note = checkpoints.restore(like)
    assert note.step == run.loop.steps
    return Left(bits_of(state), state, note.data, log_of(out))


def check_same(got: Left, want: Left) -> None:
    """To the last bit, and with the same data read and the same lines written."""
    assert got.bits == want.bits and got.data == want.data and got.log == want.log


def furthest(got: Left, want: Left) -> float:
    """The largest difference of a loss or of a number of the state."""
    assert [line["step"] for line in got.log] == [line["step"] for line in want.log]
    pairs = zip(jax.tree.leaves(got.state), jax.tree.leaves(want.state), strict=True)
    apart = [abs(a["loss"] - b["loss"]) for a, b in zip(got.log, want.log, strict=True)]
    for a, b in pairs:
        if not jax.numpy.issubdtype(a.dtype, jax.dtypes.prng_key):
            apart.append(np.abs(np.asarray(a, np.float64) - np.asarray(b)).max(initial=0.0))
    return float(max(apart))


def kill(rng: random.Random, folder: Path, name: str, mesh: Mesh, longest: float) -> dict:
    """Starts a run and kills it (SIGKILL) at a random moment: half of the times a process alone,
    whose death must end the others. Says when, what was being written, and how long they took."""
    out = folder / name
    before = reached(out)
    processes = start(folder, name, mesh)
    alone = mesh.processes > 1 and rng.random() < 0.5
    victims = [rng.choice(processes)] if alone else processes
    # From its start, or from when it trains, to any moment.
    if rng.random() < 0.8:
        until(lambda: reached(out) > before or None not in [p.poll() for p in processes])
    time.sleep(rng.uniform(0, longest))
    saving = [
        path.name
        for path in (out / "checkpoints").glob("*")
        if path.is_dir() and not path.with_name(f"{path.name}.json").exists()
    ]
    for process in victims:
        process.send_signal(signal.SIGKILL)
    began = time.monotonic()
    codes = ends(processes, BOUND)
    return {
        "mesh": mesh._asdict(),
        "alone": alone,
        "updates": [before, reached(out)],
        "saving": bool(saving),
        "codes": codes,
        "others_end_seconds": round(time.monotonic() - began, 1),
    }
