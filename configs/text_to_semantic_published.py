"""Words to semantic tokens at the size of AudioLM's first stage: 12 layers of 1024, phonemes.

1,024 tokens at 25 a second, utterances of 30 s at most (Borsos et al. 2022, whose own reads no
text; SPEAR-TTS, Kharitonov et al. 2023, reads one). The tokens are clusters of a speech model's
features: make those elsewhere, one .npy per record.

Command:  rvq-jax data build SPEECH --out runs/speech --codes CODEC --piece 30 --semantic TOKENS
          rvq-jax train configs/text_to_semantic_published.py --data runs/speech/train.npz \\
              --out runs/words
Time:     for a pod; it was not run
Expect:   not measured; only its shapes are tested
"""

from rvq_jax.lm.model import LMConfig
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import SemanticRun
from rvq_jax.train.state import OptimizerConfig


def get_config() -> SemanticRun:
    lm = LMConfig(
        levels=1,
        codebook_size=1024,
        dim=1024,
        layers=12,
        heads=16,
        mlp_dim=4096,
        caption_layers=0,
        caption_bytes=512,
        text_as="prefix",
        end=True,
        dtype="bfloat16",
        remat="everything",
    )
    return SemanticRun(
        speech=True,
        phonemes="en-us",
        lm=lm,
        loop=LoopConfig(steps=1_000_000, log_every=100, checkpoint_every=5000),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup=4000, ema=0.999),
        batch=256,
        frames=750,
    )
