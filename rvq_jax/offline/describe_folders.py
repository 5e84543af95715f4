"""What runs, token models, datasets, code caches and audio files hold, as plain values to print."""

import json
import math
from pathlib import Path

import jax

from rvq_jax import builtin, files, npz, opening
from rvq_jax.audio import io
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import READING, UserError, reading
from rvq_jax.offline import describe
from rvq_jax.systems import generators, semantic
from rvq_jax.systems.generators import load_generator
from rvq_jax.systems.semantic import SemanticModel
from rvq_jax.systems.soundstorm import SoundStorm
from rvq_jax.systems.tokenizer import PIECES, TOKENIZER
from rvq_jax.systems.valle import VALLE
from rvq_jax.train.checkpoint import steps_in
from rvq_jax.train.codes import MUSICGENS

LOG, CHECKPOINTS, MODEL = "metrics.jsonl", "checkpoints", "model"
TAIL = 1 << 16  # bytes of a log, in which its last line is
SPLITS = "train", "valid", "test"


def anything(path: str | Path) -> dict:
    """Of what commands write and read.

    Args:
      path: of a codec, a token model, a run, one of its checkpoints, a dataset, a code cache, an
        audio file or a file of codes.

    Returns:
      Values by name; the first says what it is.

    Raises:
      UserError: it is none of them, or is damaged.
    """
    path = builtin.folder(path)
    if path.is_file():
        return _file(path)
    if not path.is_dir():
        raise UserError(f"{path} is not there; check the name")
    if (path / "records").is_dir() and (path / "source.json").is_file():
        return _dataset(path)
    if path.absolute().parent.name == CHECKPOINTS and path.name.isdecimal():
        return _checkpoint(path)
    fields = files.load_config(path)
    if isinstance(fields.get("loop"), dict) and "optimizer" in fields:
        return _run(path, fields)
    kinds = MUSICGENS | generators.KINDS.keys() | {semantic.KIND}
    if {f"{fields.get(name)}" for name in ("model", "model_type")} & kinds:
        return _token_model(path)
    return describe.folder(path)


def _file(path: Path) -> dict:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _code_cache(path)
    if suffix not in io.SUFFIXES:
        return describe.file(path)
    audio_SC, rate = io.read(path)
    return {
        "audio": path.name,
        "rate": rate,
        "channels": audio_SC.shape[1],
        "samples": len(audio_SC),
        "seconds": len(audio_SC) / rate,
        "bytes": path.stat().st_size,
    }


def _code_cache(path: Path) -> dict:
    with npz.reading(path, "a file of arrays", "name another") as arrays:
        if not {"codes", "lengths"} <= {*arrays}:
            raise UserError(f"{path} holds no codes, but arrays of something else: name its folder")
    codes = CodeSet.load(path)
    frames = sum(codes_KF.shape[1] for codes_KF in codes.codes)
    beside = {
        "melody_bins": codes.melody_bins,
        "semantic_size": codes.semantic_size,
        "semantic_ratio": codes.semantic_ratio,
    }
    return {
        "code_cache": path.name,
        "records": len(codes),
        "minutes": frames / codes.frame_rate / 60,
        "frame_rate": codes.frame_rate,
        "levels": len(codes.codes[0]),
        "codebook_size": codes.codebook_size,
        "captions": sum(map(bool, codes.captions)),
        "labels": len({*codes.labels} - {""}),
        **{name: value for name, value in beside.items() if value is not None},
        "codec_hash": (codes.codec or "unknown")[:16],
        "bytes": path.stat().st_size,
    }


def _dataset(path: Path) -> dict:
    from rvq_jax.data import builder  # which takes seconds to import

    source = _json(path / "source.json", "what a dataset is of")
    found = {"dataset": path.name, "rate": source.get("rate"), "channels": source.get("channels")}
    for split in SPLITS:
        try:
            found[f"{split}_clips"] = len(builder.open_split(path, split))
        except UserError:  # a split that is not there; a dataset without any is none
            found[f"{split}_clips"] = 0
    if not any(found[f"{split}_clips"] for split in SPLITS):
        raise UserError(f"{path} has no clips that can be read; `rvq-jax data build` makes it anew")
    caches = sorted(p.name for p in path.glob("*.npz") if p.name != semantic.TOKENIZER)
    return found | {"code_caches": ", ".join(caches) or "none"}


def _checkpoint(path: Path) -> dict:
    note = _json(path.with_name(f"{path.name}.json"), "the note of a checkpoint")
    return {
        "checkpoint": path.name,
        "run": str(path.parent.parent),
        "loss": note.get("loss"),
        "heldout_loss": note.get("heldout"),
        "bytes": sum(part.stat().st_size for part in path.rglob("*") if part.is_file()),
    }


def _run(path: Path, fields: dict) -> dict:
    last = _last_line(path / LOG)
    steps = steps_in(path / CHECKPOINTS)
    found = {
        "run": path.name,
        "updates": last.get("step", 0),
        "of": fields["loop"].get("steps"),
        "loss": last.get("loss"),
        "seconds": last.get("seconds"),
        "checkpoints": ", ".join(map(str, steps)) or "none",
    }
    if not (path / MODEL / "config.json").is_file():
        return found | {"model": "none yet: it is made at the end"}
    return found | anything(path / MODEL)


def _json(path: Path, what: str) -> dict:
    with reading(path, what):
        found = json.loads(opening.read_bytes(path))
        if not isinstance(found, dict):
            raise ValueError("it holds no object")
        return found


def _last_line(log: Path) -> dict:
    """The last whole line of a run's log; nothing where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            lines = file.read().splitlines()
    except READING:
        return {}
    for line in reversed(lines):
        try:
            found = json.loads(line)
        except READING:
            continue
        if isinstance(found, dict):
            return found
    return {}


def _token_model(path: Path) -> dict:
    kind = files.load_config(path).get("model")
    model = SemanticModel.load(path) if kind == semantic.KIND else load_generator(path)
    lm = model.lm if isinstance(model, SemanticModel) else model
    config, codec = lm.config, lm.codec
    rate = model.frame_rate if isinstance(model, SemanticModel) else None
    rate = codec.config.frame_rate if codec is not None else rate
    found = {
        "model": semantic.KIND if isinstance(model, SemanticModel) else generators.kind(model),
        "levels": config.levels,
        "codebook_size": config.codebook_size,
        "dim": config.dim,
        "layers": config.layers,
        "heads": config.heads,
        "parameters": _count(lm.params),
    }
    if generators.speaks(model):
        found["speaks"] = True
    if isinstance(model, VALLE):
        found["parameters_of_the_first_level"] = _count(model.first.lm.params)
    if isinstance(model, SoundStorm) and model.semantic is not None:
        found["parameters_of_semantic_tokens"] = _count(model.semantic.lm.params)
    if (text := getattr(lm, "text", None)) is not None:
        # Without one of these it takes ids of tokens alone.
        of = [name for name in (TOKENIZER, PIECES) if name in text.tokenizer.files]
        found["text_encoder"] = f"t5 of {text.config.dim} features"
        found["tokenizer"] = ", ".join(of) or "none"
    if getattr(config, "melody_bins", None) is not None:
        found["melody_bins"] = config.melody_bins
    if config.window is not None and rate:
        found["longest_seconds"] = config.window / rate
    if codec is not None:
        sound = codec.config
        found |= {"codec": codec.name, "rate": sound.rate, "channels": sound.channels}
        found |= {"frame_rate": sound.frame_rate, "kbps": codec.kbps()}
    return found | {"bytes": sum(p.stat().st_size for p in path.rglob("*") if p.is_file())}


def _count(params) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
