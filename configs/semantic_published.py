"""A semantic stage of AudioLM's size (Borsos et al. 2022): 12 layers of 1024, 25 tokens a second.

1,024 tokens, crops of 30 s, captions by a frozen T5. AudioLM's own reads no text, and its tokens
are clusters of w2v-BERT's features: make those elsewhere, one .npy per record.

Command:  rvq-jax data build CLIPS --out runs/clips --codes encodec_32khz --piece 30 \\
              --semantic TOKENS
          rvq-jax train configs/semantic_published.py --data runs/clips/train.npz \\
              --out runs/semantic --text t5-base
Time:     for a pod; it was not run
Expect:   not measured; only its shapes are tested
"""

from rvq_jax.lm.model import LMConfig
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import SemanticRun
from rvq_jax.train.state import OptimizerConfig


def get_config() -> SemanticRun:
    return SemanticRun(
        lm=LMConfig(
            levels=1,
            codebook_size=1024,
            dim=1024,
            layers=12,
            heads=16,
            mlp_dim=4096,
            text_dim=768,
            window=750,
            end=True,
            dtype="bfloat16",
            remat="everything",
        ),
        loop=LoopConfig(steps=1_000_000, log_every=100, checkpoint_every=5000),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup=4000, ema=0.999),
        batch=256,
        frames=750,
    )
