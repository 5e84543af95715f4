"""MusicGen medium (1.5B; Copet et al. 2023): 1.84 billion parameters, 30 seconds of 32 kHz audio.

The published recipe: AdamW 1e-4 with a cosine to zero, 192 crops of 30 s per update, a million
updates. Its running mean of 0.99 every 10 updates is 0.999 at every update here.

Command:  rvq-jax data build MUSIC --out runs/music --codes encodec_32khz --piece 120
          rvq-jax train configs/musicgen_medium.py --data runs/music/train.npz \\
              --out runs/musicgen_medium --codec encodec_32khz --text t5-base --fsdp 8
Time:     for a pod; it was not run
Expect:   not measured; only its shapes are tested
"""

from rvq_jax.lm.model import LMConfig
from rvq_jax.train.lm_task import Dropout
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import LMRun
from rvq_jax.train.state import OptimizerConfig


def get_config() -> LMRun:
    return LMRun(
        pattern="delay",
        lm=LMConfig(
            levels=4,
            size=2048,
            dim=1536,
            layers=48,
            heads=24,
            hidden=6144,
            positions="sinusoidal",
            text_dim=768,
            window=1500,
            dtype="bfloat16",
            remat=True,
        ),
        loop=LoopConfig(steps=1_000_000, log_every=100, checkpoint_every=5000),
        tuning=OptimizerConfig(
            learning_rate=1e-4,
            warmup=4000,
            b1=0.9,
            b2=0.95,
            weight_decay=0.1,
            clip=1.0,
            ema=0.999,
        ),
        batch=192,
        frames=1500,
        dropout=Dropout(all=0.3),
    )
