"""Mimi folders of transformers: their config and the names of their tensors."""

import dataclasses

from rvq_jax.codec.mimi import MimiConfig
from rvq_jax.codec.transformer import TransformerConfig
from rvq_jax.convert.encodec import seanet_config, seanet_fields, seanet_layout
from rvq_jax.convert.fields import checked, refuse
from rvq_jax.convert.layout import CONV, MATRIX, POINTWISE, Layout, Place

CONFIG = MimiConfig
DEFAULTS = {
    "sampling_rate": 24_000,
    "audio_channels": 1,
    "hidden_size": 512,
    "num_filters": 64,
    "num_residual_layers": 1,
    "upsampling_ratios": [8, 6, 5, 4],
    "kernel_size": 7,
    "last_kernel_size": 3,
    "residual_kernel_size": 3,
    "dilation_growth_rate": 2,
    "use_causal_conv": True,
    "pad_mode": "constant",
    "compress": 2,
    "trim_right_ratio": 1.0,
    "codebook_size": 2048,
    "codebook_dim": 256,
    "num_quantizers": 32,
    "use_conv_shortcut": False,
    "vector_quantization_hidden_dimension": 256,
    "num_semantic_quantizers": 1,
    "upsample_groups": 512,
    "num_hidden_layers": 8,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": None,
    "hidden_act": "gelu",
    "norm_eps": 1e-5,
    "sliding_window": 250,
    "attention_bias": False,
    "layer_scale_initial_scale": 0.01,
    "rope_theta": 10_000.0,
    "rope_parameters": None,
    "frame_rate": None,
    "_frame_rate": None,  # as some versions save it
    "normalize": False,
}
IGNORED = (
    "attention_dropout",
    "initializer_range",
    "max_position_embeddings",
    "use_cache",
    "use_streaming",
)


def from_fields(fields: dict, where: str) -> MimiConfig:
    """Our config of a config.json; raises UserError for fields unknown or beyond this library."""
    f = checked(fields, DEFAULTS, where, IGNORED)
    fixed = {
        "use_causal_conv": True,
        "trim_right_ratio": 1.0,
        "hidden_act": "gelu",
        "attention_bias": False,
        "normalize": False,
        "upsample_groups": f["hidden_size"],
        "codebook_dim": f["vector_quantization_hidden_dimension"],
    }
    for name, value in fixed.items():
        if f[name] != value:
            refuse(where, name, f[name], repr(value))
    rope = f["rope_parameters"] or {"rope_theta": f["rope_theta"]}
    if rope.get("rope_type", "default") != "default":
        refuse(where, "rope_type", rope["rope_type"], "'default'")
    f["upsampling_ratios"] = f["upsampling_ratios"] or DEFAULTS["upsampling_ratios"]
    seanet = seanet_config(f, lstm_layers=0, norm="none")
    transformer = TransformerConfig(
        dim=f["hidden_size"],
        layers=f["num_hidden_layers"],
        heads=f["num_attention_heads"],
        kv_heads=f["num_key_value_heads"],
        head_dim=f["head_dim"] or f["hidden_size"] // f["num_attention_heads"],
        mlp_dim=f["intermediate_size"],
        context=f["sliding_window"],
        rope_theta=float(rope["rope_theta"]),
        layer_scale=f["layer_scale_initial_scale"],
        eps=f["norm_eps"],
    )
    rate = f["sampling_rate"]
    # The reference rounds the inner frame rate up and the stride down.
    inner = -(-rate // seanet.hop)
    frame_rate = f["frame_rate"] or f["_frame_rate"]
    stride = int(inner / frame_rate) if frame_rate else 2
    if stride < 2:
        refuse(where, "frame_rate", frame_rate, f"at most half of SEANet's, {inner / 2}")
    return MimiConfig(
        rate=rate,
        seanet=seanet,
        transformer=transformer,
        stride=stride,
        levels=f["num_quantizers"],
        semantic=f["num_semantic_quantizers"],
        codebook_size=f["codebook_size"],
        code_dim=f["codebook_dim"],
    )


def to_fields(config: MimiConfig) -> dict | None:
    """The config.json of a codec, or None if transformers' MimiConfig has no words for it."""
    s, t = config.seanet, config.transformer
    plain = dataclasses.replace(s, causal=True, norm="none", lstm_layers=0, dtype="float32")
    if s != plain or config.codebook_size & (config.codebook_size - 1):
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
