"""EnCodec at 24 kHz at its published size, for one GPU: 16 crops and 60,000 updates.

The recipe is that of configs/encodec_24khz.py.

Command:  rvq-jax data build FOLDER --out runs/audio_24khz --rate 24000
          rvq-jax train configs/encodec_24khz_evening.py --data runs/audio_24khz --out runs/codec
Time:     meant for an evening on one GPU, by its FLOPs; it was not run
Expect:   not measured; only its shapes are tested
"""

from rvq_jax.systems.encodec import encodec_24khz
from rvq_jax.train.runs import CodecRun
from rvq_jax.train.runs.codec_recipes import encodec_recipe


def get_config() -> CodecRun:
    return encodec_recipe(encodec_24khz(), updates=60_000, batch=16)
