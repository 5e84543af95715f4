"""An RQ-Transformer of Moshi's shape (Défossez et al. 2024): 7.3 billion parameters.

Music or speech of 8 levels at 12.5 frames a second from a text, not a dialogue: there is one stream
of codes, and the text is read by a frozen encoder. Batch, updates and rates are of this library's
choice. `rvq_jax.systems.rq_transformer` has CSM's shape too.

Command:  rvq-jax data build MUSIC --out runs/music_mimi --codes mimi_24khz --piece 240
          rvq-jax train configs/rq_transformer_published.py --data runs/music_mimi/train.npz \\
              --out runs/rq_transformer --codec mimi_24khz --text t5-base
Time:     for a pod; it was not run
Expect:   not measured; only its shapes are tested
"""

import dataclasses

from rvq_jax.systems.rq_transformer import moshi_7b
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import LMRun
from rvq_jax.train.state import OptimizerConfig
from rvq_jax.train.tasks.lm import ConditionDropout


def get_config() -> LMRun:
    lm = moshi_7b()
    return LMRun(
        pattern="partial_delay",
        lm=dataclasses.replace(lm, dtype="bfloat16", remat="everything"),
        loop=LoopConfig(steps=1_000_000, log_every=100, checkpoint_every=5000),
        # In three parts, or 64 chips of 16 GB have no room for it: --mesh data=1,fsdp=64.
        optimizer=OptimizerConfig(
            learning_rate=3e-5, warmup=4000, weight_decay=0.1, ema=0.999, accumulate=3
        ),
        batch=192,
        frames=lm.window,
        condition_dropout=ConditionDropout(all=0.3),
    )
