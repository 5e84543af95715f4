"""MusicGen's folders: our own, and those of transformers both ways."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from rvq_jax import config as configs
from rvq_jax import files, limits, patterns
from rvq_jax.convert import encodec, folder, layout, musicgen, names, processors, t5, tensors
from rvq_jax.convert.fields import kind_of
from rvq_jax.errors import READING, UserError, shown
from rvq_jax.lm import forms
from rvq_jax.lm import precision as precisions
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.lm.precision import Precision
from rvq_jax.opening import read_bytes
from rvq_jax.systems import codec as codecs
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.decoding.devices import place_params
from rvq_jax.systems.text_encoder import TextEncoder
from rvq_jax.typing import Array

KIND = "musicgen"
ALONE = "alone"  # in config.json of a token model without a codec
GENERATION = "generation_config.json"
WINDOW = 1500  # frames that MusicGens are trained on at once
PARTS = "text_encoder.", "audio_encoder."

Loaded = tuple[LMConfig, str, nnx.State, Codec | None, TextEncoder | None]


def load(path: str | Path, precision: Precision = "float32", mesh: Mesh | None = None) -> Loaded:
    """Config, pattern, parameters, codec and text encoder of a folder.

    Args:
      path: the folder.
      precision: as of `MusicGen.load`.
      mesh: as of `MusicGen.load`.

    Returns:
      The parts.

    Raises:
      UserError: if it is no token model, a part is missing, or weights do not fit or are not
        finite.
    """
    config, pattern, params, codec, text = _read(path)
    params = place_params(params, precision, mesh)
    return precisions.computed(config, precision), pattern, params, codec, text


def _read(path: str | Path) -> Loaded:
    """As of `load`, parameters not on any device yet."""
    path = files.model_folder(path)
    data = files.load_config(path)
    if kind_of(data) in musicgen.WHOLE | musicgen.ALONE:
        return _load_published(path, data)
    kind = data.pop("model", None) or data.get("model_type")
    if kind != KIND:
        kind = kind if isinstance(kind, str) else "model of unknown kind"
        raise UserError(f"{path} holds a {kind}, not a musicgen")
    pattern = data.pop("pattern", "")
    if not isinstance(pattern, str):
        raise UserError(f"{path}/config.json: pattern must be text, got {shown(pattern)}")
    pattern, alone = patterns.canonical(pattern[:80]), data.pop(ALONE, False) is True
    config = configs.from_dict(LMConfig, data, f"{path}/config.json")
    _leaves(config, path)
    params = files.load_weights(path, forms.abstract(config), _of_0_1)
    check_finite(files.named(params), path)
    text = TextEncoder.load(path / "text") if config.text_dim else None
    codec = None if alone else Codec.load(path / "codec")
    return config, pattern, params, codec, text


def save(
    path: str | Path,
    config: LMConfig,
    pattern: str,
    params: nnx.State,
    codec: Codec | None,
    text: TextEncoder | None,
) -> None:
    """Writes a folder, whole or not at all: in transformers' format where it has one.

    Args:
      path: the folder.
      config: of the token model.
      pattern: name of its pattern.
      params: its parameters, with lists of layers.
      codec: its codec, written into the same folder; None for a token model alone.
      text: its frozen text encoder, written into the same folder.

    Raises:
      UserError: a place that cannot be written to; a model in fewer bits.
    """
    precisions.check_whole(params, "saved")
    with files.writing_folder(path) as target:
        if _save_published(target, config, pattern, params, codec, text):
            return
        data = {"model": KIND, "pattern": pattern, **configs.to_dict(config)}
        if codec is None:
            data[ALONE] = True
        files.save_folder(target, data, params)
        if codec is not None:
            codec.save(target / "codec")
        if text is not None:
            text.save(target / "text")


def _of_0_1(name: str) -> str:
    """The name of an array today, of any version."""
    first, _, rest = name.partition("/")
    if first == "heads" and rest in ("", "value"):
        return f"heads/weight/{rest}"
    first = {
        "captions": "readers/text",
        "text": "readers/text",
        "melody": "readers/melody/project",
    }.get(first, first)
    return f"{first}/{rest}"


def _load_published(path: Path, data: dict) -> Loaded:
    where = f"{path}/config.json"
    parts = musicgen.from_fields(data, where)
    window = _window(path)
    config = dataclasses.replace(parts.lm, window=window)
    found = names.canonical(tensors.load_folder(path))
    found = {n: x for n, x in found.items() if not n.endswith(musicgen.COMPUTED)}
    alone = parts.codec is None
    inner = [{n.removeprefix(p): found.pop(n) for n in [*found] if n.startswith(p)} for p in PARTS]
    params = of_tensors(config, found, path, "" if alone else "decoder.")
    if alone:
        return config, parts.pattern, params, None, None
    for part, part_tensors in zip(PARTS, inner, strict=True):
        check_finite(part_tensors, path)
        if not part_tensors:
            raise UserError(f"{path} has no tensors {part}*: get the whole folder of the model")
    text = TextEncoder.of_tensors(parts.text, inner[0], path)
    codec_config = folder.config_of(parts.codec, path, codecs.leaf_shapes)
    leaves = folder.from_tensors(codec_config, inner[1], path, codecs.leaf_shapes)
    return config, parts.pattern, params, Codec.of_leaves(codec_config, leaves), text


def of_tensors(
    config: LMConfig | MaskedLMConfig, found: dict, path: str | Path, prefix: str = "decoder."
) -> nnx.State:
    """Parameters of tensors under transformers' names.

    Args:
      config: of the token model, which may be a MAGNeT.
      found: arrays by name.
      path: where they are from, for errors.
      prefix: of the names; "" for the token model alone.

    Returns:
      Parameters with lists of layers, of numpy.

    Raises:
      UserError: tensors that do not fit the config, or are not finite.
    """
    check_finite(found, path)
    places = musicgen.layout(config, prefix)
    wanted = layout.shapes(places, _leaves(config, path))
    read = layout.read(places, tensors.take(found, wanted, path))
    return _of_leaves(config, read)


def beyond(
    config: LMConfig, pattern: str, codec: Codec | None, text: TextEncoder | None
) -> str | None:
    """What transformers' MusicGen has no place for, in words.

    Args:
      config: of the token model.
      pattern: name of its pattern.
      codec: its codec.
      text: its frozen text encoder.

    Returns:
      A clause that names the field, or the part; None for a model that is written in its format.
    """
    if reason := musicgen.beyond(config, pattern):
        return reason
    if codec is None and text is None:
        what = f"only {config.dim}, its dim, where there is no text encoder"
        has = f"transformers' format has no text_dim {config.text_dim}, {what}"
        return None if config.text_dim == config.dim else has
    if codec is None or text is None:
        return "transformers' format has no model of a codec or a text encoder alone, only of both"
    if not isinstance(codec.config, encodec.CONFIG):
        # Those of DAC and Mimi could be read there, but its `generate` fails on them.
        kind = type(codec.config).__name__
        return f"transformers' format has no codec {kind} in a MusicGen, only EnCodec's kind"
    if codec.config.channels > 1 and musicgen.PATTERNS[pattern] > 1:
        return f"transformers' format has no {pattern} of a stereo codec, only of a mono one"
    reason = folder.beyond(codec.config)
    return reason and f"its codec: {reason}"


def _save_published(path: Path, config, pattern, params, codec, text) -> bool:
    """Whether transformers has words for the model; then it is written."""
    if beyond(config, pattern, codec, text):
        return False
    fields = musicgen.to_fields(config, pattern)
    written = {_short(n): np.asarray(x) for n, x in files.named(params).items()}
    beside = {GENERATION: musicgen.generation(config)}
    if codec is None:
        out = layout.write(musicgen.layout(config, ""), written)
        tensors.save_folder(path, fields, out, beside)
        return True
    coded = folder.to_tensors(codec.config, codec.leaves)
    channels = codec.config.channels * (2 if config.levels > codec.config.levels else 1)
    beside[processors.FILE] = processors.of_musicgen(config, codec.config, channels)
    out = layout.write(musicgen.layout(config), written)
    out |= {f"text_encoder.{n}": x for n, x in text.tensors.items()}
    out |= {f"audio_encoder.{n}": x for n, x in coded[1].items()}
    whole = musicgen.whole(config, fields, t5.to_fields(text.config), coded[0])
    tensors.save_folder(path, whole, out, beside)
    text.save_tokenizer(path)
    return True


def _window(path: Path) -> int:
    """Frames a published model was trained on, as its generation_config.json says, or `WINDOW`."""
    try:
        said = {"window": json.loads(read_bytes(path / GENERATION))["max_length"]}
        return configs.from_dict(LMConfig, said, GENERATION).window or WINDOW
    except (*READING, UserError):
        return WINDOW


def check_finite(found: dict[str, Array], path: Path) -> None:
    """Raises UserError for arrays by name, of a folder, with numbers that are not finite."""
    for name, array in found.items():
        if np.issubdtype(np.asarray(array).dtype, np.floating) and not np.isfinite(array).all():
            raise UserError(f"{path}: {_short(name)} has numbers that are not finite; get it again")


def _leaves(config: LMConfig | MaskedLMConfig, path: str | Path) -> dict:
    """Shapes of a model's arrays by name; raises UserError if no model of it can be made."""

    def shapes():
        return {_short(name): leaf for name, leaf in files.named(forms.abstract(config)).items()}

    return limits.laid_out(shapes, f"{path}/config.json")


def _of_leaves(config: LMConfig | MaskedLMConfig, leaves: dict) -> nnx.State:
    structure = jax.tree.structure(forms.abstract(config))
    return structure.unflatten(leaves[_short(name)] for name in files.named(forms.abstract(config)))


def _short(name: str) -> str:
    return name.removesuffix("/value")
