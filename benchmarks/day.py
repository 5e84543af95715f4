"""What a researcher waits for: help, the first clip and the second, a sweep beside its commands.

Command:  python benchmarks/day.py --save benchmarks/results/day.jsonl
Size:     processes of the commands themselves; a token model of 32 features on codes of the
          built-in codec, 5 updates, each in a cache folder of its own that begins empty

Processor seconds stand beside wall ones: they do not depend on what else runs.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

CONFIG = """
from rvq_jax.lm.model import LMConfig
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import LMRun

def get_config():
    lm = LMConfig(dim=32, layers=1, heads=2, mlp_dim=32)
    return LMRun(lm=lm, loop=LoopConfig(steps=5), batch=4, frames=20)
"""
GRID = ["--grid", "pattern=delay,parallel", "--grid", "lm.dim=16,32", "--seeds", "0", "1"]
HELPS = ([], ["train"], ["generate"], ["quickstart"])


def run(words: list, cache: Path) -> dict[str, float]:
    """Wall and processor seconds of a command; it must end well."""
    environment = os.environ | {"RVQ_JAX_CACHE": f"{cache}"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "rvq_jax", *map(str, words)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(wall, 2), "processor_seconds": round(used, 2)}


def measure(place: Path):
    """Lines of all that is waited for."""
    cache = place / "cache"
    for words in HELPS:
        run([*words, "--help"], cache)  # once before: files come from the disk
        yield {"what": " ".join(["rvq-jax", *words, "--help"]), **run([*words, "--help"], cache)}
    (place / "config.py").write_text(CONFIG)
    run(["data", "build", "--out", place / "data", "--codes", "builtin"], cache)
    train = ["train", place / "config.py", "--data", place / "data" / "train.npz"]
    run([*train, "--out", place / "run"], cache)
    clip = ["generate", "--model", place / "run", "--prompt", "x", "--seconds", "1"]
    for name in ("first", "second"):
        took = run([*clip, "--out", place / "x.wav"], place / "clips")
        yield {"what": f"rvq-jax generate, the {name} time", **took}
    yield from sweeps(place)


def sweeps(place: Path):
    """A sweep of eight runs, and eight commands: with no cache, and with one that begins empty."""
    train = ["train", place / "config.py", "--data", place / "data" / "train.npz"]
    sweep = ["sweep", *train[1:], "--out", place / "sweep", *GRID]
    one = run(sweep, place / "sweep_cache")
    yield {"what": "a sweep of 2 x 2 x 2 runs", **one}
    for name, cache in (("a cache", place / "kept"), ("no cache", Path("0"))):
        total = {"seconds": 0.0, "processor_seconds": 0.0}
        for i in range(8):
            pattern, dim, seed = ("delay", "parallel")[i // 4], (16, 32)[i // 2 % 2], i % 2
            own = ["--pattern", pattern, "--lm.dim", dim, "--loop.seed", seed]
            took = run([*train, "--out", place / f"{name} {i}", *own], cache)
            total = {key: round(total[key] + took[key], 2) for key in total}
        ratio = {"over_sweep": round(total["seconds"] / one["seconds"], 2)}
        yield {"what": f"its eight commands, with {name}", **total, **ratio}


def main() -> None:
    parsed = common.arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        for line in measure(Path(folder)):
            common.emit(parsed, "day", line)


if __name__ == "__main__":
    main()
