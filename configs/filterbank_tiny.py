"""A codec of the built-in one's size in minutes, for a laptop: learned filterbanks, two distances.

16 kHz, causal, 50 frames per second, 8 levels of 1024 codes (4 kbps). Most of the weight is on the
waveform, which is what a short run can learn: voices and tunes are there, with noise over them. The
rate is constant up to a cool-down, so that the run can be given more --loop.steps; to go on under
losses that ask more of the spectrum, begin another from its folder (docs/tutorials/first_codec.md).

Command:  rvq-jax data build FOLDER --out runs/audio
          rvq-jax train configs/filterbank_tiny.py --data runs/audio --out runs/codec --listened 3
Time:     0.2 s an update on two cores: five minutes
Expect:   a positive SI-SDR on held-out clips; docs/tutorials/first_codec.md has a run's numbers
"""

from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import FilterbankRun
from rvq_jax.train.state import OptimizerConfig
from rvq_jax.train.tasks.codec_losses import CodecLossConfig


def get_config() -> FilterbankRun:
    return FilterbankRun(
        loss=CodecLossConfig(waveform=200.0, mel=0.6, commitment=0.2, decay=0.99),
        loop=LoopConfig(steps=1500, checkpoint_every=500),
        optimizer=OptimizerConfig(
            learning_rate=1e-3,
            warmup=100,
            schedule="constant",
            cooldown=500,
            b1=0.8,
            b2=0.99,
            weight_decay=0.0,
        ),
        batch=16,
        seconds=1.0,
    )
