"""Quantizer dropout: training with fewer levels, so that every prefix decodes well."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from rvq_jax.typing import Array, Key


@dataclass(frozen=True)
class Dropout:
    """Which items lose their last levels, and how many levels remain.

    Zeghidour et al. 2021 (SoundStream §III.C); per item in DAC, per batch from a list in EnCodec.
    """

    rate: float = 0.5  # share of items (or of batches) that keep fewer levels
    choices: tuple[int, ...] | None = None  # levels that may be kept; None for 1..K
    per_batch: bool = False  # one draw for the whole batch

    def kept(self, key: Key, batch: int, levels: int) -> Array:
        """Levels kept `[B]`; raises ValueError if a choice is outside 1..K."""
        choices = tuple(range(1, levels + 1)) if self.choices is None else self.choices
        if not choices or min(choices) < 1 or max(choices) > levels:
            raise ValueError(f"dropout choices must be in 1..{levels}, got {choices}")
        if not 0.0 <= self.rate <= 1.0:
            raise ValueError(f"dropout rate must be in 0..1, got {self.rate}")

        def draw(item):
            # Folded per item: an item's draw must not depend on the size of its batch.
            choose, count = jax.random.split(jax.random.fold_in(key, item))
            # Of 32 bits, so that draws are the same where JAX has 64.
            chosen = jax.random.randint(count, (), 0, len(choices), jnp.int32)
            drops = jax.random.bernoulli(choose, jnp.float32(self.rate))
            return jnp.where(drops, jnp.array(choices, jnp.int32)[chosen], levels)

        items_B = jnp.zeros(batch, jnp.int32) if self.per_batch else jnp.arange(batch)
        return jax.vmap(draw)(items_B)


def multiples(of: int, levels: int) -> tuple[int, ...]:
    """Choices `of`, 2·`of`, … up to K, as EnCodec's training draws them with 4."""
    return tuple(range(of, levels + 1, of))


def bandwidths(kbps: tuple[float, ...], frame_rate: float, bits: float) -> tuple[int, ...]:
    """Choices of levels that fit each bandwidth in kbit/s, for `bits` per code.

    Raises ValueError for a bandwidth below one level's.
    """
    counts = tuple(int(1000 * rate / (frame_rate * bits) + 1e-6) for rate in kbps)
    if min(counts, default=0) < 1:
        raise ValueError(f"one level takes {frame_rate * bits / 1000} kbps, got bandwidths {kbps}")
    return counts
