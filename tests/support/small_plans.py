"""Runs that are planned in seconds, and what they cost by hand."""

import dataclasses

from small_runs import RUN

from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.train.runs import CodecRun
from rvq_jax.train.runs.shapes import TOKENS

LM = LMConfig(
    levels=3,
    codebook_size=40,
    dim=32,
    layers=3,
    heads=4,
    mlp_dim=96,
    text_dim=24,
    positions="sinusoidal",
)


BIG = dataclasses.replace(RUN, lm=LM, batch=8, frames=50)


def by_hand(run, remat: bool, shown: bool = False) -> float:
    """FLOPs of an update: projections, attention, feed-forward and heads of every row; shown: of
    scores those alone that the causal mask shows."""
    lm, T, L = run.lm, run.task().aux.steps, TOKENS
    D = lm.dim
    attend = 2 * T * D * D * 4 + 2 * 2 * T * D * ((T + 1) / 2 if shown else T)
    cross = 2 * T * D * D * 2 + 2 * L * D * D * 2 + 2 * 2 * T * L * D
    up = down = 2 * T * D * lm.mlp_dim
    layer = attend + cross + up + down
    heads, text = 2 * T * D * lm.levels * lm.codebook_size, 2 * L * lm.text_dim * D
    # The text has no gradient of its own. Recomputing leaves out what no gradient asks for.
    again = layer - down if remat else 0
    return run.batch * (lm.layers * (3 * layer + again) + 3 * heads + 2 * text)


def codec_run() -> CodecRun:
    seanet = SEANetConfig(filters=4, dim=8, ratios=(4,), lstm_layers=0)
    codec = CodecConfig(8_000, seanet, levels=2, codebook_size=4)
    return CodecRun(codec, batch=4, seconds=2048 / 8_000)
