"""Audiocraft's token models (MusicGen, AudioGen, MAGNeT): config, pattern and names of tensors.

As in facebookresearch/audiocraft: a state_dict.bin holds the weights under "best_state" and under
"xp.cfg" the text of the config that trained them, which its parts' sizes follow from.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rvq_jax import config as configs
from rvq_jax import patterns
from rvq_jax.audio.chroma import HOP
from rvq_jax.convert import audiocraft_config, audiocraft_magnet
from rvq_jax.convert.audiocraft_config import section
from rvq_jax.convert.audiocraft_magnet import Generation
from rvq_jax.errors import READING, UserError, shown
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.model import LMConfig

Tensors = dict[str, np.ndarray]

HEAD = 64  # features of a head where no config says how many heads there are
KIND = "transformer_lm"  # of MusicGen and AudioGen, by lm_model
SECONDS = 30.0  # that all published models but AudioGen's were trained on at once
CONDITIONERS = "condition_provider.conditioners."
TEXT, MELODY = f"{CONDITIONERS}description.output_proj", f"{CONDITIONERS}self_wav.output_proj"
# What is computed, or frozen and another's.
DROPPED = (f"{CONDITIONERS}self_wav.chroma.", f"{CONDITIONERS}description.t5.")
DECODER = "decoder.model.decoder."
RULES = [
    (rf"^{re.escape(TEXT)}\.", "enc_to_dec_proj."),
    (rf"^{re.escape(MELODY)}\.", "audio_enc_to_dec_proj."),
    (r"^emb\.(\d+)\.", rf"{DECODER}embed_tokens.\1."),
    (r"^linears\.(\d+)\.", r"decoder.lm_heads.\1."),
    (r"^out_norm\.", f"{DECODER}layer_norm."),
    (r"^transformer\.layers\.", f"{DECODER}layers."),
    (r"\.cross_attention\.", ".encoder_attn."),
    (r"_attn\.mha\.", "_attn."),
    (r"\.linear([12])\.", r".fc\1."),
    (r"\.norm1\.", ".self_attn_layer_norm."),
    (r"\.norm_cross\.", ".encoder_attn_layer_norm."),
    (r"\.norm2\.", ".final_layer_norm."),
]
# What this library's layers are like; a config that says otherwise is another model's.
FIXED = {
    ("transformer_lm",): {
        "activation": "gelu",
        "kv_repeat": 1,
        "max_period": 10_000,
        "norm": "layer_norm",
        "norm_first": True,
        "past_context": None,
        "positional_embedding": "sin",
        "positional_scale": 1,
    },
    ("fuser",): {"cross_attention_pos_emb": False},
    ("conditioners", "self_wav", "chroma_stem"): {"argmax": True, "radix2_exp": 14},
}


@dataclass(frozen=True)
class Dataset:
    """What xp.cfg says of the crops."""

    segment_duration: float | None = None  # seconds


class Original(NamedTuple):
    """A token model as its file describes it."""

    lm: LMConfig | MaskedLMConfig  # its window and melody frames not yet known
    pattern: str | None  # None of a MAGNeT, which has none
    tensors: Tensors  # float32, under transformers' names
    seconds: float  # it was trained on at once
    text: str  # the name of its text encoder, such as t5-base; "" if it is not said
    generation: Generation | None  # how a MAGNeT decodes; None of the others


def is_token_model(tensors: Tensors) -> bool:
    """Whether these are the weights of a token model, and not of a codec."""
    return "emb.0.weight" in tensors and "linears.0.weight" in tensors


def read(tensors: Tensors, beside: dict, path) -> Original:
    """What the file `path` holds: its tensors and what lies beside them.

    Its models attend to the padding of captions, ours do not (`attend_padding` is left False): a
    caption alone has none, and both draw from the same distribution. Raises UserError for a config
    that cannot be read, layers that this library lacks, or a pattern without a name.
    """
    config = audiocraft_config.read(beside, path)
    kind = config.get("lm_model", KIND)
    if kind not in (KIND, audiocraft_magnet.KIND):
        raise UserError(
            f"{path}: lm_model {shown(kind)} in its xp.cfg is not supported, only {KIND!r} and "
            f"{audiocraft_magnet.KIND!r}"
        )
    audiocraft_config.check(config, FIXED, path)
    said = section(config, "transformer_lm")
    sizes = _sizes(tensors, said, path)
    seconds = audiocraft_config.fields(Dataset, section(config, "dataset"), path).segment_duration
    text = section(config, "conditioners", "description", "t5").get("name", "")
    if kind == KIND:
        audiocraft_config.check(config, {("transformer_lm",): {"causal": True}}, path)
        name = f"{MELODY}.weight"
        melody = _shape(tensors, name, path)[1] if name in tensors else None
        lm = configs.make(LMConfig, f"{path}: its tensors", **sizes, melody_bins=melody)
        found = section(config, "codebooks_pattern")
        pattern, generation = _pattern(found, said.get("q_modeling"), lm.levels, path), None
    else:
        (lm, generation), pattern = audiocraft_magnet.read(config, sizes, path), None
    text = text if isinstance(text, str) else ""
    return Original(lm, pattern, _renamed(tensors), seconds or SECONDS, text, generation)


def melody_frames(seconds: float, rate: int) -> int:
    """Frames of the chromagram of so much audio."""
    return int(seconds * rate) // HOP + 1


def _sizes(tensors: Tensors, said: dict, path) -> dict:
    """Fields as the tensors' shapes tell them; how they are cut into heads they do not."""
    levels = _count(tensors, r"emb\.(\d+)\.weight")
    layers = _count(tensors, r"transformer\.layers\.(\d+)\..+")
    ids, dim = _shape(tensors, "emb.0.weight", path)
    hidden, _ = _shape(tensors, "transformer.layers.0.linear1.weight", path)
    _, text_dim = _shape(tensors, f"{TEXT}.weight", path)
    heads = said.get("num_heads", max(1, dim // HEAD))
    if not (isinstance(heads, int) and 0 < heads <= dim and dim % heads == 0):
        raise UserError(f"{path}: {dim} features cannot be cut into num_heads {shown(heads)}")
    return {
        "levels": levels,
        "codebook_size": ids - 1,
        "dim": dim,
        "layers": layers,
        "heads": heads,
        "mlp_dim": hidden,
        "positions": "sinusoidal",
        "text_dim": text_dim,
    }


def _count(tensors: Tensors, pattern: str) -> int:
    found = [re.fullmatch(pattern, name) for name in tensors]
    return len({match[1] for match in found if match})


def _shape(tensors: Tensors, name: str, path) -> tuple[int, int]:
    if name not in tensors or tensors[name].ndim != 2 or 0 in tensors[name].shape:
        raise UserError(
            f"{path} holds no token model that reads captions: {name} is missing or no matrix"
        )
    return tensors[name].shape


def _pattern(said: dict, older, levels: int, path) -> str:
    """Our name of the pattern that makes the same table; older: where it stood before."""
    frames = 2 * levels + 1  # that tell all tables of so many levels apart
    modeling = said.get("modeling") or older or "delay"
    known = shown(modeling)
    own = section(said, modeling) if isinstance(modeling, str) else {}
    try:
        table = _table(modeling, own, levels, frames)
    except READING as error:
        raise UserError(f"{path}: its codebooks_pattern {known}: {error}") from None
    # Tables of few levels have several names: the delays', which transformers knows, come first.
    for name in sorted(patterns.NAMES, key=lambda name: "delay" not in name):
        try:
            ours = patterns.named(name, levels, frames).step_of
        except ValueError:  # a stereo pattern of an odd number, groups that do not fit
            continue
        if np.array_equal(ours, table):
            return name
    raise UserError(
        f"{path}: its codebooks_pattern {known} {shown(own)} has no name here; known: "
        f"{', '.join(patterns.NAMES)}"
    )


def _table(modeling, own: dict, levels: int, frames: int) -> np.ndarray:
    """The step of each code `[K, F]`, as audiocraft's provider of that name lays it out."""
    delays = _numbers(own, "delays")
    if modeling == "parallel":
        return patterns.parallel(levels, frames).step_of
    if modeling == "delay":
        if own.get("flatten_first") or own.get("empty_initial"):
            raise ValueError("flatten_first and empty_initial are not supported")
        return patterns.delay(levels, frames, delays).step_of
    if modeling in ("coarse_first", "valle"):
        return patterns.coarse_first(levels, frames, delays).step_of
    if modeling == "musiclm":
        group = own.get("group_by", 2)
        if group not in range(1, levels + 1):
            raise ValueError(f"group_by must be from 1 to {levels}, got {shown(group)}")
        return patterns.musiclm(levels, frames, group).step_of
    if modeling == "unroll":
        inner = _numbers(own, "flattening") or list(range(levels))
        if delays and any(delays):
            raise ValueError("delays of levels that are unrolled are not supported")
        if len(inner) != levels:
            raise ValueError(f"flattening must have one entry per level: {len(inner)} for {levels}")
        steps = np.array(inner)[:, None] + np.arange(frames)[None] * (max(inner) + 1)
        return patterns.custom(steps).step_of
    raise ValueError("it is not known")


def _numbers(own: dict, name: str) -> list[int] | None:
    found = own.get(name)
    if found is None:
        return None
    if not (isinstance(found, list) and all(isinstance(i, int) and 0 <= i < 1000 for i in found)):
        raise ValueError(f"{name} must be whole numbers below 1000, got {shown(found)}")
    return found


def _renamed(tensors: Tensors) -> Tensors:
    """Transformers' names; the one projection of queries, keys and values is split."""
    found = {}
    for name, value in tensors.items():
        if name.startswith(DROPPED):
            continue
        for pattern, new in RULES:
            name = re.sub(pattern, new, name)
        value = value.astype(np.float32) if value.dtype.kind == "f" else value
        if name.endswith(".in_proj_weight") and len(value) % 3 == 0:
            stem = name.removesuffix("in_proj_weight")
            for part, rows in zip("qkv", np.split(value, 3), strict=True):
                found[f"{stem}{part}_proj.weight"] = rows
        else:
            found[name] = value
    return found
