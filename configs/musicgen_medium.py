"""MusicGen medium (1.5B; Copet et al. 2023): 1.84 billion parameters, 30 seconds of 32 kHz audio.

The published recipe: AdamW 1e-4 with a cosine to zero, 192 crops of 30 s per update, a million
updates. Its running mean of 0.99 every 10 updates is 0.999 at every update here.

Command:  rvq-jax data build MUSIC --out runs/music --codes encodec_32khz --piece 120
          rvq-jax train configs/musicgen_medium.py --data runs/music/train.npz \\
              --out runs/musicgen_medium --codec encodec_32khz --text t5-base --fsdp 8
Time:     for a pod; it was not run
Expect:   not measured; only its shapes are tested
"""

from rvq_jax.systems.musicgen.sizes import musicgen_medium
from rvq_jax.train.runs import LMRun, musicgen_recipe


def get_config() -> LMRun:
    return musicgen_recipe(musicgen_medium())
