"""MusicGen beside transformers on the same cores: milliseconds per step, memory, a training step.

Both have the same random weights of a published size (its token model; text encoder and codec are
small, so that they cost nothing) and draw with guidance 3 and top-k 250; repeats take turns, those
of a training step follow one another, and the least time counts. The bound is reading every weight
that a step needs once at the machine's bandwidth. A ratio is the peer's time over ours; null is a
peer that is not installed.

Command:  python benchmarks/generate.py --device cpu
          python benchmarks/generate.py --device gpu --size medium --dtype bfloat16
Target:   2x transformers, 70 % of the bandwidth at batch 1; training 1.2x
"""

import argparse
import dataclasses
import importlib.util
import tempfile
import time
from pathlib import Path

import common

PARSER = argparse.ArgumentParser(add_help=False)
PARSER.add_argument("--size", choices=("small", "medium", "large"), default="small")
PARSER.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
PARSER.add_argument("--batch", nargs="*", type=int, default=[1, 4, 16], help="none: no generation")
PARSER.add_argument("--steps", nargs="+", type=int, default=[500, 100, 50], help="for each batch")
PARSER.add_argument("--no-training", action="store_true")
parsed = common.arguments(__doc__, PARSER)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import musicgen_cases as cases  # noqa: E402
import musicgen_peer  # noqa: E402

from rvq_jax import files  # noqa: E402

CONFIG = dataclasses.replace(cases.SIZES[parsed.size](), dtype=parsed.dtype)
THREADS = 2


def bandwidth() -> float:
    """Bytes per second of reading a gigabyte, summed on the device."""
    x = jnp.ones(2**28, jnp.float32)
    best, _ = common.seconds(jax.jit(jnp.sum), x)
    return x.nbytes / best


def peer():
    """transformers' model of the size."""
    import torch

    torch.set_num_threads(THREADS)
    return musicgen_peer.build(CONFIG)


def our_params(model):
    """The peer's weights, or random ones."""
    if model is None:
        return cases.random_params(CONFIG, parsed.dtype)
    from rvq_jax.systems.musicgen import MusicGen

    with tempfile.TemporaryDirectory() as path:
        model.save_pretrained(path)
        write_tokenizer(Path(path))
        params = MusicGen.load(path).params
    return jax.device_put(jax.tree.map(lambda x: x.astype(parsed.dtype), params))


def write_tokenizer(folder: Path) -> None:
    import tokenizers

    words = tokenizers.models.WordLevel({"<unk>": 0, "</s>": 1}, unk_token="<unk>")
    tokenizers.Tokenizer(words).save(str(folder / "tokenizer.json"))


def generation(params, model, batch: int, steps: int, rate: float) -> dict:
    """One case: `steps` steps of `batch` rows, guided."""
    case = cases.generation(CONFIG, params, batch, steps)
    calls = {"ours": case}
    if model is not None:
        calls["theirs"] = lambda: musicgen_peer.draw(model, batch, steps - cases.DELAY)
    best = common.least(calls, 2)
    weights = sum(x.nbytes for x in jax.tree.leaves(params))
    ours = best["ours"] / steps
    return {
        "size": parsed.size,
        "dtype": parsed.dtype,
        "batch": batch,
        "rows": 2 * batch,
        "steps": steps,
        "step_ms": 1e3 * ours,
        "over_peer": best["theirs"] / best["ours"] if model is not None else None,
        "real_time_factor": ours * 50,
        "read_gb_per_step": case.weight_bytes / 1e9,
        "bandwidth_gb_per_second": rate / 1e9,
        "share_of_bandwidth": case.weight_bytes / ours / rate,
        "compile_seconds": case.compile_seconds,
        "memory_gb": case.memory_bytes / 1e9,
        "memory_over_weights_and_cache": case.memory_bytes
        / (weights + case.cache_bytes(case.cache_steps)),
    }


def training(model) -> dict:
    """A step of AdamW on two clips of two seconds."""
    batch, frames = 2, 100
    case = cases.Training(dataclasses.replace(CONFIG, remat="nothing"), batch, frames)
    began = time.perf_counter()
    case()
    first = time.perf_counter() - began
    calls = {"ours": case}
    if model is not None:
        calls["theirs"] = musicgen_peer.training(model, case.tokens)
    # One after the other, as a run goes: with turns each would pay for memory the other let go.
    best = {name: common.least({name: call}, 3)[name] for name, call in calls.items()}
    count = sum(x.size for name, x in files.named(case.state.params).items() if "embed" not in name)
    flops = 6 * count * batch * case.pattern.steps
    rate = common.matmul_rate()
    return {
        "size": parsed.size,
        "batch": batch,
        "frames": frames,
        "step_seconds": best["ours"],
        "over_peer": best["theirs"] / best["ours"] if model is not None else None,
        "compile_seconds": first - best["ours"],
        "gflops": flops / best["ours"] / 1e9,
        "share_of_matrix_rate": flops / best["ours"] / rate,
    }


theirs = None
if parsed.device == "cpu" and importlib.util.find_spec("transformers"):
    theirs = peer()
params = our_params(theirs)
rate = bandwidth()
for batch, steps in zip(parsed.batch, parsed.steps, strict=False):
    common.emit(parsed, "generate", generation(params, theirs, batch, steps, rate))
if not parsed.no_training:
    del params
    common.emit(parsed, "train_lm", training(theirs))
