"""VALL-E (Wang et al. 2023): 12 and 12 layers of 1024, EnCodec's 8 levels at 75 frames a second.

Phonemes of English, utterances of 20 s at most. The paper has 32,000 updates of warmup to 5e-4, a
linear decay, 800,000 updates of 6,000 codes on each of 16 GPUs: here 64 utterances, a cosine.

Command:  rvq-jax data build SPEECH --out runs/speech --codes encodec_24khz --piece 20
          rvq-jax train configs/valle_published.py --data runs/speech/train.npz \\
              --out runs/valle --codec encodec_24khz
Time:     for a pod; it was not run
Expect:   not measured; only its shapes are tested
"""

import dataclasses

from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import VALLERun
from rvq_jax.train.state import OptimizerConfig


def get_config() -> VALLERun:
    run = VALLERun()
    sizes = {"codebook_size": 1024, "dim": 1024, "layers": 12, "heads": 16, "mlp_dim": 4096}
    sizes |= {"positions": "sinusoidal", "caption_bytes": 512, "dtype": "bfloat16"}
    sizes["remat"] = "everything"
    return dataclasses.replace(
        run,
        first=dataclasses.replace(run.first, **sizes),
        rest=dataclasses.replace(run.rest, **sizes, levels=8),
        loop=LoopConfig(steps=800_000, log_every=100, checkpoint_every=5000),
        optimizer=OptimizerConfig(learning_rate=5e-4, warmup=32_000, weight_decay=0.01, ema=0.999),
        batch=64,
        frames=1500,
        phonemes="en-us",
    )
