"""Token models as audiocraft's state_dict.bin has them, made from transformers' names."""

import re
from pathlib import Path

import numpy as np
from small_codecs import torch_bytes

import rvq_jax as rj
from rvq_jax import files
from rvq_jax.convert import layout, musicgen

CONDITIONERS = "condition_provider.conditioners."
RULES = [
    (r"^enc_to_dec_proj\.", f"{CONDITIONERS}description.output_proj."),
    (r"^audio_enc_to_dec_proj\.", f"{CONDITIONERS}self_wav.output_proj."),
    (r"^decoder\.lm_heads\.", "linears."),
    (r"^decoder\.model\.decoder\.embed_tokens\.", "emb."),
    (r"^decoder\.model\.decoder\.layer_norm\.", "out_norm."),
    (r"^decoder\.model\.decoder\.layers\.", "transformer.layers."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.encoder_attn_layer_norm\.", ".norm_cross."),
    (r"\.final_layer_norm\.", ".norm2."),
    (r"\.encoder_attn\.", ".cross_attention."),
    (r"\.fc([12])\.", r".linear\1."),
]

# As OmegaConf writes it, cut to what matters and a little more.
CONFIG = """\
sample_rate: 1000
channels: 1
dataset:
  batch_size: 192
  segment_duration: {seconds}
conditioners:
  self_wav:
    model: chroma_stem
    chroma_stem:
      sample_rate: ${{sample_rate}}
      n_chroma: 12
      radix2_exp: 14
      argmax: true
  description:
    model: t5
    t5:
      name: t5-base
      finetune: false
fuser:
  cross_attention_pos_emb: false
  cross:
  - description
lm_model: transformer_lm
codebooks_pattern:
  modeling: delay
  delay:
    delays: {delays}
    flatten_first: 0
    empty_initial: 0
  unroll:
    flattening: [0, 1, 2, 3]
transformer_lm:
  num_heads: {heads}
  activation: gelu
  norm_first: true
  positional_embedding: sin
  past_context: null
  kv_repeat: 1
"""


DELAYS = {"text": [0, 1, 2], "melody": [0, 1, 2], "stereo": [0, 0, 1, 1, 2, 2]}


def tensors_of(model: rj.MusicGen) -> dict[str, np.ndarray]:
    """A token model's tensors under transformers' names."""
    leaves = {n.removesuffix("/value"): x for n, x in files.named(model.params).items()}
    return layout.write(musicgen.layout(model.config), leaves)


def config_of(kind: str = "text", **changes) -> str:
    said = {"seconds": 0.4, "heads": 2, "delays": DELAYS[kind]}
    return CONFIG.format(**said | changes)


def write(path: Path, model: rj.MusicGen, config: str | None) -> Path:
    """A token model as its state_dict.bin."""
    beside = {"version": "1.0"} | ({} if config is None else {"xp.cfg": config})
    path.write_bytes(torch_bytes(original(tensors_of(model)), beside, "best_state"))
    return path


def original(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Audiocraft's names, one projection for queries, keys and values, and what is left behind."""
    found = {}
    for name, value in tensors.items():
        if name.startswith(("text_encoder.", "audio_encoder.")):
            continue
        for pattern, new in RULES:
            name = re.sub(pattern, new, name)
        found[name] = value
    for name in [*found]:
        if name.endswith(".q_proj.weight"):
            stem = name.removesuffix("q_proj.weight")
            parts = [found.pop(f"{stem}{part}_proj.weight") for part in "qkv"]
            found[f"{stem}in_proj_weight"] = np.concatenate(parts)
    if f"{CONDITIONERS}self_wav.output_proj.weight" in found:
        found[f"{CONDITIONERS}self_wav.chroma.spec.window"] = np.ones(16_384, np.float32)
    return found


# Sizes of a MAGNeT small enough to check whole, and what its own config says otherwise.
MAGNET_SIZES = {"levels": 3, "codes": 16, "layers": 2, "mlp": 24, "text": 12}
MAGNET_CONFIG = """\
dataset:
  segment_duration: 0.4
conditioners:
  description:
    model: t5
    t5:
      name: t5-large
fuser:
  cross_attention_pos_emb: false
  cross:
  - description
lm_model: transformer_lm_magnet
codebooks_pattern:
  modeling: parallel
  parallel:
    empty_initial: -1
  delay:
    delays: [0, 1, 2, 3]
transformer_lm:
  num_heads: 2
  activation: gelu
  norm_first: true
  positional_embedding: sin
  causal: false
  subcodes_context: 1
  compression_model_framerate: 50
  segment_duration: 0
  span_len: -1
masking:
  span_len: 2
generate:
  lm:
    use_sampling: true
    temp: 3.5
    top_k: 250
    top_p: 0.8
    max_cfg_coef: 20.0
    min_cfg_coef: 1.0
    decoding_steps: [3, 1, 2]
    anneal_temp: true
    span_scoring: max
    span_arrangement: nonoverlap
    prompted_samples: false
"""


def magnet(dim: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A MAGNeT's tensors of random numbers, large enough for every input to matter."""
    levels, codes, layers, mlp, text = MAGNET_SIZES.values()
    shapes = {f"emb.{k}.weight": (codes + 1, dim) for k in range(levels)}
    shapes |= {f"linears.{k}.weight": (codes, dim) for k in range(levels)}
    shapes |= {"out_norm.weight": (dim,), "out_norm.bias": (dim,)}
    stem = f"{CONDITIONERS}description.output_proj."
    shapes |= {f"{stem}weight": (dim, text), f"{stem}bias": (dim,)}
    for i in range(layers):
        layer = {"linear1.weight": (mlp, dim), "linear2.weight": (dim, mlp)}
        for part in ("self_attn", "cross_attention"):
            layer |= {
                f"{part}.in_proj_weight": (3 * dim, dim),
                f"{part}.out_proj.weight": (dim,) * 2,
            }
        for part in ("norm1", "norm_cross", "norm2"):
            layer |= {f"{part}.weight": (dim,), f"{part}.bias": (dim,)}
        shapes |= {f"transformer.layers.{i}.{name}": shape for name, shape in layer.items()}
    rng = np.random.default_rng(seed)
    return {n: (0.4 * rng.normal(size=s)).astype(np.float32) for n, s in shapes.items()}
