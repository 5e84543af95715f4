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
    # Share of the last `RECENT` tokens above which one of them is sampled again, from all; None for
    # any (repetition-aware sampling, Chen et al. 2024, VALL-E 2).
    repetition: float | Array | None = None


RECENT = 10  # tokens
PLAIN = Sampling()


def sample(
    key: Key, logits: Array, sampling: Sampling = PLAIN, recent: Array | None = None
) -> Array:
    """Samples indices `[...]` int32 from logits `[..., N]`, all with one key.

    Top-p is of what top-k leaves, as in transformers (Holtzman et al. 2020).

    Args:
      key: for random numbers.
      logits: `[..., N]`.
      sampling: how.
      recent: `[..., W]`, the tokens before, for `sampling.repetition`.

    Returns:
      The indices.
    """
    temperature, top_k, top_p, repetition = sampling
    greedy = jnp.argmax(logits, axis=-1)
    cold = jnp.asarray(temperature) <= 0
    warm = logits / jnp.where(cold, 1.0, temperature)
    drawn = jax.random.categorical(key, limit(warm, top_k, top_p), axis=-1)
    drawn = jnp.where(cold, greedy, drawn)
    if repetition is not None:
        often = (recent == drawn[..., None]).mean(axis=-1) > repetition
        free = jax.random.categorical(jax.random.fold_in(key, 1), warm, axis=-1)
        drawn = jnp.where(often, free, drawn)
    return drawn.astype(jnp.int32)


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
