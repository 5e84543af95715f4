"""The kinds of run: each a config, and what trains it."""

from rvq_jax.train.runs.batches import check_batch
from rvq_jax.train.runs.codec import CodecRun, samples_of, train_codec
from rvq_jax.train.runs.lm import LMRun, lm_program, musicgen_recipe, train_lm

__all__ = [
    "CodecRun",
    "LMRun",
    "check_batch",
    "lm_program",
    "musicgen_recipe",
    "samples_of",
    "train_codec",
    "train_lm",
]
