"""The kinds of run: each a config, and what depends on its kind."""

from rvq_jax.train.runs.batches import check_batch
from rvq_jax.train.runs.codec import (
    CodecRun,
    DACRun,
    FilterbankRun,
    MimiRun,
    TrainedCodec,
    train_codec,
)
from rvq_jax.train.runs.lm import LMRun, musicgen_recipe, train_lm
from rvq_jax.train.runs.masked import MaskedRun, train_masked
from rvq_jax.train.runs.run import Run
from rvq_jax.train.runs.semantic import SemanticRun
from rvq_jax.train.runs.valle import VALLERun, train_valle

__all__ = [
    "CodecRun",
    "DACRun",
    "FilterbankRun",
    "LMRun",
    "MaskedRun",
    "MimiRun",
    "Run",
    "SemanticRun",
    "TrainedCodec",
    "VALLERun",
    "check_batch",
    "musicgen_recipe",
    "train_codec",
    "train_lm",
    "train_masked",
    "train_valle",
]
