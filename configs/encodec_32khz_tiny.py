"""MusicGen's EnCodec recipe at 32 kHz for a laptop: 50 frames per second, 4 levels of 128 codes.

Balancer and discriminators are those of configs/encodec_32khz.py, with an eighth of the features or
less.

Command:  rvq-jax data build --out runs/audio_32khz --rate 32000
          rvq-jax train configs/encodec_32khz_tiny.py --data runs/audio_32khz --out runs/codec
Time:     minutes on two cores; not timed on a quiet machine
Expect:   not run to the end; four hundred updates are too few to hear what discriminators add
"""

from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.train.runs import CodecRun
from rvq_jax.train.runs.codec_recipes import audiocraft_recipe


def get_config() -> CodecRun:
    options = {"causal": False, "true_skip": True, "lstm_layers": 0}
    seanet = SEANetConfig(filters=4, dim=32, ratios=(4, 4, 5, 8), **options)
    codec = CodecConfig(32_000, seanet, levels=4, codebook_size=128)
    return audiocraft_recipe(codec, updates=400, batch=4, judges=4)
