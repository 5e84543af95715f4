"""SoundStorm (Borsos et al. 2023): 350M, a Conformer of 12 layers of 1024, 12 levels, 30 s.

Semantic tokens at 25 a second of 1,024, each of two frames of a codec of 50 a second with 12 levels
of 1,024. The paper gives neither optimizer nor batch: these are MusicGen's.

Command:  rvq-jax data build SPEECH --out runs/speech --codes CODEC --piece 30 --semantic TOKENS
          rvq-jax train configs/soundstorm_published.py --data runs/speech/train.npz \\
              --out runs/soundstorm --codec CODEC --semantic runs/semantic/model
Time:     for a pod; it was not run
Expect:   not measured; only its shapes are tested
"""

from rvq_jax.systems.soundstorm import soundstorm_350m
from rvq_jax.train.runs import MaskedRun
from rvq_jax.train.runs.masked import masked_recipe


def get_config() -> MaskedRun:
    return masked_recipe(soundstorm_350m(), batch=256)
