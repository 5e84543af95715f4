"""A small RQ-Transformer: a Llama over frames, a depth transformer over the 8 levels of each.

A step for each frame, as `parallel` takes, with all dependences that `flatten` has in eight; see
experiments/exactness.

Command:  rvq-jax data build --out runs/music --codes builtin
          rvq-jax train configs/rq_transformer_tiny.py --data runs/music/train.npz \\
              --out runs/rq_transformer_tiny --codec builtin
Time:     five minutes of CPU time; not timed on a quiet machine
Expect:   62.8 bits per frame on held-out clips, of 80
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
            levels=8,
            codebook_size=1024,
            dim=128,
            layers=1,
            mlp_dim=256,
            block="llama",
            depth=DepthConfig(),
        ),
        loop=LoopConfig(steps=1000, checkpoint_every=500),
        optimizer=OptimizerConfig(learning_rate=8e-3, weight_decay=0.5),
        frames=60,
    )
