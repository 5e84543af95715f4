"""A token model small enough to check whole, shared by the tests of token models."""

import jax
import numpy as np
import pytest
from flax import nnx

from rvq_jax import patterns
from rvq_jax.lm import forms
from rvq_jax.lm.conditions import text_condition
from rvq_jax.lm.model import LMConfig
from rvq_jax.lm.text_bytes import to_bytes
from rvq_jax.systems.decoding.programs import score_codes

K, F, N = 3, 5, 7
SIX = ("parallel", "delay", "partial_delay", "flatten", "partial_flatten", "coarse_first")
CONFIG = LMConfig(
    levels=K, codebook_size=N, dim=16, layers=2, heads=2, mlp_dim=32, caption_bytes=16
)
CAPTIONS = ["slow pad", "né"]
TEXT = to_bytes(CAPTIONS, CONFIG.caption_bytes)
KEY = jax.random.key(3)

each_pattern = pytest.mark.parametrize("name", SIX)


def of_text(text_BL) -> dict:
    """The conditions of texts as bytes."""
    return {"text": text_condition(text_BL)}


def aligned_pattern(name: str, levels: int = K, frames: int = F) -> patterns.Pattern:
    """All six in the steps of the longest, so that they share their programs."""
    return patterns.named(name, levels, frames).pad(levels * frames)


def filled(shapes):
    """A tree of shapes filled with random numbers, large enough for every input to matter."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: (0.4 * rng.normal(size=x.shape)).astype(x.dtype), shapes)


def draw(config: LMConfig) -> nnx.State:
    return filled(forms.abstract(config))


PARAMS = draw(CONFIG)


def random_codes(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, N, (rows, K, F)).astype(np.int32)


def free(rows: int) -> np.ndarray:
    """Nothing forced: every code is drawn."""
    return np.full((rows, K, F), -1, np.int32)


def replaced(codes_KF: np.ndarray) -> np.ndarray:
    """`[K · F · N, K, F]`: the codes with each one in turn set to each value."""
    rows = np.tile(codes_KF, (K, F, N, 1, 1))
    for k in range(K):
        for f in range(F):
            rows[k, f, :, k, f] = np.arange(N)
    return rows.reshape(K * F * N, K, F)


def log2_table(params, pattern, codes_KF: np.ndarray, text_L: np.ndarray) -> np.ndarray:
    """`[K, F, N]`: log2 p of every value of every code, given what it sees of the codes."""
    text = np.tile(text_L, (K * F * N, 1))
    bits = np.asarray(score_codes(CONFIG, params, pattern, replaced(codes_KF), of_text(text)))
    bits = bits.reshape(K, F, N, K, F)
    k, f = np.ogrid[:K, :F]
    return -bits[k, f, :, k, f]
