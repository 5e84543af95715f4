"""Adapters of rank 16 on a MusicGen, for an hour or so of one's own captioned music.

The model in --init-from gives sizes, pattern, codec and text encoder; the run keeps them, so that
runs/tuned/model is a whole MusicGen with the adapters merged, in the format that it came in.
With --lora.rank None all weights are trained: take a rate of 1e-5 to 1e-4 then.

Command:  rvq-jax data build MUSIC --out runs/mine --codes MUSICGEN --piece 30
          rvq-jax train configs/musicgen_finetune_lora.py --init-from MUSICGEN \\
              --data runs/mine/train.npz --out runs/tuned
Time:     by the model; a published one wants an accelerator, where it was not run
Expect:   fewer bits per frame on runs/mine/heldout.npz; experiments/finetune/RESULTS.md has how
          many for a small model
"""

from rvq_jax.lm.lora import LoRAConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import LMRun
from rvq_jax.train.state import OptimizerConfig
from rvq_jax.train.tasks.lm import ConditionDropout


def get_config() -> LMRun:
    return LMRun(
        lm=LMConfig(dtype="bfloat16", remat="everything"),
        loop=LoopConfig(steps=1000, checkpoint_every=250),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup=50, weight_decay=0.0),
        batch=8,
        frames=500,
        condition_dropout=ConditionDropout(all=0.1),
        lora=LoRAConfig(rank=16, alpha=16.0),
    )
