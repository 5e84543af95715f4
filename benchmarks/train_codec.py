"""One update of a codec and its discriminators, beside the torch originals on the same cores.

EnCodec at 24 kHz with 32 levels, MS-STFT discriminators and the balancer; DAC at 44.1 kHz with its
discriminators of periods and bands. The original is a process of its own (`train_codec_peer.py`),
and both take turns, an update each; medians count, `over_peer` is its time over ours, null where
its packages are not installed. Memory is what each process holds at most in its updates, beyond
what it held before it had a model; ours holds what is left of its compiler too, which `program_mb`
leaves out. Ours moves both networks in one step from one look at real and at decoded audio, as the
library trains; the originals look again after their discriminators have moved. Ours also keeps a
running mean of the weights; DAC's waveform and STFT distances, which have no weight, are the
original's alone. `share_of_matrix_rate` is this machine's limit.

Command:  python benchmarks/train_codec.py --peer ENVIRONMENT/bin/python
          with --parts what each part of an update takes: halves of the codec, distances, looks
Needs:    encodec 0.1.1 and descript-audio-codec 1.0.0 in the peer's environment
Target:   1.3
"""

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import common
from train_codec_cases import CASES, Memory, audio_of

PARSER = argparse.ArgumentParser(add_help=False)
PARSER.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
PARSER.add_argument("--peer", default=sys.executable, help="interpreter that has the originals")
PARSER.add_argument("--updates", type=int, default=5, help="of each, timed")
PARSER.add_argument("--parts", action="store_true", help="also time what an update is made of")
parsed = common.arguments(__doc__, PARSER)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from flax import nnx  # noqa: E402

from rvq_jax.audio.augment import Augmentation  # noqa: E402
from rvq_jax.codec import autoencoder, discriminators  # noqa: E402
from rvq_jax.systems import dac, encodec  # noqa: E402
from rvq_jax.train import sharding  # noqa: E402
from rvq_jax.train.runs.codec_recipes import audiocraft_recipe, dac_recipe  # noqa: E402
from rvq_jax.train.state import make_program  # noqa: E402
from rvq_jax.train.tasks import adversarial  # noqa: E402
from rvq_jax.train.tasks.codec import CODEC, DISCRIMINATORS, Recipe, codec_task  # noqa: E402
from rvq_jax.train.tasks.codec_losses import distances  # noqa: E402

THREADS = len(os.sched_getaffinity(0))
REST = 0.3  # seconds between turns, in which the other's threads stop to wait for work


def encodec_24khz() -> Recipe:
    """With all levels in every update, as audiocraft trains."""
    return audiocraft_recipe(encodec.encodec_24khz()).recipe()


def dac_44khz() -> Recipe:
    """Without what prepares the data."""
    run = dac_recipe(dataclasses.replace(dac.dac_44khz(), norm="weight_norm"))
    return dataclasses.replace(run.recipe(), augmentation=Augmentation())


class Peer:
    """The original's process; None stands for each figure of one that does not start."""

    def __init__(self, case: str):
        command = [parsed.peer, Path(__file__).with_name("train_codec_peer.py"), case, THREADS]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([str(part) for part in command], **pipes)
        self.there = self._read() or {}

    def step(self) -> tuple[float, float] | None:
        return self._ask("step")

    def end(self) -> dict:
        return self._ask("") or {}

    def _ask(self, line: str):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        return self._read()

    def _read(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else None


def batch_of(recipe: Recipe, case) -> dict:
    audio = audio_of(case)
    assert case.samples % recipe.config.hop == 0
    mask = np.ones(audio.shape[:2], bool)
    return {"audio": audio, "mask": mask, "index": np.arange(case.batch, dtype=np.int32)}


def medians(times: list) -> tuple[float, float] | tuple[None, None]:
    if None in times:
        return None, None
    return tuple(map(statistics.median, zip(*times, strict=True)))


def measure(recipe: Recipe, case) -> dict:
    memory = Memory()
    program = make_program(
        codec_task(recipe), recipe.optimizer, 1000, sharding.make_mesh(devices=jax.devices()[:1])
    )
    task, batch = codec_task(recipe), batch_of(recipe, case)
    # Codebooks are in use from the beginning, as the original's are after its first update.
    aux = task.aux._replace(started=jnp.array(True))
    state = program.init(jax.random.key(0), aux)
    sizes = {name: sum(x.size for x in jax.tree.leaves(p)) for name, p in state.params.items()}
    began = time.perf_counter()
    step = program.step.lower(state, batch).compile()
    compiled = time.perf_counter() - began
    for _ in range(2):
        state, metrics = jax.block_until_ready(step(state, batch))
    peer = Peer(case.name)
    memory.begin()
    ours, theirs = [], []
    for _ in range(parsed.updates):
        time.sleep(REST)
        began, spent = time.perf_counter(), time.process_time()
        state, metrics = jax.block_until_ready(step(state, batch))
        ours.append((time.perf_counter() - began, time.process_time() - spent))
        time.sleep(REST)
        theirs.append(peer.step())
    assert np.isfinite(metrics["loss"]), metrics
    mine, other = memory.peak(), peer.end()
    (wall, processor), (peer_wall, peer_processor) = medians(ours), medians(theirs)
    rate, flops = common.matmul_rate(), step.cost_analysis().get("flops", 0)
    need = step.memory_analysis()
    return {
        "batch": case.batch,
        "samples": case.samples,
        "step_seconds": wall,
        "peer_seconds": peer_wall,
        "over_peer": peer_wall and peer_wall / wall,
        "processor_seconds": processor,
        "peer_processor_seconds": peer_processor,
        "over_peer_processor": peer_processor and peer_processor / processor,
        "memory_mb": mine["model_mb"],
        "peer_memory_mb": other.get("model_mb"),
        "program_mb": (need.temp_size_in_bytes + need.argument_size_in_bytes) / 1e6,
        "parameters": sizes[CODEC],
        "discriminator_parameters": sizes[DISCRIMINATORS],
        "peer_parameters": peer.there.get("parameters"),
        "peer_torch": peer.there.get("torch"),
        "gflops": flops / wall / 1e9,
        "square_matmul_gflops": rate / 1e9,
        "share_of_matrix_rate": flops / wall / rate,
        "compile_seconds": compiled,
        "load": os.getloadavg()[0],
    }


def parts(recipe: Recipe, case) -> dict:
    """Processor seconds and share of the matrix rate of what an update is made of."""
    config, judges = recipe.config, recipe.adversarial
    params = jax.jit(lambda: nnx.state(config.build(nnx.Rngs(0)), nnx.Param))()
    judging = jax.jit(
        lambda: discriminators.init_params(judges.discriminators, jax.random.key(1))
    )()
    audio = jnp.asarray(audio_of(case))
    latents = jnp.ones((case.batch, case.samples // config.hop, config.dim))

    def half(name):
        return lambda params, x: getattr(nnx.merge(autoencoder.graph(config), params), name)(x)

    def backward(function, *inputs):
        def run(*inputs):
            y, pull = jax.vjp(function, *inputs)
            return pull(y)

        return run, *inputs

    def look(params, audio):
        return nnx.merge(discriminators.graph(judges.discriminators), params)(audio)

    def distance(decoded):
        return distances(recipe.loss, audio, decoded, config.rate)

    decoded = 0.9 * audio
    cases = {
        "encoder": (half("encoder"), params, audio),
        "encoder, gradient": backward(half("encoder"), params, audio),
        "decoder": (half("decoder"), params, latents),
        "decoder, gradient": backward(half("decoder"), params, latents),
        "distances, gradient": backward(distance, decoded),
        "one look of the discriminators": (look, judging, audio),
        "discriminators, all": (
            lambda params, decoded: adversarial.judge(judges, params, audio, decoded),
            judging,
            decoded,
        ),
    }
    rate, found = common.matmul_rate(), {}
    for name, (function, *inputs) in cases.items():
        compiled = jax.jit(function).lower(*inputs).compile()
        jax.block_until_ready(compiled(*inputs))
        times = []
        for _ in range(3):
            began, spent = time.perf_counter(), time.process_time()
            jax.block_until_ready(compiled(*inputs))
            times.append((time.perf_counter() - began, time.process_time() - spent))
        wall, processor = min(times)
        share = compiled.cost_analysis().get("flops", 0) / wall / rate
        figures = {"wall": wall, "processor": processor, "share_of_matrix_rate": share}
        found[name] = common.rounded(figures)
    return {"parts": found}


for name in parsed.only:
    recipe, case = {"encodec_24khz": encodec_24khz, "dac_44khz": dac_44khz}[name](), CASES[name]
    values = measure(recipe, case)
    if parsed.parts:
        values |= parts(recipe, case)
    common.emit(parsed, f"train_codec_{name}", values)
    jax.clear_caches()
