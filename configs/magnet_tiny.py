"""A small MAGNeT over the built-in codec's tokens: 2 layers of 128, crops of 2 s.

Command:  rvq-jax data build FOLDER --out runs/clips --codes builtin
          rvq-jax train configs/magnet_tiny.py --data runs/clips/train.npz --out runs/magnet \\
              --codec builtin
          rvq-jax generate --model runs/magnet/model --prompt "a slow piano" --out piano.wav
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
            mlp_dim=512,
            block="transformer",
            masking="spans",
            span=3,
            context=5,
            text=True,
        ),
        loop=LoopConfig(steps=2000, checkpoint_every=500),
        optimizer=OptimizerConfig(learning_rate=3e-3, weight_decay=0.1),
        frames=100,
    )
