"""A small model of semantic tokens: captions to 25 tokens a second, and where a clip ends.

Command:  rvq-jax data build FOLDER --out runs/clips --codes builtin --semantic kmeans
          rvq-jax train configs/semantic_tiny.py --data runs/clips/train.npz --out runs/semantic
Time:     a minute on two cores
Expect:   fewer bits per token on heldout.npz than the 9 that 512 tokens cost untrained
"""

from rvq_jax.lm.model import LMConfig
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import SemanticRun
from rvq_jax.train.state import OptimizerConfig


def get_config() -> SemanticRun:
    return SemanticRun(
        lm=LMConfig(levels=1, codebook_size=512, dim=128, layers=2, mlp_dim=256, end=True),
        loop=LoopConfig(steps=1000, checkpoint_every=500),
        optimizer=OptimizerConfig(learning_rate=3e-3, weight_decay=0.5),
        frames=50,
    )
