"""What each metric and each coder costs: seconds of computing per second of audio.

Of ten seconds of speech at 16 kHz, and of music at 44.1 kHz in mono for metrics of music, coded by
Opus at 12 kbps. The least of five turns, after one that compiles and loads models: of the clock
(`wall`) and of all cores together (`processor`).

Command:  python benchmarks/metrics.py --device cpu --save benchmarks/results/cpu.jsonl
Needs:    the extra metrics; [--audio FOLDER] with audio, else noise is measured
"""

import argparse
import time
from pathlib import Path

import common

PARSER = argparse.ArgumentParser(add_help=False)
PARSER.add_argument("--audio", type=Path, help="a folder with speech/ and music/")
PARSER.add_argument("--repeats", type=int, default=5)
parsed = common.arguments(__doc__, PARSER)

import numpy as np  # noqa: E402

from rvq_jax.audio import io, resample  # noqa: E402
from rvq_jax.evaluate import coders, measures  # noqa: E402

SECONDS = 10
RATES = {"speech": 16_000, "music": 44_100}
CODERS = ("opus:6", "opus:24", "mp3:32", "mp3:64")


def clip(signal: str) -> np.ndarray:
    """`[S, 1]` of ten seconds, of one file after another."""
    rate, needed = RATES[signal], SECONDS * RATES[signal]
    if parsed.audio is None:
        return np.random.default_rng(0).normal(0, 0.1, (needed, 1)).astype(np.float32)
    parts = []
    for path in sorted((parsed.audio / signal).glob("l*.*")):
        audio_SC, own = io.read(path)
        parts.append(resample.to_rate(resample.to_channels(audio_SC, 1), own, rate))
        if sum(map(len, parts)) >= needed:
            break
    return np.concatenate(parts)[:needed]


def cost(function) -> dict[str, float]:
    """Least seconds per second of audio, of the clock and of the processor."""
    function()
    walls, processors = [], []
    for _ in range(parsed.repeats):
        wall, processor = time.perf_counter(), time.process_time()
        function()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return common.rounded({"wall": min(walls) / SECONDS, "processor": min(processors) / SECONDS})


def main() -> None:
    clips = {signal: clip(signal) for signal in RATES}
    coded = {
        signal: coders.parse("opus:12", signal).code(audio_SC, RATES[signal])[0]
        for signal, audio_SC in clips.items()
    }
    costs = {}
    for measure in measures.MEASURES:
        if said := measures.missing(measure):
            costs[measure.name] = said
            continue
        signal = measure.signal or "speech"
        given = clips[signal], coded[signal], RATES[signal]
        costs[measure.name] = cost(lambda measure=measure, given=given: measure.score(*given))
    for text in CODERS:
        for signal, audio_SC in clips.items():
            coder = coders.parse(text, signal)
            given = audio_SC, RATES[signal]
            costs[f"{text}, {signal}"] = cost(lambda coder=coder, given=given: coder.code(*given))
    source = "real audio" if parsed.audio else "noise"
    common.emit(parsed, "metrics", {"seconds": SECONDS, "audio": source, "costs": costs})


if __name__ == "__main__":
    main()
