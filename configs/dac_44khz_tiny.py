"""DAC's recipe at 44.1 kHz for a laptop: 86 frames per second, 4 levels of 128 codes.

Losses and discriminators are those of configs/dac_44khz.py, with a sixteenth of the features.

Command:  rvq-jax data build --out runs/audio_44khz --rate 44100
          rvq-jax train configs/dac_44khz_tiny.py --data runs/audio_44khz --out runs/codec
Time:     minutes on two cores; not timed on a quiet machine
Expect:   not run to the end; four hundred updates are too few to hear what discriminators add
"""

from rvq_jax.codec.dac import DACConfig
from rvq_jax.codec.discriminators import MultiBandConfig, MultiPeriodConfig
from rvq_jax.train.runs import DACRun
from rvq_jax.train.runs.codec_recipes import dac_recipe


def get_config() -> DACRun:
    sizes = {"filters": 4, "decoder_filters": 64, "dim": 64, "levels": 4, "codebook_size": 128}
    judges = MultiPeriodConfig(filters=(2, 8, 32, 64, 64)), MultiBandConfig(filters=4)
    codec = DACConfig(**sizes, norm="weight_norm")
    return dac_recipe(codec, updates=400, batch=4, judges=judges)
