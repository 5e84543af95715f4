"""What an evaluation of token models is of: models from run folders, held-out clips from data."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rvq_jax import files, opening
from rvq_jax.data import builder
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import LeftOut, UserError, reading
from rvq_jax.evaluate.pieces import check_apart
from rvq_jax.lm.precision import Precision
from rvq_jax.systems.generators import Generator, load_generator
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.soundstorm import SoundStorm
from rvq_jax.train.codes import Semantic, cached_codes, sound_of

CODES, DATASET = "heldout.npz", "records"


class OpenedModel(NamedTuple):
    """A token model, and how it was trained as far as that is known."""

    model: Generator
    frames: int | None  # of the crops that it was trained on


class Heldout(NamedTuple):
    """Held-out clips: codes, and audio if there is any."""

    codes: CodeSet
    audio: Sequence[dict] | None  # records in the order of the codes
    source: str  # what they are called
    left_out: LeftOut | None = None  # files of a folder that cannot be used


def open_model(path: str | Path, precision: Precision = "float32") -> OpenedModel:
    """The token model in a folder: a model's own, `RUN/model`, or that of a run, `RUN`.

    precision: as of `MusicGen.load`. Raises UserError if there is none (see `load_generator`).
    """
    path = files.model_folder(path)
    return OpenedModel(
        load_generator(path, precision=precision), _crop(path.parent / "config.json")
    )


def open_heldout(path: str | Path, models: Sequence[Generator], out: str | Path) -> Heldout:
    """The held-out clips that a path means.

    Args:
      path: a code cache (.npz); a dataset of `rvq-jax data build`, whose heldout.npz is taken if
        there is one; or a folder of audio, of which all clips are held out but those that its
        metadata.csv has in split train.
      models: that are to be evaluated, with the codec of the first of which audio is encoded; with
        the melody and the semantic tokens that any of them reads.
      out: folder in which what is made of audio is kept.

    Raises:
      UserError: no such file or folder, one without audio, or audio of models without a codec.
    """
    path, out = Path(path), Path(out)
    if not path.exists():
        raise UserError(f"{path} is not there; give held-out codes (.npz) or a folder of audio")
    if path.is_file() or (path / CODES).is_file():
        cache = path if path.is_file() else path / CODES
        is_split = cache.name == CODES and (cache.parent / DATASET).is_dir()
        audio = builder.open_split(cache.parent, "heldout") if is_split else None
        return Heldout(CodeSet.load(cache), audio, f"{path}")
    model = next((model for model in models if model.codec is not None), None)
    if model is None:
        raise UserError(f"{path} has audio and the model no codec to encode it; give a {CODES}")
    rate, channels = sound_of(model.codec, None, model.channels)
    dataset, left_out = path, None
    if not (path / DATASET).is_dir():
        check_apart(path, out)
        minimum = model.codec.config.hop
        settings = {"strict": False, "heldout": True}
        dataset = builder.build(path, out / "dataset", rate, channels, minimum, **settings)
        left_out = builder.left_out(dataset)
    elif _rate(dataset) != rate:
        raise UserError(f"{path} is of {_rate(dataset)} Hz, the codec of {rate}; build it anew")
    audio = builder.open_split(dataset, "heldout")
    beside = _melody(models), _semantic(models)
    codes = cached_codes(out / CODES, model.codec, audio, "held-out", *beside)
    if codes.names != [audio[i]["name"] for i in range(len(audio))]:
        raise UserError(f"{out / CODES} is of other clips; choose another --out or delete it")
    return Heldout(codes, audio, f"{path}", left_out)


def _melody(models: Sequence[Generator]) -> int | None:
    """Pitch classes of the melody that one of the models follows."""
    found = (model.config.melody_bins for model in models if isinstance(model, MusicGen))
    return next(filter(None, found), None)


def _semantic(models: Sequence[Generator]) -> Semantic | None:
    """What makes the semantic tokens that one of the models reads, if it has that."""
    stages = (model.semantic for model in models if isinstance(model, SoundStorm))
    return next((stage.tokenizer for stage in stages if stage and stage.tokenizer), None)


def _crop(config: Path) -> int | None:
    """Frames of a run's crops, of a run of token models."""
    if not config.is_file():
        return None
    with reading(config, "the config of a run"):
        data = json.loads(opening.read_bytes(config))
        frames = data.get("frames") if "lm" in data else None
    return frames if isinstance(frames, int) and frames > 0 else None


def _rate(dataset: Path) -> int:
    with reading(dataset / "source.json", "what a dataset is of"):
        return int(json.loads(opening.read_bytes(dataset / "source.json"))["rate"])
