"""A researcher's day with a small MusicGen: each step of it, and what is there afterwards."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import small_folders
import soundfile
from command import run

import rvq_jax as rj
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.train.runs import LMRun

pytestmark = pytest.mark.slow
SECONDS = 0.6
# Of a process behind `&` Ctrl-C is ignored, and of those that it starts.
COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from rvq_jax.cli import main
sys.exit(main(sys.argv[1:]))
"""
CONFIG = """
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import LMRun
from rvq_jax.train.state import OptimizerConfig

def get_config():
    return LMRun(
        loop=LoopConfig(steps=5, log_every=1, checkpoint_every=5, evaluate_every=5),
        optimizer=OptimizerConfig(schedule="constant", warmup=1),
        batch=8, frames=20, init_from={model!r},
    )
"""


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    """Music, a model of transformers' format to begin with, and a config."""
    place = tmp_path_factory.mktemp("day")
    (place / "base").mkdir()
    small_folders.published("text", place / "base").save(place / "base")
    (place / "music").mkdir()
    rate = MusicGen.load(place / "base").codec.config.rate
    with open(place / "music" / "metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "caption", "split"])
        for i in range(12):
            samples = 0.3 * np.random.default_rng(i).normal(size=round(SECONDS * rate))
            soundfile.write(place / "music" / f"{i}.wav", samples, rate)
            table.writerow([f"{i}.wav", "a" if i % 2 else "b", "test" if i > 7 else "train"])
    (place / "config.py").write_text(CONFIG.format(model=f"{place / 'base'}"))
    return place


def done(capsys, line: str) -> dict:
    """What a command prints as JSON; it must end well."""
    code, out, said = run(capsys, *line.split(), "--json")
    assert code == 0, said
    return json.loads(out)


def info(capsys, path) -> dict:
    return done(capsys, f"info {path}")


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_day(day, capsys, tmp_path):
    data, first = day / "data", day / "runs" / "first"
    train = f"train {day}/config.py --data {data}/train.npz --listened 1 --track tensorboard"

    built = done(capsys, f"data build {day}/music --out {data} --codes {day}/base")
    assert (built["train"]["records"], built["heldout"]["records"]) == (8, 4)
    assert info(capsys, data)["train_clips"] == 8
    assert info(capsys, data / "train.npz")["records"] == 8

    # Train five updates, and look.
    assert done(capsys, f"{train} --out {first}")["model"] == f"{first}/model"
    seen = info(capsys, first)
    assert (seen["updates"], seen["of"], seen["model"]) == (5, 5, "delay")
    last = lines(first)[-1]
    assert last["examples_per_second"] > 0 and last["memory_gb"] > 0 and last["device"]
    np.testing.assert_allclose(last["learning_rate"], LMRun().optimizer.learning_rate, rtol=1e-5)
    assert last["heldout"]["bits_per_frame"] > 0
    clip = info(capsys, first / "samples" / "0000005" / "0.flac")
    assert clip["seconds"] == pytest.approx(0.2, abs=0.01)
    assert [*(first / "tensorboard").glob("events*")]

    # Stop: a process that someone ends by Ctrl-C, and starts again.
    second = day / "runs" / "second"
    words = f"{train} --out {second} --loop.steps 100000".split()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words], stderr=subprocess.PIPE, text=True,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not (second / "metrics.jsonl").is_file() or len(lines(second)) < 2:
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGINT, said
    stopped = int(re.search(r"saved at step (\d+); the same command goes on", said)[1])
    assert info(capsys, second)["checkpoints"].endswith(f"{stopped}")
    done(capsys, f"{train} --out {second} --loop.steps {stopped + 1}")
    assert [line["step"] for line in lines(second)] == [*range(1, stopped + 2)]

    # Extend to eight: the bits of a run that was never shorter.
    done(capsys, f"{train} --out {first} --loop.steps 8")
    done(capsys, f"{train} --out {day}/runs/whole --loop.steps 8")
    both = [MusicGen.load(x).params for x in (first, day / "runs" / "whole")]
    jax.tree.map(np.testing.assert_array_equal, *both)
    checkpoint = info(capsys, first / "checkpoints" / "8")
    assert checkpoint["heldout_loss"] == lines(first)[-1]["heldout"]["loss"]

    # Evaluate, sweep, compare.
    found = done(capsys, f"evaluate {first} --data {data} --out {day}/evaluated --generate.clips 2")
    assert found["models"][0]["bits_per_frame"]["mean"] > 0
    assert (day / "evaluated" / "report.html").is_file()
    swept = done(
        capsys,
        f"sweep {day}/config.py --data {data}/train.npz --out {day}/sweep --loop.steps 2 "
        "--grid batch=8,16 --grid loop.log-every=1,2 --seeds 0 1",
    )
    assert len(swept["points"]) == 4 and all(len(x["runs"]) == 2 for x in swept["points"])
    compared = done(capsys, f"compare {first} {second} --out {day}/compare.html")
    assert compared["first"]["updates"] == 8 and compared["second"]["updates"] == stopped + 1
    assert (day / "compare.html").read_text().count("<audio") >= 2

    # Export, and what others read.
    done(capsys, f"export {first} --out {day}/exported")
    assert info(capsys, day / "exported")["model"] == "delay"
    # AutoProcessor reads these (tests/parity/test_parity_processors.py).
    for name in ("preprocessor_config.json", "tokenizer.json", "model.safetensors"):
        assert (day / "exported" / name).is_file()

    # The same from Python.
    config = rj.LMRun(**vars(load(day)))
    model = rj.train_lm(data / "train.npz", day / "python", config)
    whole = done(capsys, f"train {day}/config.py --data {data}/train.npz --out {day}/command")
    jax.tree.map(np.testing.assert_array_equal, model.params, MusicGen.load(whole["run"]).params)


def load(day):
    from rvq_jax.cli.train import load_config

    return load_config(day / "config.py")
