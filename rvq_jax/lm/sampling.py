"""From logits to a token: temperature, top-k, top-p, and classifier-free guidance."""

import jax
import jax.numpy as jnp

from rvq_jax.typing import Array, Key


def guide(conditional: Array, unconditional: Array, guidance: float | Array) -> Array:
    """Logits moved away from the unconditional ones (Ho & Salimans 2022); 1 leaves them as is."""
    return unconditional + guidance * (conditional - unconditional)


def sample(
    key: Key, logits: Array, *, temperature: float | Array = 1.0, top_k: int = 0, top_p: float = 0.0
) -> Array:
    """Draws an index `[...]` int32 from logits `[..., N]` with one key.

    temperature 0 takes the largest logit. top_k keeps the k largest (0: all), top_p the fewest
    largest whose probability reaches p (0: all; Holtzman et al. 2020); both together intersect.
    """
    size = logits.shape[-1]
    greedy = jnp.argmax(logits, axis=-1)
    cold = jnp.asarray(temperature) <= 0
    logits = logits / jnp.where(cold, 1.0, temperature)
    least = -jnp.inf
    if 0 < top_k < size:
        least = jax.lax.top_k(logits, top_k)[0][..., -1:]
    if top_p > 0:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        p = jax.nn.softmax(ordered, axis=-1)
        # A token stays if the mass before it is below p: the first always does.
        kept = jnp.cumsum(p, axis=-1) - p < top_p
        enough = jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1, keepdims=True)
        least = jnp.maximum(least, enough)
    logits = jnp.where(logits < least, -jnp.inf, logits)
    drawn = jax.random.categorical(key, logits, axis=-1)
    return jnp.where(cold, greedy, drawn).astype(jnp.int32)
