"""A small SoundStorm over the built-in codec's tokens: 2 layers of 128, crops of 2 s.

Command:  rvq-jax data build FOLDER --out runs/clips --codes builtin --semantic kmeans
          rvq-jax train configs/semantic_tiny.py --data runs/clips/train.npz --out runs/semantic
          rvq-jax train configs/soundstorm_tiny.py --data runs/clips/train.npz \\
              --out runs/soundstorm --codec builtin --semantic runs/semantic/model
          rvq-jax generate --model runs/soundstorm/model --prompt "a slow piano" --out piano.wav
Time:     ten minutes on two cores
Expect:   fewer bits per masked code on heldout.npz than the 10 that 1,024 codes cost untrained
"""

from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import MaskedRun
from rvq_jax.train.state import OptimizerConfig


def get_config() -> MaskedRun:
    return MaskedRun(
        lm=MaskedLMConfig(
            levels=8,
            codebook_size=1024,
            dim=128,
            layers=2,
            mlp_dim=256,
            semantic_size=512,
            semantic_ratio=2,
        ),
        loop=LoopConfig(steps=2000, checkpoint_every=500),
        optimizer=OptimizerConfig(learning_rate=3e-3, weight_decay=0.1),
        frames=100,
    )
