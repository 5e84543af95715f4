"""From logits to a token: temperature, top-k, top-p."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rvq_jax.typing import Array, Key


class Sampling(NamedTuple):
    """How tokens are sampled: traced numbers, so that another value does not recompile."""

    temperature: float | Array = 1.0  # 0 takes the largest logit
    top_k: int | Array = 0  # largest logits to sample from; 0 for all
    top_p: float | Array = 0.0  # of these the fewest that have this probability; 0 for all


PLAIN = Sampling()


def sample(key: Key, logits: Array, sampling: Sampling = PLAIN) -> Array:
    """Samples indices `[...]` int32 from logits `[..., N]`, all with one key.

    Top-p is of what top-k leaves, as in transformers (Holtzman et al. 2020).
    """
    temperature, top_k, top_p = sampling
    greedy = jnp.argmax(logits, axis=-1)
    cold = jnp.asarray(temperature) <= 0
    logits = limit(logits / jnp.where(cold, 1.0, temperature), top_k, top_p)
    drawn = jax.random.categorical(key, logits, axis=-1)
    return jnp.where(cold, greedy, drawn).astype(jnp.int32)


def limit(logits: Array, top_k: int | Array, top_p: float | Array) -> Array:
    """Logits `[..., N]` with -inf for what top-k and top-p, as of `Sampling`, leave out."""
    ordered = jnp.sort(logits, axis=-1, descending=True)
    rank = jnp.arange(logits.shape[-1]).reshape((1,) * (logits.ndim - 1) + (-1,))
    kept = (rank < top_k) | (jnp.asarray(top_k) <= 0)
    p = jax.nn.softmax(jnp.where(kept, ordered, -jnp.inf), axis=-1)
    # A token stays if the mass before it is below p: the first always does.
    kept &= (jnp.cumsum(p, axis=-1) - p < top_p) | (jnp.asarray(top_p) <= 0)
    least = jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits < least, -jnp.inf, logits)
