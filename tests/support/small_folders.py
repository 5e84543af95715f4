"""Folders of small MusicGens, as the command line reads them."""

import dataclasses
from pathlib import Path

import jax
import pytest
from small_lm import CONFIG, PARAMS, filled
from small_musicgen import CONFIGS, RATE, T5
from small_t5 import write_tokenizer

from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.lm import forms
from rvq_jax.systems import text_encoder as texts
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.text_encoder import TextEncoder, load_tokenizer

WINDOW = 40  # frames of a model of a frozen text encoder, 0.4 s


def codec(levels: int, size: int, lstm_layers: int = 1) -> Codec:
    """100 frames per second, loud enough that other codes are other audio."""
    seanet = SEANetConfig(filters=2, dim=4, ratios=(5, 2), lstm_layers=lstm_layers, causal=False)
    made = Codec.init(CodecConfig(RATE, seanet, levels, size), jax.random.key(0))
    scaled = zip((3, 10), filled((made.params, made.quantizer)), strict=True)
    return Codec(made.config, *(jax.tree.map(lambda x, s=s: s * x, tree) for s, tree in scaled))


def text_encoder(folder: Path) -> TextEncoder:
    """A T5 of random weights, with a tokenizer of whole words."""
    leaves = filled(texts.leaf_shapes(T5))
    write_tokenizer(folder)
    return TextEncoder.of_leaves(T5, leaves, load_tokenizer(folder))


def own() -> MusicGen:
    """A model that reads captions itself, of any length, in a folder of our own format."""
    return MusicGen(
        CONFIG, "delay", PARAMS, codec(CONFIG.levels, CONFIG.codebook_size, lstm_layers=0)
    )


def published(kind: str, folder: Path) -> MusicGen:
    """A 'text', 'melody' or 'stereo' model that transformers has words for."""
    pytest.importorskip("safetensors", reason="the package is not installed")
    config = dataclasses.replace(
        CONFIGS[kind], codebook_size=16, window=WINDOW, positions="sinusoidal"
    )
    pattern = "stereo_partial_delay" if kind == "stereo" else "delay"
    params = filled(forms.abstract(config))
    levels = config.levels // (2 if kind == "stereo" else 1)
    return MusicGen(config, pattern, params, codec(levels, 16), text_encoder(folder))


def folders(tmp_path_factory) -> dict[str, Path]:
    """A folder of each kind; made once."""
    base = tmp_path_factory.getbasetemp() / "small_folders"
    if not base.exists():
        own().save(base / "own")
        for kind in ("text", "melody", "stereo"):
            published(kind, base / "words").save(base / kind)
    return {kind: base / kind for kind in ("own", "text", "melody", "stereo")}
