"""Mimi folders of transformers: their config and the names of their tensors."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from rvq_jax.codec.mimi import MimiConfig
from rvq_jax.codec.transformer import TransformerConfig
from rvq_jax.config import make
from rvq_jax.convert.encodec import seanet_config, seanet_fields, seanet_layout
from rvq_jax.convert.fields import checked, is_power_of_two, refuse, without_place
from rvq_jax.convert.layout import CONV, MATRIX, POINTWISE, Layout, Place

CONFIG = MimiConfig


@dataclass(frozen=True)
class Rope:
    """Rotary positions."""

    rope_theta: float = 10_000.0
    rope_type: Literal["default"] = "default"


@dataclass(frozen=True)
class Fields:
    """transformers' MimiConfig: what says something about the model, with its defaults."""

    sampling_rate: int = 24_000
    audio_channels: int = 1
    hidden_size: int = 512
    num_filters: int = 64
    num_residual_layers: int = 1
    upsampling_ratios: tuple[int, ...] | None = (8, 6, 5, 4)
    kernel_size: int = 7
    last_kernel_size: int = 3
    residual_kernel_size: int = 3
    dilation_growth_rate: int = 2
    use_causal_conv: bool = True
    pad_mode: Literal["reflect", "constant", "replicate"] = "constant"
    compress: int = 2
    trim_right_ratio: float = 1.0
    codebook_size: int = 2048
    codebook_dim: int = 256
    num_quantizers: int = 32
    use_conv_shortcut: bool = False
    vector_quantization_hidden_dimension: int = 256
    num_semantic_quantizers: int = 1
    upsample_groups: int = 512
    num_hidden_layers: int = 8
    intermediate_size: int = 2048
    num_attention_heads: int = 8
    num_key_value_heads: int = 8
    head_dim: int | None = None
    hidden_act: str = "gelu"
    norm_eps: float = 1e-5
    sliding_window: int = 250
    attention_bias: bool = False
    layer_scale_initial_scale: float = 0.01
    rope_theta: float = 10_000.0
    rope_parameters: Rope | None = None
    frame_rate: float | None = None
    _frame_rate: float | None = None  # as some versions save it
    normalize: bool = False


IGNORED = (
    "attention_dropout",
    "initializer_range",
    "max_position_embeddings",
    "use_streaming",
)


def from_fields(fields: dict, where: str) -> MimiConfig:
    """Our config of a config.json; raises UserError for fields unknown or beyond this library."""
    f = checked(fields, Fields, where, IGNORED)
    fixed = {
        "use_causal_conv": True,
        "trim_right_ratio": 1.0,
        "hidden_act": "gelu",
        "attention_bias": False,
        "normalize": False,
        "upsample_groups": f.hidden_size,
        "codebook_dim": f.vector_quantization_hidden_dimension,
    }
    for name, value in fixed.items():
        if getattr(f, name) != value:
            refuse(where, name, getattr(f, name), repr(value))
    rope = f.rope_parameters or f
    ratios = f.upsampling_ratios or Fields().upsampling_ratios
    f = dataclasses.replace(f, upsampling_ratios=ratios)
    seanet = seanet_config(f, where, lstm_layers=0, norm="none")
    transformer = make(
        TransformerConfig,
        where,
        dim=f.hidden_size,
        layers=f.num_hidden_layers,
        heads=f.num_attention_heads,
        kv_heads=f.num_key_value_heads,
        head_dim=f.head_dim or f.hidden_size // f.num_attention_heads,
        mlp_dim=f.intermediate_size,
        context=f.sliding_window,
        rope_theta=float(rope.rope_theta),
        layer_scale=f.layer_scale_initial_scale,
        eps=f.norm_eps,
    )
    rate = f.sampling_rate
    frame_rate = f.frame_rate or f._frame_rate
    stride = _stride(rate, seanet.hop, frame_rate) if frame_rate else 2
    if stride < 2:
        half = -(-rate // seanet.hop) / 2
        refuse(where, "frame_rate", frame_rate, f"at most half of SEANet's, {half}")
    return make(
        MimiConfig,
        where,
        rate=rate,
        seanet=seanet,
        transformer=transformer,
        stride=stride,
        levels=f.num_quantizers,
        semantic=f.num_semantic_quantizers,
        codebook_size=f.codebook_size,
        code_dim=f.codebook_dim,
    )


def beyond(config: MimiConfig) -> str | None:
    """The field that transformers' MimiConfig has no place for, in words; None if there is none."""
    s, size = config.seanet, config.codebook_size
    stride = _stride(config.rate, s.hop, config.frame_rate)
    exact = 2 <= config.stride == stride
    return without_place(
        [
            ("seanet.channels", s.channels, s.channels <= 2, "1 and 2"),
            ("seanet.causal", s.causal, s.causal, "True"),
            ("seanet.norm", s.norm, s.norm == "none", "none"),
            ("seanet.lstm_layers", s.lstm_layers, s.lstm_layers == 0, "0"),
            ("stride", config.stride, exact, "2 and others that divide exactly"),
            ("codebook_size", size, is_power_of_two(size), "powers of two"),
        ]
    )


def to_fields(config: MimiConfig) -> dict | None:
    """The config.json of a codec, or None if transformers' MimiConfig has no words for it."""
    s, t = config.seanet, config.transformer
    if beyond(config):
        return None
    return {
        "architectures": ["MimiModel"],
        "model_type": "mimi",
        "sampling_rate": config.rate,
        "frame_rate": config.frame_rate,
        **seanet_fields(s),
        "codebook_size": config.codebook_size,
        "codebook_dim": config.code_dim,
        "num_quantizers": config.levels,
        "vector_quantization_hidden_dimension": config.code_dim,
        "num_semantic_quantizers": config.semantic,
        "upsample_groups": s.dim,
        "num_hidden_layers": t.layers,
        "intermediate_size": t.mlp_dim,
        "num_attention_heads": t.heads,
        "num_key_value_heads": t.kv_heads,
        "head_dim": t.head_dim,
        "hidden_act": "gelu",
        "norm_eps": t.eps,
        # Both: older versions know the first, newer ones the second.
        "rope_theta": t.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": t.rope_theta},
        "sliding_window": t.context,
        "layer_scale_initial_scale": t.layer_scale,
        "attention_bias": False,
    }


def _stride(rate: int, hop: int, frame_rate: float) -> int:
    """SEANet's frames for one of codes: the reference rounds its frame rate up, the stride down."""
    return int(min(-(-rate // hop) / frame_rate, rate))


def layout(config: MimiConfig) -> Layout:
    """Our leaves' places among a MimiModel's tensors, by the flat names of its files."""
    found = {}
    for leaf, place in seanet_layout(config.seanet).items():
        half, rest = leaf.split("/", 1)
        found[f"{half}/seanet/{rest}"] = place
    for half in ("encoder", "decoder"):
        found |= _transformer(config, f"{half}/middle", f"{half}_transformer.layers")
    found["encoder/down/kernel/v"] = Place("downsample.conv.weight", CONV)
    found["decoder/up/kernel"] = Place("upsample.conv.weight", (1, 0), (1,))
    parts = {"semantic": ("first", config.semantic)}
    parts["acoustic"] = "rest", config.levels - config.semantic
    for theirs, (ours, levels) in parts.items():
        name = f"quantizer.{theirs}_residual_vector_quantizer"
        found[f"quantizer/{ours}/down"] = Place(f"{name}.input_proj.weight", *POINTWISE)
        found[f"quantizer/{ours}/up"] = Place(f"{name}.output_proj.weight", *POINTWISE)
        for leaf, tensor in (("sums", "embed_sum"), ("counts", "cluster_usage")):
            names = [f"{name}.layers.{k}.codebook.{tensor}" for k in range(levels)]
            found[f"quantizer/{ours}/inner/{leaf}"] = Place(names)
    return found


def _transformer(config: MimiConfig, ours: str, theirs: str) -> Layout:
    t = config.transformer
    layers = range(t.layers)
    vectors = {
        "attention_norm_scale": "input_layernorm.weight",
        "attention_norm_bias": "input_layernorm.bias",
        "attention_scale": "self_attn_layer_scale.scale",
        "mlp_norm_scale": "post_attention_layernorm.weight",
        "mlp_norm_bias": "post_attention_layernorm.bias",
        "mlp_scale": "mlp_layer_scale.scale",
    }
    matrices = {"out": "self_attn.o_proj", "up": "mlp.fc1", "down": "mlp.fc2"}
    found = {
        f"{ours}/{leaf}": Place([f"{theirs}.{i}.{name}" for i in layers])
        for leaf, name in vectors.items()
    }
    for leaf, name in matrices.items():
        found[f"{ours}/{leaf}"] = Place([f"{theirs}.{i}.{name}.weight" for i in layers], MATRIX)
    names = [tuple(f"{theirs}.{i}.self_attn.{x}_proj.weight" for x in "qkv") for i in layers]
    widths = (t.heads * t.head_dim, t.kv_heads * t.head_dim, t.kv_heads * t.head_dim)
    found[f"{ours}/qkv"] = Place(names, MATRIX, widths=widths)
    return found


def constants(config: MimiConfig) -> list[str]:
    """Tensors of a single 1 that the reference's file must have."""
    counts = {"semantic": config.semantic, "acoustic": config.levels - config.semantic}
    return [
        f"quantizer.{part}_residual_vector_quantizer.layers.{k}.codebook.initialized"
        for part, levels in counts.items()
        for k in range(levels)
    ]
