"""Models that make audio of captions, whichever their kind: what a folder holds, and how to ask."""

import inspect
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from rvq_jax import files
from rvq_jax.lm.precision import Precision
from rvq_jax.systems import magnet, soundstorm, valle
from rvq_jax.systems.decoding import windows
from rvq_jax.systems.magnet import MAGNeT
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.options import SAMPLING
from rvq_jax.systems.soundstorm import SoundStorm
from rvq_jax.systems.valle import VALLE
from rvq_jax.typing import Audio

Generator = MusicGen | SoundStorm | MAGNeT | VALLE
KINDS = {soundstorm.KIND: SoundStorm, magnet.KIND: MAGNeT, valle.KIND: VALLE}


def load_generator(
    path: str | Path, *, precision: Precision = "float32", mesh: Mesh | None = None
) -> Generator:
    """The model in a folder, its own or that of its run: a MusicGen, SoundStorm, MAGNeT or VALL-E.

    Args:
      path: the folder.
      precision: as of `MusicGen.load`.
      mesh: as of `MusicGen.load`.

    Returns:
      The model.

    Raises:
      UserError: if it is none of them, parts are missing, or weights do not fit.
    """
    path = files.model_folder(path)
    kind = files.load_config(path).get("model")
    found = KINDS.get(kind, MusicGen) if isinstance(kind, str) else MusicGen
    return found.load(path, precision=precision, mesh=mesh)


def kind(model: Generator) -> str:
    """The name of a MusicGen's pattern, else of the kind that a model is of."""
    if isinstance(model, MusicGen):
        return model.pattern
    return next(name for name, each in KINDS.items() if isinstance(model, each))


def title(model) -> str:
    """A model's system as it was published, with its pattern if it has one."""
    if isinstance(model, VALLE):
        return "VALL-E"
    if isinstance(model, MusicGen):
        return f"{'RQ-Transformer' if model.config.depth else 'MusicGen'} · {model.pattern}"
    return type(model).__name__


def inputs(model) -> tuple[str, ...]:
    """What a model takes beside a text, seconds and `SAMPLING`, by the flags of the commands: a
    voice and its words, a melody, audio that is to be continued, iterations of each level."""
    if speaks(model):
        return "voice", "voice_text"
    if isinstance(model, MusicGen):
        melody = "melody", "text_guidance_scale"
        return "continue", *(melody if model.config.melody_bins else ())
    if isinstance(model, SoundStorm):
        heard = model.semantic is not None and model.semantic.tokenizer is not None
        return *(["continue"] if heard else []), "iterations"
    return ("continue", "iterations") if isinstance(model, MAGNeT) else ()


def iterations(model: SoundStorm | MAGNeT) -> tuple[int, ...]:
    """Of each level, where no others are asked for."""
    if isinstance(model, SoundStorm):
        return soundstorm.default_iterations(model.config)
    return model.iterations


def continued(model: Generator, audio_SC: Audio, seconds: float) -> np.ndarray:
    """What a clip of so many seconds goes on from: the whole frames `[1, S', C]` of audio.

    Raises ValueError if it is shorter than a frame, or leaves nothing to generate.
    """
    config = model.codec.config
    # A frame that the audio ends in would be continued from the silence that fills it.
    samples = len(audio_SC) // config.hop * config.hop
    if samples == 0:
        raise ValueError(f"is shorter than a frame of {config.hop} samples; give a longer one")
    if samples >= int(model.frames(seconds)) * config.hop:
        raise ValueError(
            f"lasts {len(audio_SC) / config.rate:.2f} s, and the seconds, which count it in, are "
            f"{seconds:g}; give more"
        )
    return audio_SC[None, :samples]


def speaks(model) -> bool:
    """Whether a model says texts: it was trained on the words of whole utterances."""
    if isinstance(model, SoundStorm):
        return model.semantic is not None and model.semantic.spelling is not None
    return isinstance(model, VALLE)


def sampling(model) -> dict[str, float | None]:
    """How a model samples where nothing else is asked for.

    Args:
      model: a Generator, or anything else with `stream`.

    Returns:
      `guidance_scale`, `temperature`, `top_k` and `top_p`, 0 for no limit; None for a value that
      changes on the way, as MAGNeT's guidance does.
    """
    if isinstance(model, MAGNeT):
        own = vars(model.defaults)
    else:
        asked = [getattr(model, name, None) for name in ("stream", "generate", "speak")]
        parameters = [inspect.signature(f).parameters for f in asked if f is not None]
        own = {name: x.default for some in parameters for name, x in some.items()}
    return {name: None if isinstance(own[name], tuple) else own[name] or 0 for name in SAMPLING}


def forwards(model: Generator, frames: int, stride: int | None = None) -> int:
    """How many times a model's networks of tokens run for a clip, by the defaults of its kind.

    Args:
      model: that generates it.
      frames: of the clip, in codes.
      stride: frames that every further window of a MusicGen adds; none is further for None.

    Returns:
      Steps of the pattern, or iterations of all levels; of a SoundStorm beside them the steps of
      its semantic model, of a VALL-E steps of the first level and one for each other. A guided step
      counts as one.
    """
    config = model.config
    if isinstance(model, MusicGen):
        window = min(config.window or frames, frames) if stride else frames
        return windows.forwards(model.pattern, config.levels, frames, window, stride or frames)
    if isinstance(model, MAGNeT):
        return sum(iterations(model))
    if isinstance(model, VALLE):
        return frames + config.levels - 1
    tokens = 0 if model.semantic is None else config.semantic_tokens(frames)
    return tokens + sum(iterations(model))
