"""SoundStorm's decode of 30 s beside delay, flatten and a depth transformer of its width.

Random weights, one row, 12 levels of 1,024 codes at 50 frames a second, no guidance. SoundStorm
takes 27 forwards of all 1,500 frames, delay 1,511 steps, flatten 18,000, and a depth transformer
1,500, with a layer less in the model of frames for its own weights. Of steps only the first ones
are run, and the rest is counted at their time, without the longer cache. FLOPs are a multiply-add
as two, every weight at every position and every pair of positions; the limit of a forward is this
device's matrix rate, that of a step reading its weights once at its bandwidth.

Command:  python benchmarks/parallel.py --device cpu
          python benchmarks/parallel.py --device gpu --dtype bfloat16
Target:   27 forwards; on a GPU at least 30 times faster than delay, and at most 0.3 s
"""

import argparse
import dataclasses
import time

import common

PARSER = argparse.ArgumentParser(add_help=False)
PARSER.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
PARSER.add_argument("--seconds", type=float, default=30.0, help="of audio")
PARSER.add_argument("--steps", type=int, default=64, help="of delay and flatten that are run")
PARSER.add_argument("--tiny", action="store_true", help="a model that costs nothing")
parsed = common.arguments(__doc__, PARSER)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import musicgen_cases as cases  # noqa: E402
import numpy as np  # noqa: E402

from rvq_jax import files, patterns  # noqa: E402
from rvq_jax.lm import forms  # noqa: E402
from rvq_jax.lm.conditions import condition, text_condition  # noqa: E402
from rvq_jax.lm.depth import DepthConfig  # noqa: E402
from rvq_jax.lm.model import LMConfig  # noqa: E402
from rvq_jax.lm.schedule import timetable  # noqa: E402
from rvq_jax.systems.decoding import masked, programs  # noqa: E402
from rvq_jax.systems.soundstorm import default_iterations, soundstorm_350m  # noqa: E402

RATE = 50  # frames per second
FRAMES = round(parsed.seconds * RATE)
SMALL = {"dim": 32, "layers": 2, "heads": 2, "mlp_dim": 64} if parsed.tiny else {}
STORM = dataclasses.replace(soundstorm_350m(), dtype=parsed.dtype, **SMALL)
SIZES = ("levels", "codebook_size", "dim", "layers", "heads", "mlp_dim", "dtype")
CAUSAL = LMConfig(**{name: getattr(STORM, name) for name in SIZES}, caption_bytes=16)
INNER = DepthConfig(CAUSAL.dim // 2, layers=3, heads=CAUSAL.heads, mlp_dim=CAUSAL.dim)
DEPTH = dataclasses.replace(CAUSAL, layers=CAUSAL.layers - 1, depth=INNER)
CAUSALS = {"delay": (CAUSAL, "delay"), "flatten": (CAUSAL, "flatten"), "depth": (DEPTH, "parallel")}


def bandwidth() -> float:
    """Bytes per second of reading a gigabyte, summed on the device."""
    x = jnp.ones(2**28, jnp.float32)
    return x.nbytes / common.seconds(jax.jit(jnp.sum), x)[0]


def multiplied(config) -> int:
    """Weights that every position is multiplied with; of the heads those of one level."""
    named = files.named(forms.abstract(config)).items()
    inner = sum(x.size for name, x in named if name.startswith("blocks"))
    return inner + config.dim * config.codebook_size


def soundstorm(rate: float) -> dict:
    """All iterations."""
    table = timetable(default_iterations(STORM))
    tokens = np.random.default_rng(0).integers(0, STORM.semantic_size, (1, FRAMES // 2))
    lengths, forced = np.array([FRAMES]), np.full((1, STORM.levels, FRAMES), -1, np.int32)
    args = table, {"semantic": condition(jnp.asarray(tokens, jnp.int32))}, jax.random.key(0)
    params = cases.random_params(STORM, "float32")
    inputs = params, *jax.device_put(args), jnp.asarray(forced), jnp.asarray(lengths)
    began = time.perf_counter()
    jax.block_until_ready(masked.generate_masked(STORM, *inputs).codes)
    first = time.perf_counter() - began
    repeats = 1 if first > 60 else 3
    best = min(
        _seconds(lambda: masked.generate_masked(STORM, *inputs).codes) for _ in range(repeats)
    )
    forwards = len(table.level)
    pairs = 4 * STORM.layers * STORM.dim * FRAMES**2
    flops = forwards * (2 * multiplied(STORM) * FRAMES + pairs)
    return {
        "system": "soundstorm",
        "audio_seconds": parsed.seconds,
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "forwards": forwards,
        "seconds": best,
        "real_time_factor": best / parsed.seconds,
        "tflops": flops / 1e12,
        "share_of_matrix_rate": flops / best / rate,
        "compile_seconds": first - best,
    }


def causal(system: str, rate: float) -> dict:
    """The first steps of a causal model, and what all would take."""
    config, name = CAUSALS[system]
    params = cases.random_params(config, "float32")
    whole = patterns.named(name, config.levels, FRAMES).steps
    frames = parsed.steps // (config.levels if name == "flatten" else 1)
    pattern = patterns.padded_pattern(name, config.levels, frames, pad_frames=True)
    text = text_condition(jnp.ones((1, 16), jnp.int32))
    forced = np.full((1, config.levels, pattern.frames), -1, np.int32)
    inputs = params, pattern, {"text": text}, jax.random.key(0), forced, np.array([frames])
    began = time.perf_counter()
    compiled = programs.generate_codes.lower(config, *inputs).compile()
    spent = time.perf_counter() - began
    steps = patterns.named(name, config.levels, frames).steps
    step = min(_seconds(lambda: compiled(*inputs)) for _ in range(2)) / steps
    read = sum(x.nbytes for n, x in files.named(params).items() if cases.is_read(n))
    return {
        "system": system,
        "audio_seconds": parsed.seconds,
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "forwards": whole,
        "measured_steps": steps,
        "step_ms": 1e3 * step,
        "seconds": step * whole,
        "real_time_factor": step * whole / parsed.seconds,
        "share_of_bandwidth": read / step / rate,
        "compile_seconds": spent,
    }


def _seconds(function) -> float:
    began = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - began


first = soundstorm(common.matmul_rate())
common.emit(parsed, "parallel", first)
reading = bandwidth()
for system in CAUSALS:
    line = causal(system, reading)
    common.emit(parsed, "parallel", line | {"over_soundstorm": line["seconds"] / first["seconds"]})
