"""Codecs beside transformers on the same cores: encode, decode, streaming step, compile, memory.

Both get the same random weights and audio; repeats take turns and the least time of each counts. A
ratio is the peer's time over ours; null is a peer that is not installed. The bound is what the
machine's matrix rate allows for the multiplications of the convolutions, products and LSTM steps.

Command:  python benchmarks/codec.py --device cpu            training and the hour of audio as well:
          python benchmarks/codec.py --device cpu --only training hour
Target:   2.5x transformers for EnCodec 32 kHz, 1.5x for the others; an hour in under 4 GB
"""

import argparse
import importlib.util
import resource
import tempfile
import time

import common

PARSER = argparse.ArgumentParser(add_help=False)
CASES = ("encodec_24khz", "encodec_32khz", "dac_44khz", "mimi", "training", "hour")
PARSER.add_argument("--only", nargs="+", choices=CASES, default=CASES[:4])
PARSER.add_argument("--batch", nargs="+", type=int, default=[1, 8])
parsed = common.arguments(__doc__, PARSER)

import jax  # noqa: E402
import numpy as np  # noqa: E402

import rvq_jax as rj  # noqa: E402
from rvq_jax.codec import autoencoder, stream  # noqa: E402
from rvq_jax.codec.config import tiny  # noqa: E402
from rvq_jax.codec.mimi import MimiConfig  # noqa: E402
from rvq_jax.convert import folder  # noqa: E402
from rvq_jax.systems import dac, encodec  # noqa: E402
from rvq_jax.train import sharding  # noqa: E402
from rvq_jax.train.state import OptimizerConfig, make_program  # noqa: E402
from rvq_jax.train.tasks.codec import Recipe, codec_task  # noqa: E402

SECONDS, THREADS = 10, 2


CONFIGS = {
    "encodec_24khz": encodec.encodec_24khz(),
    "encodec_32khz": encodec.encodec_32khz(),
    "dac_44khz": dac.dac_44khz(),
    "mimi": MimiConfig(),
}


def peer(name: str):
    """A model of transformers with random weights, its encode and its decode."""
    import torch
    from transformers import DacModel, EncodecModel, MimiModel

    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    kind = {"dac_44khz": DacModel, "mimi": MimiModel}.get(name, EncodecModel)
    config = kind.config_class(**folder.module_of(CONFIGS[name]).to_fields(CONFIGS[name]))
    model = kind(config).eval()
    if kind is DacModel:
        return model, model.encode, lambda codes: model.decode(audio_codes=codes)
    # Untrained codebooks are all zeros, and a search among equals is no search.
    for module in model.modules():
        for book in ("embed", "embed_sum"):
            if isinstance(getattr(module, book, None), torch.Tensor):
                getattr(module, book).normal_()
        if isinstance(getattr(module, "cluster_usage", None), torch.Tensor):
            module.cluster_usage.fill_(1.0)
    if kind is MimiModel:
        return model, model.encode, model.decode

    def encode(audio):
        return model.encode(audio, bandwidth=config.target_bandwidths[-1])

    return model, encode, lambda codes: model.decode(codes[None], [None])


def published(name: str) -> None:
    """Encode and decode of each batch, and the step of a stream where there is one."""
    theirs, config = None, CONFIGS[name]
    if importlib.util.find_spec("transformers"):
        model, *theirs = peer(name)
        with tempfile.TemporaryDirectory() as path:
            model.save_pretrained(path)
            codec = rj.Codec.load(path)
    else:
        codec = rj.Codec.init(config, jax.random.key(0))
    rate = common.matmul_rate()
    for batch in parsed.batch:
        samples = SECONDS * config.rate // config.hop * config.hop
        shape = batch, samples, config.channels
        audio = (0.1 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
        began = time.perf_counter()
        coded = jax.block_until_ready(codec.encode(audio))
        first_encode = time.perf_counter() - began
        began = time.perf_counter()
        jax.block_until_ready(codec.decode(coded))
        first_decode = time.perf_counter() - began
        calls = {
            "encode": lambda audio=audio: jax.block_until_ready(codec.encode(audio)),
            "decode": lambda coded=coded: jax.block_until_ready(codec.decode(coded)),
        }
        if theirs:
            import torch

            sound = torch.from_numpy(audio).mT
            codes = torch.from_numpy(np.array(coded.codes)).long()
            no_grad = torch.no_grad()
            calls["encode peer"] = no_grad(lambda sound=sound: theirs[0](sound))
            calls["decode peer"] = no_grad(lambda codes=codes: theirs[1](codes))
        # The largest case takes minutes as it is.
        best = common.least(calls, 5 if batch == 1 else 2)
        values = {"batch": batch, "seconds": SECONDS, "matmul_gflops": rate / 1e9}
        for way, function, x in (
            ("encode", autoencoder.encode, audio),
            ("decode", autoencoder.decode, coded.codes),
        ):
            compiled = function.lower(*codec.prepared, x).compile()
            values[f"{way}_seconds"] = best[way]
            values[f"{way}_over_peer"] = theirs and best[f"{way} peer"] / best[way]
            values[f"{way}_gflops"] = compiled.cost_analysis().get("flops", 0) / best[way] / 1e9
            values[f"{way}_temporary_mb"] = compiled.memory_analysis().temp_size_in_bytes / 1e6
        values["encode_compile_seconds"] = first_encode - best["encode"]
        values["decode_compile_seconds"] = first_decode - best["decode"]
        if batch == 1 and config.causal:
            values |= step_latency(codec, audio)
        common.emit(parsed, f"codec_{name}", values)


def step_latency(codec, audio) -> dict:
    """Milliseconds of one frame through encoder and decoder, states carried."""
    config = codec.config
    states = list(stream.begin(config, 1))
    first = stream.first_frames(config)
    times = {"encode": [], "decode": []}
    blocks = [first] + [1] * 60
    at = 0
    for frames in blocks:
        block = audio[:, at * config.hop : (at + frames) * config.hop]
        at += frames
        began = time.perf_counter()
        codes, states[0] = stream.encode_step(*codec.prepared, states[0], block)
        jax.block_until_ready(codes)
        times["encode"].append(time.perf_counter() - began)
        began = time.perf_counter()
        sound, states[1] = stream.decode_step(*codec.prepared, states[1], codes)
        jax.block_until_ready(sound)
        times["decode"].append(time.perf_counter() - began)
    median = {f"{way}_step_ms": 1e3 * float(np.median(t[5:])) for way, t in times.items()}
    return {**median, "frame_ms": 1e3 / config.frame_rate, "first_frames": first}


def training(config) -> dict:
    task = codec_task(Recipe(config))
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    program = make_program(task, OptimizerConfig(), 1000, mesh)
    state = program.init(jax.random.key(0), task.aux)
    samples = config.rate // 2 // config.hop * config.hop
    audio = np.random.default_rng(0).normal(size=(12, samples, 1)).astype(np.float32)
    batch = {"audio": 0.1 * audio, "mask": np.ones((12, samples), bool)}
    holder = [state]

    def step():
        holder[0], metrics = program.step(holder[0], batch)
        return metrics

    best, first = common.seconds(step)
    return {"training_steps_per_second": 1 / best, "training_compile_seconds": first - best}


def hour() -> dict:
    """An hour at 24 kHz through EnCodec at 8 levels, 10 seconds at a time, in this process."""
    codec = rj.Codec.init(encodec.encodec_24khz(), jax.random.key(0))
    t = np.arange(3600 * 24_000, dtype=np.float32)
    audio = (0.3 * np.sin(0.05 * t) * np.sin(1e-5 * t))[None, :, None]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    coded = codec.encode(audio, 8, chunk=10.0)
    encoded = time.perf_counter()
    decoded = codec.decode(coded, chunk=10.0)
    done = time.perf_counter()
    assert decoded.shape == audio.shape
    return {
        "hour_encode_seconds": encoded - began,
        "hour_decode_seconds": done - encoded,
        "hour_peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "hour_peak_before_gb": before / 1e6,
    }


for case in parsed.only:
    if case == "training":
        common.emit(parsed, "codec_tiny", training(tiny()))
    elif case == "hour":
        common.emit(parsed, "codec_hour", hour())
    else:
        published(case)
