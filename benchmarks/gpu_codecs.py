"""Published codecs with random weights on a card: both ways, and updates against discriminators."""

import dataclasses
import math
import time

import gpu_limits
import jax
import jax.numpy as jnp
import numpy as np
from gpu_lines import Lines, ratio
from jax.extend import core

from rvq_jax.codec import autoencoder
from rvq_jax.systems import dac, encodec
from rvq_jax.systems.codec import Codec
from rvq_jax.train import sharding
from rvq_jax.train.runs.codec_recipes import audiocraft_recipe, dac_recipe
from rvq_jax.train.state import make_program
from rvq_jax.train.tasks.codec import codec_task

CONFIGS = {"encodec_24khz": encodec.encodec_24khz(), "dac_44khz": dac.dac_44khz()}


def figures(lines: Lines, codec: str, batch: int, seconds: float) -> dict:
    """Both ways; FLOPs are those of convolutions, products and LSTM steps."""
    config = CONFIGS[codec]
    made = Codec.init(config, jax.random.key(0))
    samples = math.ceil(seconds * config.rate / config.hop) * config.hop
    shape = batch, samples, config.channels
    audio = 0.1 * jax.random.normal(jax.random.key(1), shape, jnp.float32)
    inputs, x = made.prepared, audio
    values = {"levels": config.levels, "limit": "matrix_float32_default"}
    rate = lines.limit("matrix_float32_default")
    for way, function in (("encode", autoencoder.encode), ("decode", autoencoder.decode)):
        began = time.perf_counter()
        compiled = function.lower(*inputs, x).compile()
        values[f"{way}_compile_seconds"] = time.perf_counter() - began
        spent = gpu_limits.queued(compiled, *inputs[1:], x, calls=3, repeats=3)

        def traced(params, quantizer, x, function=function, config=inputs[0]):
            return function(config, params, quantizer, x)

        flops = count_flops(jax.make_jaxpr(traced)(*inputs[1:], x).jaxpr)
        values[f"{way}_ms"] = 1e3 * spent
        values[f"{way}_real_time_factor"] = spent / (batch * samples / config.rate)
        values[f"{way}_tflops"] = flops / spent / 1e12
        values[f"{way}_share_of_matrix_rate"] = ratio(flops / spent, rate)
        values[f"{way}_temporary_mb"] = compiled.memory_analysis().temp_size_in_bytes / 1e6
        x = compiled(*inputs[1:], x)  # decoding takes what encoding gives
    return values


def adversarial_step(lines: Lines, codec: str, batch: int, tiny: bool) -> dict:
    """One update of a codec and its discriminators by its published recipe.

    Args:
      lines: of the run.
      codec: a name.
      batch: crops of a second, of DAC of 0.38.
      tiny: crops of a few frames.

    Returns:
      Figures; FLOPs are those of `count_flops`.
    """
    if codec == "dac_44khz":
        run = dac_recipe(dataclasses.replace(CONFIGS[codec], norm="weight_norm"))
    else:
        run = audiocraft_recipe(CONFIGS[codec])
    recipe = run.recipe()
    hop = recipe.config.hop
    samples = 8 * hop if tiny else run.samples // hop * hop
    task = codec_task(recipe)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    program = make_program(task, recipe.optimizer, 1000, mesh)
    # Codebooks are in use from the beginning, as they are after a first update.
    state = program.init(jax.random.key(0), task.aux._replace(started=jnp.array(True)))
    audio = 0.1 * np.random.default_rng(0).standard_normal((batch, samples, 1))
    mask, index = np.ones((batch, samples), bool), np.arange(batch, dtype=np.int32)
    data = {"audio": audio.astype(np.float32), "mask": mask, "index": index}
    flops = count_flops(jax.make_jaxpr(program.step)(state, data).jaxpr)
    began = time.perf_counter()
    state, metrics = jax.block_until_ready(program.step(state, data))
    first = time.perf_counter() - began
    times = []
    for _ in range(2 if tiny else 10):
        began = time.perf_counter()
        state, metrics = jax.block_until_ready(program.step(state, data))
        times.append(time.perf_counter() - began)
    assert np.isfinite(metrics["loss"]), metrics
    spent = min(times)
    return {
        "samples": samples,
        "step_ms": 1e3 * spent,
        "crops_per_second": batch / spent,
        "tflops": flops / spent / 1e12,
        "limit": "matrix_float32_default",
        "share_of_matrix_rate": ratio(flops / spent, lines.limit("matrix_float32_default")),
        "compile_seconds": first - spent,
    }


def count_flops(jaxpr) -> float:
    """Of products and convolutions, padding counted as input; loops of known length times it.

    `rvq_jax.plan` counts closer, but needs packages that a machine with a card may lack.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        out = equation.outvars[0].aval if equation.outvars else None
        if name == "dot_general":
            left = equation.invars[0].aval.shape
            summed = params["dimension_numbers"][0][0]
            total += 2.0 * out.size * math.prod(left[axis] for axis in summed)
        elif name == "conv_general_dilated":
            weights, numbers = equation.invars[1].aval, params["dimension_numbers"]
            each = weights.size / weights.shape[numbers.rhs_spec[0]]
            # A transposed convolution meets a hole where the stride put one.
            total += 2.0 * out.size * each / math.prod(params["lhs_dilation"])
        times = params["length"] if name == "scan" else 1
        for value in params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = inner.jaxpr if isinstance(inner, core.ClosedJaxpr) else inner
                if isinstance(inner, core.Jaxpr):
                    total += times * count_flops(inner)
    return total
