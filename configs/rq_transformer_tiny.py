"""A small RQ-Transformer: a Llama over frames, a depth transformer over the 4 levels of each.

In one step a frame, as `parallel` takes, its codes are as exact as `flatten`'s in four; see
experiments/exactness. Over codes of configs/codec_tiny.py.

Command:  rvq-jax train configs/rq_transformer_tiny.py --data runs/quickstart/codes/train.npz \\
              --out runs/rq_transformer_tiny --codec runs/quickstart/codec/model
Time:     TIME
Expect:   EXPECT
"""

from rvq_jax.lm.depth import DepthConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import LMRun
from rvq_jax.train.state import OptimizerConfig


def get_config() -> LMRun:
    return LMRun(
        pattern="parallel",
        lm=LMConfig(
            codebook_size=128, dim=128, layers=1, mlp_dim=256, block="llama", depth=DepthConfig()
        ),
        loop=LoopConfig(steps=1000, checkpoint_every=500),
        optimizer=OptimizerConfig(learning_rate=8e-3, weight_decay=0.5),
        frames=60,
    )
