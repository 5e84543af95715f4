"""T5 encoders of transformers: their config and the names of their tensors."""

from dataclasses import dataclass

import numpy as np

from rvq_jax.config import make
from rvq_jax.convert.fields import checked, refuse
from rvq_jax.convert.layout import MATRIX, Layout, Place
from rvq_jax.lm.t5 import ACTIVATIONS, T5Config

CONFIG = T5Config


@dataclass(frozen=True)
class Fields:
    """transformers' T5Config: what says something about the encoder, with its defaults."""

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "relu"
    # What some versions write beside feed_forward_proj, from which they follow.
    dense_act_fn: str | None = None
    is_gated_act: bool | None = None


IGNORED = (
    "classifier_dropout",
    "dropout_rate",
    "initializer_factor",
    "n_positions",
    "num_decoder_layers",
    "output_past",
    "scale_decoder_outputs",
)
TIED = "encoder.embed_tokens.weight"  # a second name of shared.weight, in some files
OTHERS = ("decoder.", "lm_head.")  # what a whole T5 has beside its encoder


def from_fields(fields: dict, where: str) -> T5Config:
    """Our config of a config.json; raises UserError for fields unknown or beyond this library."""
    f = checked(fields, Fields, where, IGNORED)
    projection = f.feed_forward_proj
    gated = projection.startswith("gated-")
    activation = projection.removeprefix("gated-")
    if projection == "gated-gelu":
        # Of that name alone transformers means the approximation.
        activation = "gelu_new"
    if activation not in ACTIVATIONS:
        refuse(where, "feed_forward_proj", projection, "'relu' and 'gated-gelu'")
    for name, value in {"dense_act_fn": activation, "is_gated_act": gated}.items():
        if getattr(f, name) not in (None, value):
            said = f"{value!r} where feed_forward_proj is {projection!r}"
            refuse(where, name, getattr(f, name), said)
    return make(
        T5Config,
        where,
        vocab=f.vocab_size,
        dim=f.d_model,
        layers=f.num_layers,
        heads=f.num_heads,
        head_dim=f.d_kv,
        mlp_dim=f.d_ff,
        gated=gated,
        activation=activation,
        buckets=f.relative_attention_num_buckets,
        distance=f.relative_attention_max_distance,
        eps=f.layer_norm_epsilon,
    )


def to_fields(config: T5Config) -> dict:
    """The config.json of an encoder."""
    projection = "gated-" * config.gated + config.activation
    return {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
        "vocab_size": config.vocab,
        "d_model": config.dim,
        "d_kv": config.head_dim,
        "d_ff": config.mlp_dim,
        "num_layers": config.layers,
        "num_heads": config.heads,
        "relative_attention_num_buckets": config.buckets,
        "relative_attention_max_distance": config.distance,
        "layer_norm_epsilon": config.eps,
        "feed_forward_proj": "gated-gelu" if projection == "gated-gelu_new" else projection,
    }


def layout(config: T5Config) -> Layout:
    """Our leaves' places among a T5EncoderModel's tensors."""
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    found = {
        "embed": Place("shared.weight"),
        "bias": Place(bias),
        "norm/scale": Place("encoder.final_layer_norm.weight"),
    }
    inner = config.heads * config.head_dim
    firsts = ("wi_0", "wi_1") if config.gated else ("wi",)
    for i in range(config.layers):
        ours, theirs = f"layers/{i}", f"encoder.block.{i}.layer"
        attend, feed = f"{theirs}.0.SelfAttention", f"{theirs}.1.DenseReluDense"
        qkv = tuple(f"{attend}.{part}.weight" for part in "qkv")
        up = tuple(f"{feed}.{part}.weight" for part in firsts)
        found |= {
            f"{ours}/norm_self/scale": Place(f"{theirs}.0.layer_norm.weight"),
            f"{ours}/qkv": Place(qkv, MATRIX, widths=(inner,) * 3),
            f"{ours}/out": Place(f"{attend}.o.weight", MATRIX),
            f"{ours}/norm_mlp/scale": Place(f"{theirs}.1.layer_norm.weight"),
            f"{ours}/up": Place(up, MATRIX, widths=(config.mlp_dim,) * len(up)),
            f"{ours}/down": Place(f"{feed}.wo.weight", MATRIX),
        }
    return found


def canonical(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An encoder's tensors, each under one name; a whole T5 has its decoder left out."""
    found = {name: value for name, value in tensors.items() if not name.startswith(OTHERS)}
    if TIED in found:
        found.setdefault("shared.weight", found.pop(TIED))
    return found
