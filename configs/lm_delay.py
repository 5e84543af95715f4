"""A small token model with the delay pattern, over codes of configs/codec_tiny.py.

Command:  rvq-jax train configs/lm_delay.py --data runs/quickstart/codes/train.npz \\
              --out runs/lm_delay --codec runs/quickstart/codec/model
Time:     about a minute on two cores
Expect:   the bits per frame of the delay row of the quickstart's table
"""

from rvq_jax.lm.model import LMConfig
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import LMRun
from rvq_jax.train.state import OptimizerConfig


def get_config() -> LMRun:
    return LMRun(
        pattern="delay",
        lm=LMConfig(codebook_size=128, dim=128, layers=1, mlp_dim=256),
        loop=LoopConfig(steps=1000, checkpoint_every=500),
        optimizer=OptimizerConfig(learning_rate=8e-3, weight_decay=0.5),
        frames=60,
    )
