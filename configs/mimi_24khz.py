"""Mimi (Défossez et al. 2024, Moshi): 24 kHz, causal, 12.5 frames per second, 32 levels of 2048.

The published recipe: 128 crops of 12 s per update, 4 million updates; AdamW 8e-4 with betas 0.5 and
0.9, decay of 0.05 on transformers only, running mean of 0.99; adversarial and feature matching
losses alone (MS-STFT); cosine distillation of WavLM's features onto the first level; quantizer
dropout; half of the items are not quantized.

Open in the paper, and chosen: weights 4 of the adversarial and the feature loss, 1 of distillation
and commitment, no balancer; the levels kept are drawn for each item from all. Paper and published
weights differ in their levels, 8 and 32 (here).

Features are a folder of arrays that you make (rvq_jax/data/features.py says how).

Command:  rvq-jax data build FOLDER --out runs/audio_24khz --rate 24000 --piece 60
          rvq-jax train configs/mimi_24khz.py --data runs/audio_24khz --out runs/codec \\
              --features runs/wavlm --fsdp 4
Time:     for a pod; it was not run
Expect:   not measured; only its shapes are tested
"""

from rvq_jax.codec.mimi import MimiConfig
from rvq_jax.train.runs import MimiRun
from rvq_jax.train.runs.codec_recipes import mimi_recipe


def get_config() -> MimiRun:
    return mimi_recipe(MimiConfig())
