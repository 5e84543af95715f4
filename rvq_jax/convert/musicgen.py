"""MusicGen folders of transformers: their config and the names of the token model's tensors.

MusicgenForConditionalGeneration and its melody form hold a text encoder, a codec and the token
model ("decoder"); MusicgenForCausalLM is the token model alone.
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

from rvq_jax import limits
from rvq_jax.config import make
from rvq_jax.convert import t5
from rvq_jax.convert.fields import checked, kind_of, refuse, without_place
from rvq_jax.convert.layout import MATRIX, Layout, Place
from rvq_jax.errors import UserError
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.lm.t5 import T5Config

WHOLE = {"musicgen": "Musicgen", "musicgen_melody": "MusicgenMelody"}
ALONE = {f"{kind}_decoder": name for kind, name in WHOLE.items()}


@dataclass(frozen=True)
class Fields:
    """transformers' MusicgenDecoderConfig: what says something about the model, with defaults."""

    vocab_size: int = 2048
    num_hidden_layers: int = 24
    ffn_dim: int = 4096
    num_attention_heads: int = 16
    activation_function: str = "gelu"
    hidden_size: int = 1024
    scale_embedding: bool = False
    num_codebooks: int = 4
    audio_channels: int = 1
    pad_token_id: int | None = None
    bos_token_id: int | None = None


@dataclass(frozen=True)
class Melody:
    """What MusicgenMelodyConfig says of the melody."""

    num_chroma: int = 12
    chroma_length: int = 235


IGNORED = (
    "activation_dropout",
    "add_cross_attention",
    "attention_dropout",
    "classifier_dropout",
    "cross_attention_hidden_size",
    "dropout",
    "initializer_factor",
    "layerdrop",
    "max_position_embeddings",
)
PATTERNS = {"delay": 1, "stereo_partial_delay": 2}  # with their channels of audio
PROJECTIONS = {"text": "enc_to_dec_proj", "melody": "audio_enc_to_dec_proj"}  # of conditions
# Tensors of some versions' files that are computed.
COMPUTED = "embed_positions.weights"


class Parts(NamedTuple):
    """What a config.json describes."""

    lm: LMConfig
    pattern: str
    text: T5Config | None
    codec: dict | None  # the fields of its config


def from_fields(fields: dict, where: str) -> Parts:
    """The parts of a folder; raises UserError for fields unknown or beyond this library."""
    kind = kind_of(fields)
    if kind in ALONE:
        lm, pattern = _decoder(fields, where)
        return Parts(lm, pattern, None, None)
    for part in ("text_encoder", "audio_encoder", "decoder"):
        if not isinstance(fields.get(part), dict):
            raise UserError(f"{where} lacks the part {part!r}; get the whole folder of the model")
    if kind_of(fields["text_encoder"]) != "t5":
        refuse(where, "text_encoder", fields["text_encoder"].get("model_type"), "'t5'")
    text = t5.from_fields(fields["text_encoder"], f"{where}: text_encoder")
    lm, pattern = _decoder(fields["decoder"], f"{where}: decoder", text.dim)
    if kind == "musicgen_melody":
        said = {name: fields[name] for name in limits.kinds(Melody) if name in fields}
        m = checked(said, Melody, where)
        lm = dataclasses.replace(lm, melody_bins=m.num_chroma, melody_frames=m.chroma_length)
    return Parts(lm, pattern, text, fields["audio_encoder"])


def _decoder(fields: dict, where: str, text_dim: int | None = None) -> tuple[LMConfig, str]:
    f = checked(fields, Fields, where, IGNORED)
    size, levels = f.vocab_size, f.num_codebooks
    fixed = {"activation_function": "gelu", "scale_embedding": False}
    special = ("pad_token_id", "bos_token_id")
    special = {name: size for name in special if getattr(f, name) is not None}
    for name, value in (fixed | special).items():
        if getattr(f, name) != value:
            refuse(where, name, getattr(f, name), repr(value))
    if f.hidden_size % f.num_attention_heads:
        refuse(where, "hidden_size", f.hidden_size, "multiples of num_attention_heads")
    if f.audio_channels > 2:
        refuse(where, "audio_channels", f.audio_channels, "1 and 2")
    if f.audio_channels == 2 and levels % 2:
        refuse(where, "num_codebooks", levels, "even numbers for two audio_channels")
    config = make(
        LMConfig,
        where,
        levels=levels,
        codebook_size=size,
        dim=f.hidden_size,
        layers=f.num_hidden_layers,
        heads=f.num_attention_heads,
        mlp_dim=f.ffn_dim,
        positions="sinusoidal",
        text_dim=f.hidden_size if text_dim is None else text_dim,
    )
    return config, "stereo_partial_delay" if f.audio_channels == 2 else "delay"


def beyond(config: LMConfig, pattern: str) -> str | None:
    """The field that transformers' MusicGen has no place for, in words; None if there is none.

    How it is computed (`dtype`, `remat`) is no field of it, but its reader's choice.
    """
    c = config
    before = c.text_as == "prefix" and not c.melody_bins
    return without_place(
        [
            ("pattern", pattern, pattern in PATTERNS, " and ".join(PATTERNS)),
            ("text_dim", c.text_dim, bool(c.text_dim), "that of a T5, given by --text"),
            ("block", c.block, c.block == "musicgen", "musicgen"),
            ("positions", c.positions, c.positions == "sinusoidal", "sinusoidal"),
            ("kv_heads", c.kv_heads, not c.kv_heads, "None"),
            ("depth", c.depth, not c.depth, "None"),
            ("text_as", c.text_as, not before, "cross without a melody"),
            ("attend_padding", c.attend_padding, not c.attend_padding, "False"),
            ("end", c.end, not c.end, "False"),
        ]
    )


def to_fields(config: LMConfig, pattern: str) -> dict | None:
    """The config of the token model; None if transformers has no words for it."""
    if beyond(config, pattern):
        return None
    kind = "musicgen_melody_decoder" if config.melody_bins else "musicgen_decoder"
    return {
        "architectures": [f"{ALONE[kind]}ForCausalLM"],
        "model_type": kind,
        "vocab_size": config.codebook_size,
        "num_hidden_layers": config.layers,
        "ffn_dim": config.mlp_dim,
        "num_attention_heads": config.heads,
        "activation_function": "gelu",
        "hidden_size": config.dim,
        "scale_embedding": False,
        "num_codebooks": config.levels,
        "audio_channels": PATTERNS[pattern],
        # As published: no dropout is what the weights were trained with.
        "dropout": 0.0,
        "pad_token_id": config.codebook_size,
        "bos_token_id": config.codebook_size,
    }


def whole(config: LMConfig, decoder: dict, text: dict, codec: dict) -> dict:
    """Makes the config.json of a folder that holds text encoder, codec and token model.

    Args:
      config: sizes of the token model.
      decoder: fields of the token model, as `to_fields` gives them.
      text: fields of the text encoder's config.
      codec: fields of the codec's config.

    Returns:
      The fields of the whole, which are those of a melody model if `config` has `melody_bins`.
    """
    kind = "musicgen_melody" if config.melody_bins else "musicgen"
    melody = {"num_chroma": config.melody_bins, "chroma_length": config.melody_frames}
    return {
        "architectures": [f"{WHOLE[kind]}ForConditionalGeneration"],
        "model_type": kind,
        "is_encoder_decoder": True,
        "text_encoder": text,
        "audio_encoder": codec,
        "decoder": decoder,
        **(melody if config.melody_bins else {}),
    }


def generation(config: LMConfig) -> dict:
    """generation_config.json: MusicGen's published settings."""
    return {
        "bos_token_id": config.codebook_size,
        "decoder_start_token_id": config.codebook_size,
        "do_sample": True,
        "guidance_scale": 3.0,
        "max_length": config.window or 1500,
        "pad_token_id": config.codebook_size,
        "top_k": 250,
    }


def layout(config: LMConfig | MaskedLMConfig, prefix: str = "decoder.") -> Layout:
    """Our leaves' places among the tensors; prefix: "" for the token model alone.

    A MAGNeT's are called as a MusicGen's of its sizes.
    """
    c, inner = config, f"{prefix}model.decoder"
    levels = range(c.levels)
    found = {
        "embed": Place([f"{inner}.embed_tokens.{k}.weight" for k in levels]),
        "heads/weight": Place([f"{prefix}lm_heads.{k}.weight" for k in levels]),
        **_norm("norm", f"{inner}.layer_norm"),
    }
    for spec in c.conditions:
        if spec.projects(c.dim):
            found |= _linear(f"readers/{spec.name}/project", PROJECTIONS[spec.name])
    crosses = any(spec.mechanism == "cross" for spec in c.conditions)
    for i in range(c.layers):
        ours, theirs = f"blocks/{i}", f"{inner}.layers.{i}"
        found |= _norm(f"{ours}/norm_self", f"{theirs}.self_attn_layer_norm")
        found |= _norm(f"{ours}/norm_mlp", f"{theirs}.final_layer_norm")
        found |= _attention(c, f"{ours}/attend_self", f"{theirs}.self_attn")
        if crosses:
            found |= _norm(f"{ours}/norm_cross", f"{theirs}.encoder_attn_layer_norm")
            found |= _attention(c, f"{ours}/attend_cross", f"{theirs}.encoder_attn")
        found[f"{ours}/up"] = Place(f"{theirs}.fc1.weight")
        found[f"{ours}/down"] = Place(f"{theirs}.fc2.weight")
    return found


def _norm(ours: str, theirs: str) -> Layout:
    return {f"{ours}/scale": Place(f"{theirs}.weight"), f"{ours}/bias": Place(f"{theirs}.bias")}


def _linear(ours: str, theirs: str) -> Layout:
    weight = Place(f"{theirs}.weight", MATRIX)
    return {f"{ours}/kernel": weight, f"{ours}/bias": Place(f"{theirs}.bias")}


def _attention(c: LMConfig | MaskedLMConfig, ours: str, theirs: str) -> Layout:
    width = c.dim // c.heads
    names = [f"{theirs}.{name}_proj.weight" for name in ("q", "k", "v", "out")]
    query, key, value, out = names
    inner, square = (c.heads, width, c.dim), (c.dim, c.dim)
    return {
        f"{ours}/query": Place(query, shape=inner, flat=square),
        f"{ours}/key_value": Place([key, value], shape=(2, *inner), flat=(2, *square)),
        f"{ours}/out": Place(out, shape=(c.dim, c.heads, width), flat=square),
    }
