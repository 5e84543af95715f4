"""MusicGen large (3.3B; Copet et al. 2023): 3.26 billion parameters, 30 seconds of 32 kHz audio.

The published recipe: AdamW 1e-4 with a cosine to zero, 192 crops of 30 s per update, a million
updates. Its running mean of 0.99 every 10 updates is 0.999 at every update here, its conditions are
dropped from 0.2 of the crops, and gradients are clipped at 3.

Command:  rvq-jax data build MUSIC --out runs/music --codes encodec_32khz --piece 120
          rvq-jax train configs/musicgen_large.py --data runs/music/train.npz \\
              --out runs/musicgen_large --codec encodec_32khz --text t5-base --fsdp 16
Time:     for a pod; it was not run
Expect:   not measured; only its shapes are tested
"""

import dataclasses

from rvq_jax.systems.musicgen.sizes import musicgen_large
from rvq_jax.train.runs import LMRun, musicgen_recipe
from rvq_jax.train.tasks.lm import ConditionDropout


def get_config() -> LMRun:
    run = musicgen_recipe(musicgen_large())
    optimizer = dataclasses.replace(run.optimizer, clip=3.0)
    return dataclasses.replace(
        run, optimizer=optimizer, condition_dropout=ConditionDropout(all=0.2)
    )
