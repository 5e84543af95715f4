"""Mimi's recipe for a laptop, without distillation: 12.5 frames per second, 8 levels of 128 codes.

Losses and discriminators are those of configs/mimi_24khz.py, with an eighth of the features or
less.

Command:  rvq-jax data build --out runs/audio_24khz --rate 24000
          rvq-jax train configs/mimi_24khz_tiny.py --data runs/audio_24khz --out runs/codec
Time:     minutes on two cores; not timed on a quiet machine
Expect:   not run to the end; without a loss of spectra four hundred updates give noise
"""

import dataclasses

from rvq_jax.codec.mimi import MimiConfig
from rvq_jax.codec.transformer import TransformerConfig
from rvq_jax.train.runs import MimiRun
from rvq_jax.train.runs.codec_recipes import mimi_recipe


def get_config() -> MimiRun:
    seanet = dataclasses.replace(MimiConfig().seanet, dim=64, filters=4, ratios=(4, 5, 6, 8))
    sizes = {"heads": 4, "kv_heads": 4, "head_dim": 16, "mlp_dim": 128, "layers": 2}
    transformer = TransformerConfig(dim=64, **sizes)
    codec = MimiConfig(
        seanet=seanet, transformer=transformer, levels=8, codebook_size=128, code_dim=32
    )
    run = mimi_recipe(codec, updates=400, batch=4, judges=4)
    loss = dataclasses.replace(run.loss, distillation=0.0)
    return dataclasses.replace(run, loss=loss, seconds=2.0)
