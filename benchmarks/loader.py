"""The loader: crops per second and core, beside what the four chips of a host eat at their fastest.

Command:  python benchmarks/loader.py --save benchmarks/results/loader.jsonl [--data FOLDER]
          --workers 0 1 2 4: processes that make batches; --no-train: the loader alone
Size:     MusicGen's crops of 30 s with T5's states of captions; audio of 1 s for EnCodec 24 kHz
Needs:    benchmarks/results/plan.jsonl, whose bound of a step says how fast data may be wanted

Then the share of time that a step of that pace would wait, and what runs on this machine waited.
"""

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import common

HOST = 4  # chips
CAPTION, T5 = 32, 768  # tokens of a caption, features of a token
PLANS = Path(__file__).parent / "results/plan.jsonl"


def wanted(name: str, config: str) -> tuple[dict, int, float]:
    """The plan whose hosts eat the most crops per second, a host's crops of a step, its seconds."""
    lines = [json.loads(line) for line in PLANS.read_text().splitlines()]
    fitting = [x for x in lines if x["benchmark"] == name and x["config"] == config and x["fits"]]

    def share(found: dict) -> int:
        return -(-found["batch"] * HOST // found["chips"])

    plan = max(fitting, key=lambda found: share(found) / found["step_seconds"])
    return plan, share(plan), plan["step_seconds"]


def processors() -> float:
    """Seconds that processors have worked for this process and for those that it started."""
    pid = os.getpid()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [Path(f"/proc/{each}/stat").read_text() for each in (pid, *children)]
    ticks = [line.rpartition(")")[2].split()[11:13] for line in found]
    return sum(int(each) for pair in ticks for each in pair) / os.sysconf("SC_CLK_TCK")


def rate(batches, size: int, seconds: float = 10.0) -> dict:
    """Crops per second of what is read without a pause, after the first are there, and crops per
    second of a processor's work; `load` is of all that wants one, before this began."""
    load = os.getloadavg()[0]
    for _ in range(20):
        next(batches)
    began, worked, count = time.perf_counter(), processors(), 0
    while time.perf_counter() - began < seconds:
        next(batches)
        count += size
    took, worked = time.perf_counter() - began, processors() - worked
    return {
        "crops_per_second": count / took,
        "crops_per_core_second": count / worked,
        "load": load,
    }


def waits(batches, pace: float, steps: int = 100) -> float:
    """Share of the time that a step of `pace` seconds waits for its batch, after the first."""
    for _ in range(20):
        next(batches)
    began, waited = time.perf_counter(), 0.0
    for _ in range(steps):
        asked = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - asked
        time.sleep(pace)
    return waited / (time.perf_counter() - began)


def logged(folder: Path) -> float:
    """data_wait of a run, the median of its lines after the first."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return statistics.median(line["data_wait"] for line in lines[1:])


def main() -> None:
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--data", type=Path, help="a folder of audio; else the built-in corpus")
    own.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4])
    own.add_argument("--no-train", dest="train", action="store_false")
    parsed = common.arguments(__doc__, own)
    import numpy as np

    from rvq_jax.data import builder, loader
    from rvq_jax.data.captions import CaptionStates
    from rvq_jax.data.codes import CodeSet
    from rvq_jax.train.loop import LoopConfig
    from rvq_jax.train.runs import CodecRun, LMRun, train_codec, train_lm

    rng = np.random.default_rng(0)
    captions = [f"caption {i}" for i in range(1000)]
    states = [rng.normal(size=(CAPTION, T5)).astype(np.float32) for _ in captions]
    codes = [rng.integers(0, 2048, (4, 50 * 120)).astype(np.int32) for _ in captions]
    music = CodeSet(codes, captions, captions, captions, 50.0, 2048)
    encoded = CaptionStates(captions, states, "")
    corpus = "built-in" if parsed.data is None else parsed.data.name

    def report(name: str, source, cut, plan: dict, size: int, pace: float, **more) -> None:
        for workers in parsed.workers:

            def batches(workers: int = workers):
                given = {"workers": workers} if workers else {}
                return loader.batches(source, cut, size, seed=0, **given)

            found = rate(batches(), size)
            common.emit(
                parsed,
                name,
                {
                    **more,
                    "workers": workers,
                    **found,
                    "config": plan["config"],
                    "topology": plan["topology"],
                    "crops_of_a_step_and_host": size,
                    "step_seconds": pace,
                    "eaten_per_second": size / pace,
                    "times_enough": found["crops_per_second"] * pace / size,
                    "data_wait_at_that_pace": waits(batches(), pace),
                },
            )

    for config in ("musicgen_small", "musicgen_medium", "musicgen_large"):
        cut = loader.cut_codes(1500, 0, encoded)
        report("loader, codes", music, cut, *wanted("plan", config))
    with tempfile.TemporaryDirectory() as place:
        place, cut = Path(place), loader.cut_audio(24_000)
        plan = wanted("plan, codec", "encodec_24khz")
        # A crop is read with the whole of its record.
        for piece in (10.0, 2.0):
            built = builder.build(parsed.data, place / f"{piece}", 24_000, piece=piece)
            audio = builder.open_split(built, "train")
            report("loader, audio", audio, cut, *plan, piece_seconds=piece, corpus=corpus)
        if not parsed.train:
            return

        run = CodecRun(loop=LoopConfig(steps=100))
        small = dataclasses.replace(music, codes=[each % 256 for each in codes], size=256)
        heard = builder.open_split(builder.build(parsed.data, place / "16000", 16_000), "train")
        train_codec(place / "codec", heard, run)
        train_lm(place / "lm", small, LMRun(loop=run.loop))
        shares = {"codec": logged(place / "codec"), "lm": logged(place / "lm")}
    common.emit(parsed, "data_wait on this machine", shares | {"corpus": corpus})


if __name__ == "__main__":
    main()
