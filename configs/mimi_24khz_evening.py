"""Mimi with 8 levels and half of its transformers' layers, for one GPU: 8 crops, 40,000 updates.

The recipe is that of configs/mimi_24khz.py.

Command:  rvq-jax data build FOLDER --out runs/audio_24khz --rate 24000 --piece 60
          rvq-jax train configs/mimi_24khz_evening.py --data runs/audio_24khz --out runs/codec \\
              --features runs/wavlm
Time:     meant for an evening on one GPU, by its FLOPs; it was not run
Expect:   not measured; only its shapes are tested
"""

import dataclasses

from rvq_jax.codec.mimi import MimiConfig
from rvq_jax.codec.transformer import TransformerConfig
from rvq_jax.train.runs import MimiRun
from rvq_jax.train.runs.codec_recipes import mimi_recipe


def get_config() -> MimiRun:
    codec = MimiConfig(transformer=TransformerConfig(layers=4), levels=8)
    run = mimi_recipe(codec, updates=40_000, batch=8)
    return dataclasses.replace(run, seconds=6.0)
