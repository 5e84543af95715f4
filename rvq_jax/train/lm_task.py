"""What training a token language model means: its loss, and condition dropout."""

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.lm.model import LMConfig, TokenLM, score
from rvq_jax.patterns import Pattern
from rvq_jax.train.state import Task
from rvq_jax.typing import Array, Key


def lm_task(config: LMConfig, pattern: Pattern, condition_dropout: float = 0.1) -> Task:
    """Mean bits per code over batches of codes `[B, K, F]`, mask `[B, F]`, text `[B, L]`.

    The pattern travels in the state: patterns of one shape share one compiled step.
    condition_dropout: share of examples trained without their caption, drawn per example, for
    classifier-free guidance.
    """
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: TokenLM(config, nnx.Rngs(0))))

    def init(key: Key):
        return nnx.state(TokenLM(config, nnx.Rngs(params=key)), nnx.Param)

    def loss(params, pattern, batch, key):
        model = nnx.merge(graphdef, params)
        text_BL = drop(key, batch["text"], batch["index"], condition_dropout)
        bits_BKF = score(model, pattern, batch["codes"], text_BL, batch["mask"])
        frames = jnp.maximum(batch["mask"].sum(), 1)
        bits_K = bits_BKF.sum((0, 2)) / frames
        return bits_K.mean(), (pattern, {"bits_per_frame": bits_K.sum(), "bits_by_level": bits_K})

    return Task(init, jax.tree.map(jnp.asarray, pattern), loss)


def drop(key: Key, text_BL: Array, index_B: Array, share: float) -> Array:
    """Text with the captions of a share of examples emptied; each draw is its own record's."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index_B)
    kept_B = jax.vmap(lambda k: jax.random.bernoulli(k, 1.0 - share))(keys)
    return jnp.where(kept_B[:, None], text_BL, 0)
