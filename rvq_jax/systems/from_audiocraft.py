"""Audiocraft's state_dict.bin of a token model, with a codec and a T5: a MusicGen or a MAGNeT."""

import dataclasses
from pathlib import Path

import numpy as np

from rvq_jax import config as configs
from rvq_jax.convert import audiocraft
from rvq_jax.convert.audiocraft_magnet import Generation
from rvq_jax.errors import UserError
from rvq_jax.lm.model import LMConfig
from rvq_jax.systems import published_codecs
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.decoding.devices import place_params
from rvq_jax.systems.magnet import Decoding, MAGNeT
from rvq_jax.systems.musicgen import MusicGen, folder
from rvq_jax.systems.text_encoder import TextEncoder


def load(path: str | Path, codec: str | Path | None, text: str | Path | None) -> MusicGen | MAGNeT:
    """`of_file` of a file that is read first."""
    return of_file(*published_codecs.read(path), path, codec, text)


def of_file(
    tensors: dict[str, np.ndarray],
    beside: dict,
    path: str | Path,
    codec: str | Path | None,
    text: str | Path | None,
) -> MusicGen | MAGNeT:
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
    most = 2 if found.generation is None else 1  # channels that a MusicGen may code apart
    if config.codebook_size != lm.codebook_size or (ways > 1 and ways != most):
        raise UserError(
            f"{codec_path} has {config.levels} levels of {config.codebook_size} codes and {path} "
            f"{lm.levels} of {lm.codebook_size}; give its own codec with --codec"
        )
    sizes = {"window": round(found.seconds * config.frame_rate)}
    if isinstance(lm, LMConfig) and lm.melody_bins:
        sizes["melody_frames"] = audiocraft.melody_frames(found.seconds, config.rate)
    lm = configs.make(type(lm), f"{path}", **(dataclasses.asdict(lm) | sizes))
    params = place_params(folder.of_tensors(lm, found.tensors, path))
    if found.generation is None:
        return MusicGen(lm, found.pattern, params, made, encoder)
    return MAGNeT(lm, params, made, encoder, _decoding(found.generation, lm.levels, path))


def _decoding(said: Generation, levels: int, path: str | Path) -> Decoding:
    """How a MAGNeT decodes, in our words; raises UserError for steps of other levels."""
    steps = said.decoding_steps
    if steps is not None and len(steps) != levels:
        raise UserError(
            f"{path}: its decoding_steps are of {len(steps)} levels, its tensors of {levels}"
        )
    # There top-p takes the place of top-k, here both hold.
    return Decoding(
        iterations=steps,
        guidance_scale=(said.max_cfg_coef, said.min_cfg_coef),
        temperature=said.temp,
        top_k=0 if said.top_p else said.top_k,
        top_p=said.top_p,
    )
