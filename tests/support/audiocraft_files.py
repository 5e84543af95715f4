"""Token models as audiocraft's state_dict.bin has them, made from transformers' names."""

import re

import numpy as np

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
