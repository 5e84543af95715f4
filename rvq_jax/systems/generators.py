"""Models that make audio of captions, whichever their kind: what a folder holds, and how to ask."""

from pathlib import Path

from rvq_jax import files
from rvq_jax.systems import magnet, soundstorm
from rvq_jax.systems.magnet import MAGNeT
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.soundstorm import SoundStorm

Generator = MusicGen | SoundStorm | MAGNeT
KINDS = {soundstorm.KIND: SoundStorm, magnet.KIND: MAGNeT}


def load_generator(path: str | Path) -> Generator:
    """The model in a folder: a MusicGen, SoundStorm or MAGNeT.

    Raises UserError if it is none of them, parts are missing, or weights do not fit.
    """
    kind = files.load_config(path).get("model")
    found = KINDS.get(kind, MusicGen) if isinstance(kind, str) else MusicGen
    return found.load(path)
