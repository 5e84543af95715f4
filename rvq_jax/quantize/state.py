"""The state of a residual quantizer: codebooks and the running statistics they are made of."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rvq_jax.typing import Array, Key


class Codebooks(NamedTuple):
    """K codebooks of N vectors, each vector the ratio of two running means.

    `counts` are shares of use (they sum to 1 over a codebook), not numbers of vectors: nothing
    below then depends on the size of the batch or on how many devices share it.
    """

    vectors: Array  # [K, N, D]
    sums: Array  # [K, N, D], running mean over input vectors of (vector if it chose code n else 0)
    counts: Array  # [K, N], running share of input vectors that chose code n

    @property
    def levels(self) -> int:
        return self.vectors.shape[0]

    @property
    def size(self) -> int:
        return self.vectors.shape[1]

    @property
    def dim(self) -> int:
        return self.vectors.shape[2]

    def first(self, levels: int | None) -> "Codebooks":
        """The first `levels` codebooks (all for None); raises ValueError outside 1..K."""
        if levels is None or levels == self.levels:
            return self
        if not 1 <= levels <= self.levels:
            raise ValueError(f"levels must be in 1..{self.levels}, got {levels}")
        return jax.tree.map(lambda x: x[:levels], self)


def init(key: Key, levels: int, size: int, dim: int) -> Codebooks:
    """Random codebooks `[K, N, D]` of unit-variance inputs, each level half the scale before.

    Learning starts better from data: see `start`.
    """
    scale = 0.5 ** jnp.arange(levels, dtype=jnp.float32)[:, None, None]
    vectors = jax.random.normal(key, (levels, size, dim)) * scale
    # With its type: a weak one would compile a training step twice.
    counts = jnp.full((levels, size), 1.0 / size, jnp.float32)
    return Codebooks(vectors, vectors * counts[..., None], counts)
