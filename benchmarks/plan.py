"""MusicGen's published training on TPU slices, compiled and read; no TPU is needed.

python benchmarks/plan.py --save benchmarks/results/plan.jsonl

Three sizes at the published batch of 192 crops of 30 s on four slices of 64 and 256 chips, with all
of a layer recomputed, attention alone or nothing; small with 64 crops on 1 to 256 chips, parameters
in as many pieces, and with three crops for every chip, parameters whole; and a codec of audio.
Lines that the file has are not made again; `--only medium v6e` makes those whose names have these
words, `--quick` compiles the step alone. About three hours on two cores. It needs libtpu: the extra
tpu-plan.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from common import arguments, emit

CONFIGS = Path(__file__).parents[1] / "configs"
TOPOLOGIES = ("v5e:8x8", "v5e:16x16", "v5p:4x4x4", "v6e:8x8")
SLICES = {1: "v5e:1x1", 8: "v5e:2x4", 64: "v5e:8x8", 256: "v5e:16x16"}
HELD = {1: "v5p:1x1x1", 8: "v5p:2x2x2", 64: "v5p:4x4x4", 256: "v5p:4x8x8"}


def line(name: str, found: dict) -> dict:
    """What of a plan goes into a table."""
    flat = {
        "config": name,
        **{key: found[key] for key in ("topology", "chips", "mesh", "remat", "batch")},
        "rows_per_chip": found["rows_per_chip"],
        "fits": found["fits"],
        "bytes_per_chip": {
            key: value and round(value) for key, value in found["bytes_per_chip"].items()
        },
        "step_seconds": found["step_seconds"],
        "mfu": found["mfu"],
        "compile_seconds": found["compile_seconds"],
        "tool_seconds": found["tool_seconds"],
    }
    if found["roofline"] is not None:
        flat |= found["roofline"] | {"flops": found["flops"]["executed"]}
        flat |= {"model_flops": found["flops"]["model"], "moved": found["bytes_moved"]}
        flat |= {"doubts": found["doubts"]} if found["doubts"] else {}
        flat |= {kind: round(one["bytes"]) for kind, one in found["collectives"].items()}
    for key in ("largest_batch", "decode", "replicated"):
        if key in found:
            flat[key] = found[key]
    return flat


def cases(run_of):
    """(name, topology, config, run, keywords) of every line, in order."""
    from rvq_jax.systems.encodec import encodec_24khz
    from rvq_jax.train.runs import CodecRun

    for config in ("musicgen_small", "musicgen_medium", "musicgen_large"):
        for topology in TOPOLOGIES:
            # Generation takes one chip, whatever the slice.
            options = {"decode": topology != "v5e:16x16"}
            yield "plan", topology, config, run_of(config), options
            quick = {"decode": False, "largest": False}
            for remat in ("attention", "nothing"):
                yield "plan", topology, config, run_of(config).computed(remat), quick
    small, quick = run_of("musicgen_small"), {"decode": False, "largest": False}
    # As many crops as fit one chip of much memory: one program for all of them.
    held = dataclasses.replace(small, batch=64)
    for chips, topology in HELD.items():
        mesh = {"data": 1, "fsdp": min(chips, 64), "tensor": max(1, chips // 64)}
        yield "plan, batch held", topology, "musicgen_small", held, quick | {"mesh": mesh}
    for chips, topology in SLICES.items():
        wider = dataclasses.replace(small, batch=3 * chips)
        mesh = {"data": chips, "fsdp": 1, "tensor": 1}
        yield "plan, three crops a chip", topology, "musicgen_small", wider, quick | {"mesh": mesh}
    # Audio is what a loader finds hardest to deliver: see loader.py.
    codec = CodecRun(encodec_24khz(), batch=64, seconds=1.0)
    yield "plan, codec", "v5e:2x2", "encodec_24khz", codec, quick


def main() -> None:
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--only", nargs="*", default=[], help="words of the lines to make")
    own.add_argument("--quick", action="store_true", help="no largest batch, no decoding")
    parsed = arguments(__doc__, own)
    from rvq_jax.cli.train import load_config
    from rvq_jax.plan import plan

    kept = set()
    if parsed.save and parsed.save.is_file():
        lines = map(json.loads, parsed.save.read_text().splitlines())
        kept = {(x["benchmark"], x["topology"], x["config"], x.get("remat")) for x in lines}
    for name, topology, config, run, options in cases(lambda x: load_config(CONFIGS / f"{x}.py")):
        words = f"{name} {topology} {config} {run.remat}"
        if (name, topology, config, run.remat) in kept or not all(x in words for x in parsed.only):
            continue
        began = time.process_time()
        options |= {"decode": False, "largest": False} if parsed.quick else {}
        found = line(config, plan(run, topology, **options))
        # Of all threads: what a machine takes that does nothing else is less.
        emit(parsed, name, found | {"tool_cpu_seconds": time.process_time() - began})


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
