"""Every field of the configs of codecs and of MusicGen, each set to something else.

KEPT: transformers' config has a place for it. NAMED: it has not, and an error names the field.
SILENT: it says nothing about what the model of this table computes, or how it is computed alone.
"""

import dataclasses

from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.dac import DACConfig
from rvq_jax.codec.mimi import MimiConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.codec.transformer import TransformerConfig
from rvq_jax.lm.depth import DepthConfig
from rvq_jax.lm.model import LMConfig

KEPT, NAMED, SILENT = "kept", "named", "silent"
_SMALL = {"dim": 6, "filters": 4, "ratios": (3, 2), "kernel": 5, "last_kernel": 3}
ENCODEC = CodecConfig(600, SEANetConfig(**_SMALL, lstm_layers=1), levels=3, codebook_size=16)
DAC = DACConfig(600, (2, 4), 4, 16, 16, levels=3, codebook_size=16, code_dim=3)
MIMI = MimiConfig(
    600,
    SEANetConfig(**_SMALL, lstm_layers=0, norm="none", true_skip=True, pad_mode="constant"),
    TransformerConfig(dim=6, layers=1, heads=2, kv_heads=1, head_dim=4, mlp_dim=8, context=5),
    levels=3,
    codebook_size=16,
    code_dim=3,
)
LM = LMConfig(codebook_size=16, dim=16, mlp_dim=24, positions="sinusoidal", text_dim=12)

# Of every config: what is set, and what becomes of the first field that is.
SEANET = [
    ({"seanet.channels": 2}, KEPT),
    ({"seanet.channels": 3}, NAMED),
    ({"seanet.filters": 6}, KEPT),
    ({"seanet.ratios": (2, 2, 3)}, KEPT),
    ({"seanet.residual_layers": 2}, KEPT),
    ({"seanet.kernel": 3}, KEPT),
    ({"seanet.last_kernel": 5}, KEPT),
    ({"seanet.residual_kernel": 5}, KEPT),
    ({"seanet.dilation_base": 3, "seanet.residual_layers": 2}, KEPT),
    ({"seanet.compress": 4}, KEPT),
    ({"seanet.pad_mode": "replicate"}, KEPT),
    ({"seanet.dtype": "bfloat16"}, SILENT),
    ({"rate": 700}, KEPT),
    ({"levels": 4}, KEPT),
    ({"codebook_size": 32}, KEPT),
    ({"codebook_size": 17}, NAMED),
]
CHANGES = {
    "encodec": [
        *SEANET,
        ({"seanet.dim": 8}, KEPT),
        ({"seanet.true_skip": True}, KEPT),
        ({"seanet.pad_mode": "constant"}, KEPT),
        ({"seanet.lstm_layers": 2}, KEPT),
        ({"seanet.lstm_layers": 0}, NAMED),
        ({"seanet.causal": False}, KEPT),
        ({"seanet.norm": "time_group_norm", "seanet.causal": False}, KEPT),
        ({"seanet.norm": "none"}, NAMED),
        ({"normalize": True}, KEPT),
        ({"segment": 0.5}, KEPT),
        ({"overlap": 0.2, "segment": 0.5}, KEPT),
        ({"bandwidths": (0.4, 1.2)}, KEPT),
        ({"bandwidths": (0.4, 0.8)}, NAMED),
    ],
    "mimi": [
        *SEANET,
        ({"seanet.dim": 8, "transformer.dim": 8}, KEPT),
        ({"transformer.dim": 8, "seanet.dim": 8}, KEPT),
        ({"seanet.true_skip": False}, KEPT),
        ({"seanet.pad_mode": "reflect"}, KEPT),
        ({"seanet.lstm_layers": 1}, NAMED),
        ({"seanet.causal": False}, NAMED),
        ({"seanet.norm": "weight_norm"}, NAMED),
        ({"transformer.layers": 2}, KEPT),
        ({"transformer.heads": 4}, KEPT),
        ({"transformer.kv_heads": 2}, KEPT),
        ({"transformer.head_dim": 2}, KEPT),
        ({"transformer.mlp_dim": 12}, KEPT),
        ({"transformer.context": 3}, KEPT),
        ({"transformer.rope_theta": 100.0}, KEPT),
        ({"transformer.layer_scale": 0.5}, KEPT),
        ({"transformer.eps": 1e-3}, KEPT),
        ({"transformer.dtype": "bfloat16"}, SILENT),
        ({"transformer.stacked": False}, SILENT),
        ({"stride": 4}, KEPT),
        ({"stride": 1}, NAMED),
        ({"stride": 200, "rate": 601}, NAMED),
        ({"semantic": 2}, KEPT),
        ({"code_dim": 4}, KEPT),
    ],
    "dac": [
        ({"rate": 700}, KEPT),
        ({"ratios": (4, 2)}, KEPT),
        ({"filters": 6, "dim": 24}, KEPT),
        ({"decoder_filters": 24}, KEPT),
        ({"dim": 8}, NAMED),
        ({"levels": 4}, KEPT),
        ({"codebook_size": 32}, KEPT),
        ({"codebook_size": 17}, NAMED),
        ({"code_dim": 4}, KEPT),
        ({"norm": "weight_norm"}, NAMED),
        ({"dtype": "bfloat16"}, SILENT),
    ],
    "musicgen": [
        ({"levels": 2}, KEPT),
        ({"codebook_size": 32}, KEPT),
        ({"dim": 32}, KEPT),
        ({"layers": 2}, KEPT),
        ({"heads": 2}, KEPT),
        ({"mlp_dim": 32}, KEPT),
        ({"positions": "rotary"}, NAMED),
        ({"block": "llama"}, NAMED),
        ({"kv_heads": 2}, NAMED),
        ({"depth": DepthConfig()}, NAMED),
        ({"text_dim": 8}, KEPT),
        ({"text_dim": None}, NAMED),
        ({"text_as": "prefix"}, NAMED),
        ({"melody_bins": 12}, KEPT),
        ({"melody_frames": 7, "melody_bins": 12}, KEPT),
        ({"attend_padding": True}, NAMED),
        ({"end": True}, NAMED),
        # Of other blocks, of captions without a text encoder; the window is in another file.
        ({"rope_theta": 100.0}, SILENT),
        ({"eps": 1e-3}, SILENT),
        ({"caption_layers": 2}, SILENT),
        ({"caption_bytes": 32}, SILENT),
        ({"window": 700}, SILENT),
        ({"dtype": "bfloat16"}, SILENT),
        ({"remat": "everything"}, SILENT),
        ({"attention": "xla"}, SILENT),
    ],
}
BASES = {"encodec": ENCODEC, "mimi": MIMI, "dac": DAC, "musicgen": LM}
ROWS = [(kind, changes, fate) for kind, rows in CHANGES.items() for changes, fate in rows]


def changed(config, changes: dict):
    """A config with fields set, those of its parts by names with a dot."""
    inner = {}
    for name, value in changes.items():
        part, dot, field = name.partition(".")
        inner.setdefault(part, {} if dot else value)
        if dot:
            inner[part][field] = value
    found = {
        part: changed(getattr(config, part), value) if isinstance(value, dict) else value
        for part, value in inner.items()
    }
    return dataclasses.replace(config, **found)


def names(config) -> set[str]:
    """All fields of a config, those of its parts by names with a dot."""
    found = set()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        parts = names(value) if dataclasses.is_dataclass(value) else ()
        found |= {f"{field.name}.{name}" for name in parts} or {field.name}
    return found
