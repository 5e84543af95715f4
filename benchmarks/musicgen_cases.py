"""MusicGen's published sizes as benchmarks run them: random weights, generation, a training step.

What counts: a step of decoding reads every weight that it needs and the keys and values of the
steps before it once; training multiplies each weight with every position three times.
"""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from rvq_jax import files, patterns
from rvq_jax.lm import forms
from rvq_jax.lm.conditions import condition
from rvq_jax.lm.model import LMConfig
from rvq_jax.lm.sampling import Sampling
from rvq_jax.systems.decoding import programs, windows
from rvq_jax.systems.musicgen import sizes
from rvq_jax.train import sharding
from rvq_jax.train.state import OptimizerConfig, make_program
from rvq_jax.train.tasks.lm import lm_task

SIZES = {
    "small": sizes.musicgen_small,
    "medium": sizes.musicgen_medium,
    "large": sizes.musicgen_large,
}
TOKENS = 16  # of the text
DELAY = 3  # steps after the last frame's first code
HOW = {"guidance": 3.0, "sampling": Sampling(1.0, 250, 0.0)}


def tiny() -> LMConfig:
    """A model of the same shape that costs nothing."""
    return dataclasses.replace(sizes.musicgen_small(), dim=32, layers=2, heads=2, mlp_dim=64)


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def _draw(key, shape, dtype):
    return jnp.asarray(0.02, dtype) * jax.random.normal(key, shape, dtype)


def random_params(config: LMConfig, dtype: str):
    """Parameters with lists of layers, drawn where they lie: the host would take minutes."""
    shapes, treedef = jax.tree.flatten(forms.abstract(config))
    keys = jax.random.split(jax.random.key(0), len(shapes))
    # One program for each shape, not one for all leaves: that one takes long to compile.
    leaves = [_draw(key, x.shape, dtype) for key, x in zip(keys, shapes, strict=True)]
    return jax.tree.unflatten(treedef, leaves)


def is_read(name: str) -> bool:
    """Whether a step reads all of a weight: not tables of words, nor what reads the text once."""
    once = name.startswith("embed") or "attend_cross/key_value" in name
    return not once and not name.startswith("readers/")


@dataclasses.dataclass(frozen=True)
class Generation:
    """A compiled program of `steps` guided steps, with its inputs."""

    config: LMConfig
    compiled: object
    inputs: tuple
    batch: int
    steps: int
    cache_steps: int  # places that the cache has
    compile_seconds: float

    def __call__(self) -> None:
        jax.block_until_ready(self.compiled(*self.inputs, **HOW))

    @property
    def weight_bytes(self) -> int:
        """Of the weights that a step reads."""
        named = files.named(self.inputs[0]).items()
        return sum(x.nbytes for name, x in named if is_read(name))

    def cache_bytes(self, steps: float) -> float:
        """Of keys and values of the text and of so many steps, both branches of guidance."""
        c = self.config
        places = 2 * self.batch * (steps + TOKENS)
        return 2 * c.layers * places * c.dim * jnp.dtype(c.dtype).itemsize

    @property
    def memory_bytes(self) -> int:
        """Of arguments and temporaries."""
        memory = self.compiled.memory_analysis()
        return memory.argument_size_in_bytes + memory.temp_size_in_bytes


def generation(config: LMConfig, params, batch: int, steps: int) -> Generation:
    """`steps` steps of `batch` rows with a text, compiled."""
    frames = steps - DELAY
    forced = np.full((batch, config.levels, frames), -1, np.int32)
    window = windows.window_of("delay", forced, np.full(batch, frames))
    states = np.random.default_rng(0).normal(size=(batch, TOKENS, config.text_dim))
    conditions = {"text": condition(jnp.asarray(states.astype(np.float32)))}
    key = jax.random.key(0)
    inputs = params, window.pattern, conditions, key, window.forced, window.lengths
    began = time.perf_counter()
    compiled = programs.generate_codes.lower(config, *inputs, **HOW).compile()
    spent = time.perf_counter() - began
    return Generation(config, compiled, inputs, batch, steps, window.pattern.steps, spent)


class Training:
    """Updates by AdamW of a model with random weights on one batch of random codes."""

    def __init__(self, config: LMConfig, batch: int, frames: int):
        self.config, self.batch = config, batch
        self.pattern = patterns.named("delay", config.levels, frames)
        mesh = sharding.make_mesh(devices=jax.devices()[:1])
        task = lm_task(config, self.pattern)
        self.program = make_program(task, OptimizerConfig(), 1000, mesh)
        self.state = self.program.init(jax.random.key(0), task.aux)
        rng = np.random.default_rng(0)
        shape = batch, config.levels, frames
        self.codes = rng.integers(0, config.codebook_size, shape).astype(np.int32)
        states = rng.normal(size=(batch, TOKENS, config.text_dim))
        self.data = {
            "codes": self.codes,
            "mask": np.ones((batch, frames), bool),
            "states": states.astype(np.float32),
            "text_mask": np.ones((batch, TOKENS), bool),
            "index": np.arange(batch, dtype=np.int32),
        }

    def __call__(self) -> None:
        self.state, metrics = self.program.step(self.state, self.data)
        jax.block_until_ready(metrics)

    @property
    def tokens(self) -> np.ndarray:
        """`[B, K, T]`, the codes as the pattern has them."""
        return np.asarray(self.pattern.interleave(self.codes, fill=self.config.codebook_size))


def training_flops(config: LMConfig, batch: int, steps: int) -> float:
    """Of one update, nothing recomputed: three times the forward pass, a multiply-add as two.

    Weights at every position, attention of every pair of positions, those too that a causal mask
    hides; what reads the text once is left out.
    """
    named = files.named(forms.abstract(config)).items()
    count = sum(x.size for name, x in named if is_read(name))
    pairs = steps * (steps + TOKENS)
    return 3 * batch * (2 * count * steps + 4 * pairs * config.dim * config.layers)
