"""What training a token language model means: its loss, and condition dropout."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.lm import forms
from rvq_jax.lm.conditions import Told, tell, without_melody, without_text
from rvq_jax.lm.model import LMConfig, TokenLM, score
from rvq_jax.patterns import Pattern
from rvq_jax.train.state import Task
from rvq_jax.typing import Array, Key


@dataclass(frozen=True)
class Dropout:
    """Shares of examples trained without their conditions, for classifier-free guidance."""

    all: float = 0.1  # without any of them
    text: float = 0.0  # of the rest, without the text
    melody: float = 0.0  # of the rest, without the melody


def lm_task(
    config: LMConfig, pattern: Pattern, dropout: Dropout = Dropout(), start: nnx.State | None = None
) -> Task:
    """Mean bits per code over batches of codes `[B, K, F]`, mask `[B, F]`, text `[B, L]`.

    With a frozen text encoder, batches have its states `[B, L, E]` and text_mask `[B, L]` in
    place of the text, and perhaps a melody `[B, P, bins]`. The pattern travels in the state:
    patterns of one shape share one compiled step. start: parameters to begin with, with lists of
    layers; drawn anew without.
    """

    def init(key: Key):
        if start is not None:
            return jax.tree.map(jnp.zeros_like, forms.abstract(config, stacked=True))
        return nnx.state(TokenLM(config, nnx.Rngs(params=key)), nnx.Param)

    def loss(params, pattern, batch, key):
        model = forms.model(config, params, stacked=True)
        value, metrics = mean_bits(model, pattern, batch, key, dropout)
        return value, (pattern, metrics)

    given = None if start is None else forms.stack(config, start)
    rest = jax.tree.map(jnp.asarray, pattern)
    return Task(init, rest, loss, given=given, weight=frames_of)


def mean_bits(
    model: TokenLM, pattern: Pattern, batch: dict, key: Key, dropout: Dropout
) -> tuple[Array, dict]:
    """Mean bits per code of a batch, and metrics."""
    told = drop(key, told_of(batch), batch["index"], dropout)
    bits_BKF = score(model, pattern, batch["codes"], told, batch["mask"])
    frames = jnp.maximum(frames_of(batch), 1)
    bits_K = bits_BKF.sum((0, 2)) / frames
    return bits_K.mean(), {"bits_per_frame": bits_K.sum(), "bits_by_level": bits_K}


def frames_of(batch: dict) -> Array:
    """Frames of a batch that are not padding."""
    return batch["mask"].sum()


def told_of(batch: dict) -> Told:
    """What a batch tells the model beside the codes."""
    if "states" not in batch:
        return batch["text"]
    return tell(batch["states"], batch["text_mask"], batch.get("melody"))


def drop(key: Key, told: Told, index_B: Array, dropout: Dropout) -> Told:
    """Conditions left out of a share of examples; each draw is its own record's."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index_B)
    draws_B3 = jax.vmap(lambda k: jax.random.uniform(k, 3))(keys)
    any_B = draws_B3[:, 0] >= dropout.all
    told = without_text(told, any_B & (draws_B3[:, 1] >= dropout.text))
    return without_melody(told, any_B & (draws_B3[:, 2] >= dropout.melody))
