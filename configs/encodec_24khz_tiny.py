"""EnCodec's recipe at 24 kHz for a laptop: 75 frames per second, 8 levels of 128 codes.

Balancer, discriminators and prefixes of levels are those of configs/encodec_24khz.py; codec and
discriminators have an eighth of the features, and there is no LSTM.

Command:  rvq-jax data build --out runs/audio_24khz --rate 24000
          rvq-jax train configs/encodec_24khz_tiny.py --data runs/audio_24khz --out runs/codec
Time:     about ten minutes on two cores, by the processor time of an update (1.9 s)
Expect:   not run to the end; four hundred updates are too few to hear what discriminators add
"""

from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.train.runs import CodecRun
from rvq_jax.train.runs.codec_recipes import encodec_recipe


def get_config() -> CodecRun:
    seanet = SEANetConfig(filters=4, dim=32, ratios=(2, 4, 5, 8), lstm_layers=0)
    codec = CodecConfig(24_000, seanet, levels=8, codebook_size=128)
    return encodec_recipe(codec, updates=400, batch=4, judges=4)
