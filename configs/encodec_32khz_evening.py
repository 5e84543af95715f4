"""EnCodec at 32 kHz at its published size, for one GPU: 8 crops and 40,000 updates.

The recipe is that of configs/encodec_32khz.py.

Command:  rvq-jax data build FOLDER --out runs/audio_32khz --rate 32000
          rvq-jax train configs/encodec_32khz_evening.py --data runs/audio_32khz --out runs/codec
Time:     meant for an evening on one GPU, by its FLOPs; it was not run
Expect:   not measured; only its shapes are tested
"""

from rvq_jax.systems.encodec import encodec_32khz
from rvq_jax.train.runs import CodecRun
from rvq_jax.train.runs.codec_recipes import audiocraft_recipe


def get_config() -> CodecRun:
    return audiocraft_recipe(encodec_32khz(), updates=40_000, batch=8)
