"""The loader: crops per second, beside what the four chips of a host eat at their very fastest.

Command:  python benchmarks/loader.py --save benchmarks/results/loader.jsonl [--data FOLDER]
Size:     MusicGen's crops of 30 s with T5's states of captions; audio of 1 s for EnCodec 24 kHz
Needs:    benchmarks/results/plan.jsonl, whose bound of a step says how fast data may be wanted

Then the share of time that a step of that pace would wait, and what runs on this machine waited.
"""

import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

import common

HOST = 4  # chips
CAPTION, T5 = 32, 768  # tokens of a caption, features of a token
PLANS = Path(__file__).parent / "results/plan.jsonl"


def wanted(names: set[str], config: str) -> tuple[dict, int, float]:
    """The plan whose hosts eat the most crops per second, a host's crops of a step, its seconds."""
    lines = [json.loads(line) for line in PLANS.read_text().splitlines()]
    fitting = [x for x in lines if x["benchmark"] in names and x["config"] == config and x["fits"]]

    def share(found: dict) -> int:
        return -(-found["batch"] * HOST // found["chips"])

    plan = max(fitting, key=lambda found: share(found) / found["step_seconds"])
    return plan, share(plan), plan["step_seconds"]


def rate(batches, size: int, seconds: float = 10.0) -> float:
    """Crops per second of what is read without a pause, after the first are there."""
    for _ in range(20):
        next(batches)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        next(batches)
        count += size
    return count / (time.perf_counter() - began)


def waits(batches, pace: float, steps: int = 100) -> float:
    """Share of the time that a step of `pace` seconds waits for its batch."""
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
    parsed = common.arguments(__doc__, data=True)
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

    def report(name: str, source, cut, plan: dict, size: int, pace: float) -> None:
        found = rate(loader.batches(source, cut, size, seed=0), size)
        common.emit(
            parsed,
            name,
            {
                "crops_per_second": found,
                "config": plan["config"],
                "topology": plan["topology"],
                "crops_of_a_step_and_host": size,
                "step_seconds": pace,
                "eaten_per_second": size / pace,
                "times_enough": found * pace / size,
                "data_wait_at_that_pace": waits(loader.batches(source, cut, size, seed=0), pace),
            },
        )

    for config in ("musicgen_small", "musicgen_medium", "musicgen_large"):
        cut = loader.cut_codes(1500, 0, encoded)
        report("loader, codes", music, cut, *wanted({"plan"}, config))
    with tempfile.TemporaryDirectory() as place:
        for rate_of in (24_000, 16_000):
            builder.build(parsed.data, Path(place) / str(rate_of), rate_of)
        audio = builder.open_split(Path(place) / "24000", "train")
        cut = loader.cut_audio(24_000)
        report("loader, audio", audio, cut, *wanted({"plan, codec"}, "encodec_24khz"))

        run = CodecRun(loop=LoopConfig(steps=100))
        small = dataclasses.replace(music, codes=[each % 256 for each in codes], size=256)
        train_codec(Path(place) / "codec", builder.open_split(Path(place) / "16000", "train"), run)
        train_lm(Path(place) / "lm", small, LMRun(loop=run.loop))
        heard = {
            "codec_tiny": logged(Path(place) / "codec"),
            "lm_delay": logged(Path(place) / "lm"),
        }
    common.emit(parsed, "data_wait on this machine", heard | {"corpus": corpus})


if __name__ == "__main__":
    main()
