"""A codec for a laptop: 16 kHz, 50 frames per second, 4 levels of 128 codes (1.4 kbps).

Command:  rvq-jax data build --out runs/dataset
          rvq-jax train configs/codec_tiny.py --data runs/dataset --out runs/codec
Time:     about three minutes on two cores
Expect:   every level uses more than 80 % of its codes on the training set
"""

from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import CodecRun


def get_config() -> CodecRun:
    return CodecRun(loop=LoopConfig(steps=1000, checkpoint_every=250))
