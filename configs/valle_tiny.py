"""A small VALL-E over the built-in codec's tokens: 2 and 2 layers of 128, letters.

Captions are what is said; utterances of 5 s at most.

Command:  rvq-jax data build FOLDER --out runs/speech --codes builtin
          rvq-jax train configs/valle_tiny.py --data runs/speech/train.npz --out runs/valle \\
              --codec builtin
          rvq-jax speak --model runs/valle/model --text "three seven" --out numbers.wav
Time:     not timed
Expect:   fewer bits per frame on heldout.npz than the 80 that 8 levels of 1,024 cost untrained
"""

import dataclasses

from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import VALLERun
from rvq_jax.train.state import OptimizerConfig


def get_config() -> VALLERun:
    run = VALLERun()
    sizes = {"codebook_size": 1024, "dim": 128, "layers": 2, "mlp_dim": 512}
    return dataclasses.replace(
        run,
        first=dataclasses.replace(run.first, **sizes),
        rest=dataclasses.replace(run.rest, **sizes, levels=8),
        loop=LoopConfig(steps=2000, checkpoint_every=500),
        optimizer=OptimizerConfig(learning_rate=3e-3, weight_decay=0.1),
    )
