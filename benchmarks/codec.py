"""Codec: real-time factor of encode and decode, and training steps per second.

Command:  python benchmarks/codec.py --device cpu
Sizes:    the laptop codec of the quickstart; EnCodec 24 kHz at 8 levels with random weights
"""

import common

parsed = common.arguments(__doc__)

import jax  # noqa: E402
import numpy as np  # noqa: E402

from rvq_jax import Codec  # noqa: E402
from rvq_jax.codec.config import tiny  # noqa: E402
from rvq_jax.systems.encodec import encodec_24khz  # noqa: E402
from rvq_jax.train import sharding  # noqa: E402
from rvq_jax.train.codec_task import CodecLossConfig, codec_task  # noqa: E402
from rvq_jax.train.state import OptimizerConfig, make_program  # noqa: E402

SECONDS = 10


def real_time(config, levels: int) -> dict:
    codec = Codec.init(config, jax.random.key(0))
    noise = np.random.default_rng(0).normal(size=(1, SECONDS * config.rate, 1)) * 0.1
    audio = noise.astype(np.float32)
    codes = codec.encode(audio, levels).codes
    encode, _ = common.seconds(lambda x: codec.encode(x, levels).codes, audio, repeats=3)
    decode, first_decode = common.seconds(codec.decode, codes, repeats=3)
    return {
        "encode_real_time_factor": encode / SECONDS,
        "decode_real_time_factor": decode / SECONDS,
        "decode_compile_seconds": first_decode - decode,
    }


def training(config) -> dict:
    task = codec_task(config, CodecLossConfig())
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    program = make_program(task, OptimizerConfig(), 1000, mesh)
    state = program.init(jax.random.key(0), task.rest)
    samples = config.rate // 2 // config.hop * config.hop
    audio = np.random.default_rng(0).normal(size=(12, samples, 1)).astype(np.float32)
    batch = {"audio": 0.1 * audio, "mask": np.ones((12, samples), bool)}
    holder = [state]

    def step():
        holder[0], metrics = program.step(holder[0], batch)
        return metrics

    best, first = common.seconds(step)
    return {"training_steps_per_second": 1 / best, "training_compile_seconds": first - best}


common.emit(parsed, "codec_tiny", {**real_time(tiny(), 4), **training(tiny())})
common.emit(parsed, "codec_encodec_24khz", real_time(encodec_24khz(), 8))
