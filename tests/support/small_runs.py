"""The smallest runs that train, and how to compare what they leave."""

import contextlib
import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rvq_jax import patterns
from rvq_jax.codec import losses
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.data import loader
from rvq_jax.data.codes import CodeSet
from rvq_jax.lm.depth import DepthConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.train import sharding
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import LMRun
from rvq_jax.train.state import OptimizerConfig, Task
from rvq_jax.train.tasks.codec import Recipe, codec_task
from rvq_jax.train.tasks.codec_losses import CodecLossConfig
from rvq_jax.train.tasks.lm import ConditionDropout, lm_task

LM = LMConfig(levels=2, codebook_size=7, dim=16, layers=1, heads=2, mlp_dim=32, caption_bytes=8)
DEPTH_LM = dataclasses.replace(
    LM,
    block="llama",
    depth=DepthConfig(dim=16, layers=1, heads=2, mlp_dim=32, shared=False),
)
RUN = LMRun(
    lm=LM,
    loop=LoopConfig(steps=6, log_every=1, checkpoint_every=2),
    optimizer=OptimizerConfig(warmup=1),
    batch=4,
    frames=6,
    condition_dropout=ConditionDropout(0.5),
)
TUNING = OptimizerConfig(learning_rate=1e-3, warmup=1)
# Programs of it are those of runs of any length.
CONSTANT = OptimizerConfig(learning_rate=0.02, warmup=1, schedule="constant")
# A config file of a run, by its repr.
CONFIG_FILE = """
from rvq_jax.lm.lora import LoRAConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.train.tasks.lm import ConditionDropout
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import LMRun
from rvq_jax.train.state import OptimizerConfig

def get_config():
    return {run!r}
"""


def code_set(count: int = 9) -> CodeSet:
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, LM.codebook_size, (2, 4 + i)).astype(np.int32) for i in range(count)]
    names = [f"song{i}" for i in range(count)]
    return CodeSet(
        codes, names, [f"cap {i}" for i in range(count)], ["x"] * count, 50.0, LM.codebook_size
    )


def one_device():
    return sharding.make_mesh(devices=jax.devices()[:1])


def bits_of(tree) -> list[bytes]:
    """Every leaf to the last bit; random keys by their data."""

    def raw(x):
        key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if key else x).tobytes()

    return [raw(leaf) for leaf in jax.tree.leaves(tree)]


def log_of(folder: Path) -> list[dict]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    times = {
        "seconds",
        "data_wait",
        "heldout_seconds",
        "examples_per_second",
        "memory_gb",
        "device",
    }
    return [{name: line[name] for name in line if name not in times} for line in lines]


def lm_parts(lm: LMConfig = LM):
    pattern = patterns.padded_pattern("delay", 2, RUN.frames)
    return lm_task(lm, pattern, ConditionDropout(0.5)), lambda: loader.batches(
        code_set(), loader.cut_codes(RUN.frames, LM.caption_bytes), 8, 0
    )


# Rounding differs by mesh, and training makes it grow: slowly enough, fifty updates keep it small.
TUNED_SLOWLY = OptimizerConfig(learning_rate=1e-4, warmup=1)


def mesh_parts(kind: str, rows: np.ndarray | None = None):
    """A task and its batches of 8, or the rows of them, to compare meshes: a token model, one with
    a depth transformer, or a codec that replaces codes in most updates."""
    if kind in ("lm", "depth"):
        cut = loader.cut_codes(RUN.frames, LM.caption_bytes)
        lm = LM if kind == "lm" else DEPTH_LM
        return lm_parts(lm)[0], loader.batches(code_set(), cut, 8, 0, rows)
    seanet = SEANetConfig(filters=4, dim=8, ratios=(4, 8), lstm_layers=0)
    config = CodecConfig(8_000, seanet, levels=2, codebook_size=16)
    weights = CodecLossConfig(autoencoder_warmup=2, decay=0.9, expiry=0.8)
    task = codec_task(Recipe(config, weights), codebook_batches=1)
    return task, loader.batches(audio_records(), loader.cut_audio(2048), 8, 0, rows)


def audio_records() -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        {"audio": (0.1 * rng.normal(size=(2048 + 100 * i, 1))).astype(np.float32)} for i in range(9)
    ]


@contextlib.contextmanager
def one_window():
    """Spectra of one length in a codec's loss, not three, for tests of other things: compiling
    them takes longer than the codec."""
    short = functools.partial(losses.multi_scale_mel, windows=losses.WINDOWS[:1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "multi_scale_mel", short)
        yield


def codec_parts():
    seanet = SEANetConfig(filters=4, dim=8, ratios=(4,), lstm_layers=0)
    config = CodecConfig(8_000, seanet, levels=2, codebook_size=4)
    task = codec_task(Recipe(config, CodecLossConfig(autoencoder_warmup=2)), codebook_batches=1)
    return task, lambda: loader.batches(audio_records(), loader.cut_audio(2048), 8, 0)


# A model of three numbers, for what does not need a large one.


class Point(nnx.Module):
    def __init__(self, size: int = 3):
        self.w = nnx.Param(jnp.zeros(size), axes=(None,))


def point_task(size: int = 3) -> Task:
    """Half the mean squared distance of a point to the records: its gradient is w - mean(x)."""

    def init(key):
        return nnx.state(Point(size), nnx.Param)

    def loss(params, aux, batch, key):
        w = params["w"][...]
        return 0.5 * jnp.mean(jnp.sum((w[None] - batch["x"]) ** 2, axis=1)), (aux, {})

    def evaluate(params, aux, batch):
        distance_B = jnp.sum((params["w"][...][None] - batch["x"]) ** 2, axis=1)
        return {"loss": 0.5 * distance_B.sum(), "by_number": batch["x"].sum(0)}, len(distance_B)

    return Task(init, jnp.zeros(()), loss, evaluate=evaluate)


def points(records: np.ndarray, batch: int = 2):
    return loader.batches(records, lambda record, rng: {"x": record}, batch, 0)


SPREAD = np.float32([1.0, 10.0, 100.0])
RECORDS = np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32) * SPREAD


def ending(batches, count: int, error: type[BaseException]):
    """Batches after so many of which taking another raises an error, as of a run that is killed."""
    left = iter(range(count))

    class Ending:
        get_state, set_state = batches.get_state, batches.set_state

        def __next__(self):
            if next(left, None) is None:
                raise error
            return next(batches)

    return Ending()
