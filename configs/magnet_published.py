"""MAGNeT small (Ziv et al. 2024): MusicGen small's transformer without causality, 10 s of music.

Spans of 3 frames, a context of 5 above the first level; 576 crops of 10 s per update, as audiocraft
trained it, conditions left out in a third of them.

Command:  rvq-jax data build MUSIC --out runs/music --codes encodec_32khz --piece 10
          rvq-jax train configs/magnet_published.py --data runs/music/train.npz \\
              --out runs/magnet --codec encodec_32khz --text t5-base
Time:     for a pod; it was not run
Expect:   not measured; only its shapes are tested
"""

from rvq_jax.systems.magnet import magnet_small
from rvq_jax.train.runs import MaskedRun
from rvq_jax.train.runs.masked import masked_recipe


def get_config() -> MaskedRun:
    return masked_recipe(magnet_small(), batch=576)
