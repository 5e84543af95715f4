"""The smallest runs of codecs of every kind, sounds to train them on, and their first updates."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from small_runs import bits_of, one_device

from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.dac import DACConfig
from rvq_jax.codec.discriminators import DiscriminatorsConfig, MultiScaleSTFTConfig
from rvq_jax.codec.mimi import MimiConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.codec.transformer import TransformerConfig
from rvq_jax.data import loader
from rvq_jax.systems.codec import Codec
from rvq_jax.train import sharding
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import CodecRun, DACRun, MimiRun
from rvq_jax.train.state import OptimizerConfig, make_program
from rvq_jax.train.tasks.adversarial import AdversarialConfig
from rvq_jax.train.tasks.codec import codec_task
from rvq_jax.train.tasks.codec_losses import CodecLossConfig

KEY = jax.random.key(0)
RATE = 8_000
SEANET = SEANetConfig(filters=2, dim=4, ratios=(8,), lstm_layers=0, true_skip=True)
STFT = MultiScaleSTFTConfig(filters=2, windows=(32,))
# Only rates that are constant after one update: programs are those of runs of any length.
RATES = OptimizerConfig(2e-3, warmup=1, schedule="constant", weight_decay=0.0)
JUDGES = AdversarialConfig(DiscriminatorsConfig(RATE, STFT), optimizer=RATES)
LOSS = CodecLossConfig(autoencoder_warmup=2)
LOOP = LoopConfig(steps=6, log_every=1, checkpoint_every=3)


def run_of(kind: type = CodecRun, codec=None, **changes):
    codec = CodecConfig(RATE, SEANET, 2, 16) if codec is None else codec
    run = kind(codec, LOSS, JUDGES, LOOP, RATES, batch=4, seconds=0.064)
    return dataclasses.replace(run, **changes)


GROUPED = dataclasses.replace(SEANET, channels=2, causal=False, norm="time_group_norm")
STEREO = dataclasses.replace(STFT, channels=2)
TRANSFORMER = TransformerConfig(dim=4, heads=2, kv_heads=2, head_dim=2, mlp_dim=8, layers=1)
MIMI = MimiConfig(RATE, dataclasses.replace(SEANET, norm="none"), TRANSFORMER, 2, 3, 1, 8, 4)
DAC = DACConfig(RATE, (8,), 2, 4, 4, levels=2, codebook_size=16, code_dim=2, norm="weight_norm")
SUMMED = dataclasses.replace(LOSS, balanced=False)
RUNS = {
    "encodec": run_of(loss=dataclasses.replace(LOSS, balanced=True)),
    "stereo": run_of(
        codec=CodecConfig(RATE, GROUPED, 2, 16, normalize=True, segment=0.064, overlap=0.0),
        loss=dataclasses.replace(LOSS, balanced=True, prefixes=(1, 2), prefix_per_batch=True),
        adversarial=dataclasses.replace(JUDGES, discriminators=DiscriminatorsConfig(RATE, STEREO)),
    ),
    "dac": run_of(
        DACRun, DAC, adversarial=dataclasses.replace(JUDGES, loss="least_squares", normalized=False)
    ),
    "mimi": run_of(MimiRun, MIMI, loss=dataclasses.replace(LOSS, unquantized=0.5)),
}


class Sounds(list):
    """Records in memory."""

    rate = RATE

    def describe(self) -> dict:
        return {"records": len(self), "peak": float(max(abs(x["audio"]).max() for x in self))}


def sounds(channels: int = 1, count: int = 9, begin: int = 0, gain: float = 0.3) -> Sounds:
    """Tones of two partials each, with a little noise; some shorter than a crop."""
    found = Sounds()
    for i in range(begin, begin + count):
        rng, t = np.random.default_rng(i), np.arange(400 + 100 * (i % 9)) / RATE
        pitch = 200 * 2 ** rng.uniform(0, 2)
        audio = np.sin(2 * np.pi * pitch * t) + 0.3 * np.sin(6 * np.pi * pitch * t)
        audio = audio[:, None] * rng.uniform(0.5, 1.0, channels)
        audio = gain * (audio + 0.02 * rng.normal(size=audio.shape))
        found.append({"audio": audio.astype(np.float32), "name": f"tone{i}"})
    return found


def batches_of(run, **options):
    source = sounds(run.codec.channels, **options)
    return loader.batches(source, loader.cut_audio(run.samples), run.batch, 0)


def updated(run, count: int, codec=None, mesh=None):
    """The states up to so many updates, of a codec whose codebooks have started."""
    codec = Codec.init(run.codec, KEY) if codec is None else codec
    mesh = one_device() if mesh is None else mesh
    task, batches = codec_task(run.recipe(), 1, codec), batches_of(run)
    program = make_program(task, run.optimizer, 9, mesh)
    states = [program.init(KEY, task.aux, task.init_params)]
    for _ in range(count):
        # A step takes the state it is given.
        kept = jax.tree.map(jnp.copy, states[-1])
        batch = sharding.place_batch(next(batches), mesh)
        states.append(program.step(kept, batch)[0])
    return states


def changed(before, after) -> bool:
    return bits_of(before) != bits_of(after)
