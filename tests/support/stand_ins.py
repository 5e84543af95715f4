"""What pages of the documentation take as their reader's own: audio, published models, their files.

All under the names that pages use, small and of random weights, of the published rates and levels.
"""

import csv
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import small_folders
import soundfile
from audiocraft_files import config_of, write
from small_codecs import ENCODEC, renamed, torch_bytes, weights
from small_lm import filled
from small_musicgen import CONFIGS

import rvq_jax as rj
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.dac import DACConfig
from rvq_jax.codec.mimi import MimiConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.codec.transformer import TransformerConfig
from rvq_jax.convert import names
from rvq_jax.lm import forms
from rvq_jax.systems import published_codecs
from rvq_jax.systems.codec import leaf_shapes
from rvq_jax.systems.musicgen import MusicGen

ROOT = Path(__file__).parents[2]
RATE = 16_000
WORDS = ("three", "five", "seven", "nine")
SPEAKERS = ("ann", "bob")
CODECS = {
    "facebook_encodec_24khz": CodecConfig(
        24_000,
        SEANetConfig(dim=4, filters=2, ratios=(8, 40), lstm_layers=1),
        levels=32,
        codebook_size=1024,
    ),
    "descript_dac_44khz": DACConfig(44_100, (16, 32), 2, 16, 8, code_dim=3),
    "kyutai_mimi": MimiConfig(
        24_000,
        SEANetConfig(
            dim=16,
            filters=2,
            ratios=(30, 32),
            last_kernel=3,
            true_skip=True,
            lstm_layers=0,
            norm="none",
            pad_mode="constant",
        ),
        TransformerConfig(16, 1, 2, 2, 8, 16, context=50),
        levels=8,
        codebook_size=64,
        code_dim=4,
    ),
}
MUSICGEN = CodecConfig(
    32_000,
    SEANetConfig(dim=4, filters=2, ratios=(8, 5, 4, 4), lstm_layers=1, causal=False),
    levels=4,
    codebook_size=64,
)


def make(folder: Path) -> None:
    """Writes all of it into an empty folder."""
    sound(folder / "song.wav", 2.0)
    sound(folder / "song.flac", 2.0)
    sound(folder / "voice.wav", 0.6)
    (folder / "MUSIC").mkdir()
    with open(folder / "MUSIC" / "metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "caption", "split"])
        for i in range(10):
            sound(folder / "MUSIC" / f"{i}.wav", 4.0, i)
            split = "train" if i < 6 else "valid" if i < 8 else "test"
            table.writerow([f"{i}.wav", "a slow piano" if i % 2 else "a fast one", split])
    (folder / "SPEECH").mkdir()
    with open(folder / "SPEECH" / "metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "caption", "label", "split"])
        for i in range(16):
            sound(folder / "SPEECH" / f"{i}.wav", 2.2, i)
            said = f"{WORDS[i % 4]} {WORDS[i // 4]}"
            split = "train" if i < 8 else "valid" if i < 12 else "test"
            table.writerow([f"{i}.wav", said, SPEAKERS[i % 2], split])
    shutil.copytree(ROOT / "configs", folder / "configs", ignore=shutil.ignore_patterns("__*"))
    for name, config in CODECS.items():
        codec(config).save(folder / name)
    for kind, name in (("text", "musicgen-small"), ("melody", "musicgen-melody")):
        musicgen(kind, folder / "t5-base").save(folder / f"facebook_{name}")
    model = MusicGen.load(folder / "facebook_musicgen-small")
    model.text.save(folder / "t5-base")
    write(folder / "state_dict.bin", model, config_of(seconds=30.0, delays=[0, 1, 2, 3]))
    compressed = torch_bytes(renamed(weights(model.codec), ENCODEC), {}, "best_state")
    (folder / "compression_state_dict.bin").write_bytes(compressed)


def make_importable(monkeypatch) -> None:
    """Takes the sizes of the stand-in for those that audiocraft's codec has."""
    kind = (names.encodec, (lambda: MUSICGEN,))
    monkeypatch.setitem(published_codecs.KINDS, "encodec_32khz", kind)


def codec(config) -> rj.Codec:
    """One that makes sound of codes, and of other codes another."""
    leaves = filled(leaf_shapes(config))
    # Else biases outweigh the audio, and all clips have the codes of the nearest to them.
    scales = {"bias": 0.0, "vectors": 0.01}
    scaled = {n: scales.get(n.rpartition("/")[2], 1.0) * x for n, x in leaves.items()}
    return rj.Codec.of_leaves(config, {n: x.astype(leaves[n].dtype) for n, x in scaled.items()})


def musicgen(kind: str, text: Path) -> MusicGen:
    """A model of 30 s at 50 frames a second; text: folder of its text encoder."""
    window = {"window": 1500, "melody_frames": 235} if kind == "melody" else {"window": 1500}
    config = dataclasses.replace(
        CONFIGS[kind], levels=4, codebook_size=64, positions="sinusoidal", **window
    )
    params = filled(forms.abstract(config))
    return MusicGen(config, "delay", params, codec(MUSICGEN), small_folders.text_encoder(text))


def sound(path: Path, seconds: float, seed: int = 0) -> None:
    """A chord that decays, and a little noise."""
    rng, time = np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * f * time) for f in rng.uniform(100, 2000, 3))
    samples = 0.1 * tones * np.exp(-time) + 0.01 * rng.normal(size=len(time))
    soundfile.write(path, samples.astype(np.float32), RATE)
