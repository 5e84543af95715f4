"""DAC at 44.1 kHz with half of its features, for one GPU: 12 crops and 40,000 updates.

The recipe is that of configs/dac_44khz.py.

Command:  rvq-jax data build FOLDER --out runs/audio_44khz --rate 44100
          rvq-jax train configs/dac_44khz_evening.py --data runs/audio_44khz --out runs/codec
Time:     meant for an evening on one GPU, by its FLOPs; it was not run
Expect:   not measured; only its shapes are tested
"""

from rvq_jax.codec.dac import DACConfig
from rvq_jax.train.runs import DACRun
from rvq_jax.train.runs.codec_recipes import dac_recipe


def get_config() -> DACRun:
    codec = DACConfig(filters=32, decoder_filters=768, dim=512, norm="weight_norm")
    return dac_recipe(codec, updates=40_000, batch=12)
