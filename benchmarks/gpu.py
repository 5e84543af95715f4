"""Our side of a run on a card: its limits, MusicGen, quantization, codecs; see benchmarks/gpu.sh.

A step of decoding is beside reading the weights it needs and the filled part of its cache at the
measured bandwidth, a training step beside its model's FLOPs at the measured bfloat16 matrix rate,
a codec and float32 quantization beside the matrix rate of their precision. `over_peer` is the time
of the fastest peer in the same run over ours; null where there is none.

Command:  benchmarks/gpu.sh
Target:   70 % of the bandwidth for small at batch 1, twice the compiled peer; training at 40 % of
          the matrix rate
"""

import dataclasses
import functools
import os
import time

import gpu_lines

parsed = gpu_lines.arguments(__doc__, ("first", "rest"))

import jax  # noqa: E402

jax.config.update("jax_platforms", "cpu" if parsed.tiny else "cuda")

import gpu_codecs  # noqa: E402
import gpu_limits  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import musicgen_cases as cases  # noqa: E402
import rvq_cases  # noqa: E402

from rvq_jax import quantize  # noqa: E402
from rvq_jax.lm import precision  # noqa: E402

STEPS = 32 if parsed.tiny else 256
FRAMES = 16 if parsed.tiny else 500  # of a training crop, ten seconds
VECTORS = 500 if parsed.tiny else 96_000
LINES = gpu_lines.Lines(parsed)


def config_of(size: str, dtype: str, **more):
    config = cases.tiny() if parsed.tiny else cases.SIZES[size]()
    return dataclasses.replace(config, dtype=dtype, **more)


def params_of(config, dtype: str):
    """Random weights as a model of that precision keeps them."""
    if dtype != "int8":
        return cases.random_params(config, dtype)
    return jax.jit(lambda: precision.cast(cases.random_params(config, "float32"), "int8"))()


def best(function, least_seconds: float = 0.1 if parsed.tiny else 2.0, most: int = 5) -> float:
    """The least time of a call after one that warms it up; one call is enough where it is long."""
    function()
    times = []
    while len(times) < most and sum(times) < least_seconds:
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def decode(size: str, dtype: str, batch: int) -> dict:
    config = config_of(size, "bfloat16" if dtype == "int8" else dtype)
    case = cases.generation(config, params_of(config, dtype), batch, STEPS)
    step = best(case) / STEPS
    # On average half of the steps are in the cache.
    read = case.weight_bytes + case.cache_bytes(STEPS / 2)
    return {
        "step_ms": 1e3 * step,
        "steps_per_second": 1 / step,
        "real_time_factor": step * 50,
        "read_gb_per_step": read / 1e9,
        "bound_ms": gpu_lines.ratio(1e3 * read, LINES.limit("bandwidth")),
        "share_of_bandwidth": gpu_lines.ratio(read / step, LINES.limit("bandwidth")),
        "weights_share_of_bandwidth": gpu_lines.ratio(
            case.weight_bytes / step, LINES.limit("bandwidth")
        ),
        "over_peer": gpu_lines.ratio(
            LINES.least("decode_peer", "step_ms", size=size, dtype=dtype, batch=batch), 1e3 * step
        ),
        "compile_seconds": case.compile_seconds,
        "memory_gb": case.memory_bytes / 1e9,
    }


def train(size: str, dtype: str, batch: int, remat: str) -> dict:
    config = config_of(size, dtype, remat=remat)
    case = cases.Training(config, batch, FRAMES)
    began = time.perf_counter()
    case()
    first = time.perf_counter() - began
    step = best(case)
    flops = cases.training_flops(config, batch, case.pattern.steps)
    return {
        "frames": FRAMES,
        "step_ms": 1e3 * step,
        "tflops": flops / step / 1e12,
        "mfu": gpu_lines.ratio(flops / step, LINES.limit("matrix_bfloat16")),
        "compile_seconds": first - step,
        "peak_memory_gb": memory_peak(),
    }


def memory_peak() -> float | None:
    """Of the device since this process began, where it says so."""
    return gpu_lines.ratio((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"), 1e9)


def rvq(dtype: str) -> dict:
    latents_MD, books_KND = rvq_cases.problem(VECTORS)
    state = quantize.Codebooks.of(books_KND)
    latents = jnp.asarray(latents_MD, dtype)[None]
    began = time.perf_counter()
    compiled = jax.jit(quantize.encode).lower(state, latents).compile()
    spent = time.perf_counter() - began
    seconds = gpu_limits.queued(compiled, state, latents)
    flops = 2 * VECTORS * rvq_cases.D * rvq_cases.K * rvq_cases.N
    kind = "matrix_float32_highest" if dtype == "float32" else "matrix_bfloat16"
    memory = compiled.memory_analysis()
    return {
        "shape": {"dim": rvq_cases.D, "levels": rvq_cases.K, "size": rvq_cases.N},
        "ms": 1e3 * seconds,
        "tflops": flops / seconds / 1e12,
        "limit": kind,
        "share_of_matrix_rate": gpu_lines.ratio(flops / seconds, LINES.limit(kind)),
        "over_peer": gpu_lines.ratio(
            LINES.least("rvq_encode_peer", "ms", dtype=dtype), 1e3 * seconds
        ),
        "compile_seconds": spent,
        "temporary_mb": memory.temp_size_in_bytes / 1e6,
    }


def decoding(size: str, dtype: str, batch: int, need: float) -> None:
    keys = {"size": size, "dtype": dtype, "batch": batch, "steps": STEPS}
    LINES.attempt("decode", keys, need, functools.partial(decode, size, dtype, batch))
    # Recorded graphs and buffers that programs keep would be missing to the next case.
    jax.clear_caches()


def training(size: str, batch: int, need: float) -> None:
    """The largest form that fits: whole, with less kept of each layer, half of the batch."""
    forms = ("nothing", "attention", "everything")
    for rows, remat in [*((batch, form) for form in forms), (batch // 2, "everything")]:
        keys = {"size": size, "dtype": "bfloat16", "batch": rows, "remat": remat}
        function = functools.partial(train, size, "bfloat16", rows, remat)
        done = LINES.attempt("train", keys, need, function)
        jax.clear_caches()
        if done or LINES.left < need:
            return


def adversarial(codec: str, batch: int, need: float) -> None:
    keys = {"codec": codec, "batch": 1 if parsed.tiny else batch}
    function = functools.partial(gpu_codecs.adversarial_step, LINES, tiny=parsed.tiny, **keys)
    LINES.attempt("adversarial_codec_step", keys, need, function)
    jax.clear_caches()


def first() -> None:
    about = {
        **gpu_lines.card(),
        "jax_device": jax.devices()[0].device_kind,
        "cpu_cores": len(os.sched_getaffinity(0)),
        "versions": gpu_lines.versions(),
    }
    LINES.emit("machine", about)
    LINES.attempt("limits", {}, 5, lambda: gpu_limits.limits(parsed.tiny))
    decoding("small", "bfloat16", 1, 30)
    training("small", 8, 30)
    decoding("small", "int8", 1, 30)
    decoding("small", "float32", 1, 25)
    decoding("small", "bfloat16", 8, 25)
    decoding("small", "float32", 8, 25)


def rest() -> None:
    training("medium", 4, 40)
    decoding("large", "bfloat16", 1, 50)
    adversarial("encodec_24khz", 16, 60)
    for dtype in ("float32", "bfloat16"):
        keys = {"dtype": dtype, "vectors": VECTORS}
        LINES.attempt("rvq_encode", keys, 10, functools.partial(rvq, dtype))
    decoding("medium", "bfloat16", 1, 45)
    decoding("small", "bfloat16", 32, 25)
    for name, batch in (
        ("encodec_24khz", 1),
        ("dac_44khz", 1),
        ("encodec_24khz", 8),
        ("dac_44khz", 8),
    ):
        keys = {"codec": name, "batch": batch, "seconds": 0.1 if parsed.tiny else 10}
        function = functools.partial(gpu_codecs.figures, LINES, **keys)
        LINES.attempt("codec", keys, 20, function)
    adversarial("dac_44khz", 16, 90)
    decoding("large", "int8", 1, 50)
    decoding("large", "bfloat16", 8, 50)
    decoding("medium", "bfloat16", 8, 45)


{"first": first, "rest": rest}[parsed.stage]()
