"""Audiocraft's state_dict.bin of a token model, with a codec and a T5, as a MusicGen."""

import dataclasses
from pathlib import Path

import numpy as np

from rvq_jax import config as configs
from rvq_jax.convert import audiocraft
from rvq_jax.errors import UserError
from rvq_jax.lm.model import LMConfig
from rvq_jax.systems import published_codecs
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.musicgen import MusicGen, folder
from rvq_jax.systems.text_encoder import TextEncoder


def load(path: str | Path, codec: str | Path | None, text: str | Path | None) -> MusicGen:
    """`of_file` of a file that is read first."""
    return of_file(*published_codecs.read(path), path, codec, text)


def of_file(
    tensors: dict[str, np.ndarray],
    beside: dict,
    path: str | Path,
    codec: str | Path | None,
    text: str | Path | None,
) -> MusicGen:
    """The model of a file's tensors and of what lies beside them.

    Args:
      tensors: arrays by name, as `published_codecs.read` gives them.
      beside: all else in the file.
      path: where they are from, for errors.
      codec: a codec's folder, or a published file such as compression_state_dict.bin.
      text: a folder of the T5 of transformers that the model was trained with.

    Returns:
      The model.

    Raises:
      UserError: a part that is not given, parts that do not fit each other, or as
        `convert.audiocraft.read` does.
    """
    found = audiocraft.read(tensors, beside, path)
    lm, name = found.lm, found.text or f"a T5 of {found.lm.text_dim} features"
    if codec is None or text is None:
        raise UserError(
            f"{path} is a token model alone; give its codec with --codec (a codec folder or "
            f"compression_state_dict.bin) and its text encoder with --text (a folder of {name})"
        )
    codec_path, text_path = Path(codec), Path(text)
    made = Codec.load(codec_path) if codec_path.is_dir() else published_codecs.load(codec_path)
    encoder = TextEncoder.load(text_path)
    if encoder.config.dim != lm.text_dim:
        raise UserError(
            f"{text_path} gives {encoder.config.dim} features and {path} reads {lm.text_dim}; give "
            f"{name} with --text"
        )
    config = made.config
    ways = lm.levels / config.levels
    if config.codebook_size != lm.codebook_size or (ways > 1 and ways != 2):
        raise UserError(
            f"{codec_path} has {config.levels} levels of {config.codebook_size} codes and {path} "
            f"{lm.levels} of {lm.codebook_size}; give its own codec with --codec"
        )
    sizes = {"window": round(found.seconds * config.frame_rate)}
    if lm.melody_bins:
        sizes["melody_frames"] = audiocraft.melody_frames(found.seconds, config.rate)
    lm = configs.make(LMConfig, f"{path}", **(dataclasses.asdict(lm) | sizes))
    params = folder.of_tensors(lm, found.tensors, path)
    return MusicGen(lm, found.pattern, params, made, encoder)
