"""A small model from words to 25 semantic tokens a second, for SoundStorm to speak from.

Command:  rvq-jax data build FOLDER --out runs/speech --codes builtin --semantic kmeans
          rvq-jax train configs/text_to_semantic_tiny.py --data runs/speech/train.npz \\
              --out runs/words
          rvq-jax train configs/soundstorm_tiny.py --data runs/speech/train.npz \\
              --out runs/soundstorm --codec builtin --semantic runs/words/model
          rvq-jax speak --model runs/soundstorm/model --text "three seven" --out numbers.wav
Time:     not timed
Expect:   fewer bits per token on heldout.npz than the 9 that 512 tokens cost untrained
"""

from rvq_jax.lm.model import LMConfig
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import SemanticRun
from rvq_jax.train.runs.valle import READS
from rvq_jax.train.state import OptimizerConfig


def get_config() -> SemanticRun:
    lm = LMConfig(
        levels=1,
        codebook_size=512,
        dim=128,
        layers=2,
        mlp_dim=512,
        text_as="prefix",
        end=True,
        **READS,
    )
    return SemanticRun(
        speech=True,
        lm=lm,
        loop=LoopConfig(steps=2000, checkpoint_every=500),
        optimizer=OptimizerConfig(learning_rate=3e-3, weight_decay=0.1),
        frames=125,
    )
