"""Models that make audio of captions, whichever their kind: what a folder holds, and how to ask."""

import inspect
from pathlib import Path

from rvq_jax import files
from rvq_jax.systems import magnet, soundstorm, valle
from rvq_jax.systems.decoding import windows
from rvq_jax.systems.magnet import MAGNeT
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.soundstorm import SoundStorm
from rvq_jax.systems.valle import VALLE

Generator = MusicGen | SoundStorm | MAGNeT | VALLE
KINDS = {soundstorm.KIND: SoundStorm, magnet.KIND: MAGNeT, valle.KIND: VALLE}

SAMPLING = ("guidance_scale", "temperature", "top_k", "top_p")


def load_generator(path: str | Path) -> Generator:
    """The model in a folder, its own or that of its run: a MusicGen, SoundStorm, MAGNeT or VALL-E.

    Raises UserError if it is none of them, parts are missing, or weights do not fit.
    """
    path = files.model_folder(path)
    kind = files.load_config(path).get("model")
    found = KINDS.get(kind, MusicGen) if isinstance(kind, str) else MusicGen
    return found.load(path)


def kind(model: Generator) -> str:
    """The name of a MusicGen's pattern, else of the kind that a model is of."""
    if isinstance(model, MusicGen):
        return model.pattern
    return next(name for name, each in KINDS.items() if isinstance(model, each))


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
        return sum(model.iterations)
    if isinstance(model, VALLE):
        return frames + config.levels - 1
    tokens = 0 if model.semantic is None else config.semantic_tokens(frames)
    return tokens + sum(soundstorm.default_iterations(config))
