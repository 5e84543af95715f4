"""Masked token models small enough to check whole, shared by their tests."""

import dataclasses

import jax
import numpy as np
from small_lm import filled

from rvq_jax.lm import forms
from rvq_jax.lm.conditions import condition, text_condition
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.text_bytes import to_bytes

K, F, N, S = 3, 6, 5, 4  # S semantic tokens to choose from
SOUNDSTORM = MaskedLMConfig(
    levels=K,
    codebook_size=N,
    dim=16,
    layers=1,
    heads=2,
    mlp_dim=32,
    conv_kernel=3,
    semantic_size=S,
)
MAGNET = dataclasses.replace(
    SOUNDSTORM,
    block="transformer",
    positions="sinusoidal",
    masking="spans",
    span=3,
    context=1,
    semantic_size=None,
    text=True,
    caption_bytes=8,
)
VALLE = dataclasses.replace(
    SOUNDSTORM,
    block="transformer",
    masking="levels",
    level_norms=True,
    tied=True,
    semantic_size=None,
    text=True,
    text_as="prefix",
    caption_layers=0,
    caption_bytes=8,
)
CONFIGS = {"soundstorm": SOUNDSTORM, "magnet": MAGNET, "valle": VALLE}
PARAMS = {name: filled(forms.abstract(config)) for name, config in CONFIGS.items()}
KEY = jax.random.key(3)


def conditions(config: MaskedLMConfig, rows: int, frames: int = F) -> dict:
    """Of each row its own."""
    rng = np.random.default_rng(1)
    found = {}
    if config.text:
        found["text"] = text_condition(to_bytes(["slow", "né", "", "abc"] * rows, 8)[:rows])
    if config.semantic_size is not None:
        found["semantic"] = condition(rng.integers(0, S, (rows, 99))[:, : -(-frames // 2)])
    return found


def random_codes(rows: int, frames: int = F, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, N, (rows, K, frames)).astype(np.int32)


def free(rows: int, frames: int = F) -> np.ndarray:
    """Nothing given: every code is sampled."""
    return np.full((rows, K, frames), -1, np.int32)
