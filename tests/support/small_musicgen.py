"""MusicGens with a frozen T5, small enough to draw from many times."""

import functools

import jax
import numpy as np
from small_lm import filled

from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.lm import forms
from rvq_jax.lm.model import LMConfig
from rvq_jax.lm.t5 import T5Config
from rvq_jax.systems import text_encoder as texts
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.text_encoder import TextEncoder, Tokenizer

K, N, RATE, HOP = 3, 11, 1000, 10  # 100 frames per second
PROMPTS = ["slow", "a loud drum", "né", "in the night a piano plays", "x", "two words", "", "again"]
T5 = T5Config(vocab=40, dim=12, layers=1, heads=2, head_dim=4, mlp_dim=20)
# Each layer is compiled on its own: of the three kinds one has two of them.
SIZES = {"dim": 16, "layers": 1, "heads": 2, "mlp_dim": 24, "text_dim": 12}
LM = LMConfig(levels=K, codebook_size=N, positions="sinusoidal", **SIZES)
CONFIGS = {
    "text": LM,
    "melody": LMConfig(levels=K, codebook_size=N, melody_bins=12, melody_frames=4, **SIZES),
    "stereo": LMConfig(
        levels=2 * K, codebook_size=N, positions="sinusoidal", **SIZES | {"layers": 2}
    ),
}


def tokens(text: str) -> list[int]:
    """A letter each, and the closing one."""
    return [2 + ord(letter) % 38 for letter in text] + [1]


@functools.cache
def codec(causal: bool = False) -> Codec:
    seanet = SEANetConfig(filters=2, dim=4, ratios=(5, 2), lstm_layers=1, causal=causal)
    made = Codec.init(CodecConfig(RATE, seanet, levels=K, codebook_size=N), jax.random.key(0))
    params, quantizer = filled((made.params, made.quantizer))
    # Loud enough that other codes are other audio.
    params, quantizer = (
        jax.tree.map(lambda x: 3 * x, params),
        jax.tree.map(lambda x: 10 * x, quantizer),
    )
    return Codec(made.config, params, quantizer)


@functools.cache
def small(kind: str = "text", pattern: str = "delay", causal: bool = False) -> MusicGen:
    """A 'text', 'melody' or 'stereo' model with weights large enough for every input to matter."""
    config = CONFIGS[kind]
    rng = np.random.default_rng(1)
    shapes = texts.leaf_shapes(T5)
    leaves = {n: rng.normal(size=x.shape).astype(np.float32) * 0.5 for n, x in shapes.items()}
    text = TextEncoder.of_leaves(T5, leaves, Tokenizer(tokens, {}))
    params = jax.device_put(filled(forms.abstract(config)))
    return MusicGen(config, pattern, params, codec(causal), text)


def codes_of(model: MusicGen, rows: int, frames: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, N, (rows, model.config.levels, frames)).astype(np.int32)


def melody_of(rows: int, seed: int = 0) -> np.ndarray:
    """Audio of a tone that rises, `[B, S, 1]`."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 40_000, 1)).astype(np.float32)
