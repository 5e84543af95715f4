"""A lookup whose codebook depends on what the earlier levels chose."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from rvq_jax import draws
from rvq_jax.quantize.state import Lookup, init, rows
from rvq_jax.trees import pytree
from rvq_jax.typing import Array, Key

TILE = 32  # vectors whose N own codewords are held at once


@pytree
@dataclass(frozen=True)
class QINCo(Lookup):
    """Implicit codebooks: a small network moves every codeword, given the sum of earlier levels.

    codeword = c + c·A + total·B + blocks of relu(x·in)·out, learned by the codebook loss.
    Huijben et al. 2024 (Residual quantization with implicit neural codebooks).
    """

    base: Array  # [K, N, D]
    from_base: Array  # [K, D, D]
    from_total: Array  # [K, D, D]
    inward: Array  # [K, blocks, D, hidden]
    outward: Array  # [K, blocks, hidden, D]

    @property
    def levels(self) -> int:
        return self.base.shape[0]

    @property
    def size(self) -> int:
        return self.base.shape[-2]

    @property
    def dim(self) -> int:
        return self.base.shape[-1]

    def search(self, input_ME: Array, total_MD: Array) -> Array:
        def tile(pair):
            input_D, total_D = pair
            words_ND = self._move(self.base, total_D[None])
            return jnp.argmin(jnp.sum((input_D[None] - words_ND) ** 2, axis=-1)).astype(jnp.int32)

        return jax.lax.map(tile, (input_ME, total_MD), batch_size=TILE)

    def codewords(self, codes_M: Array, total_MD: Array) -> Array:
        return self._move(rows(self.base, codes_M), total_MD)

    def _move(self, base_MD: Array, total_MD: Array) -> Array:
        moved_MD = base_MD + base_MD @ self.from_base + total_MD @ self.from_total
        for inward, outward in zip(self.inward, self.outward, strict=True):
            moved_MD = moved_MD + jax.nn.relu(moved_MD @ inward) @ outward
        return moved_MD

    @classmethod
    def init(
        cls, key: Key, levels: int, size: int, dim: int, hidden: int = 64, blocks: int = 2
    ) -> "QINCo":
        """Draws plain codebooks as `quantize.init` does, behind a network that moves nothing yet.

        The network's last maps are zero.

        Args:
          key: for random numbers.
          levels: number of levels K.
          size: number of codes N of every level.
          dim: number of features D.
          hidden: width of a block's hidden layer.
          blocks: number of residual blocks of each level's network.

        Returns:
          The lookup, with base codebooks `[K, N, D]`.

        Raises:
          ValueError: for levels, size or dim below 1.
        """
        book_key, in_key = jax.random.split(key)
        square = jnp.zeros((levels, dim, dim), jnp.float32)
        inward = draws.normal(in_key, (levels, blocks, dim, hidden), dim**-0.5)
        outward = jnp.zeros((levels, blocks, hidden, dim), jnp.float32)
        return cls(init(book_key, levels, size, dim).vectors, square, square, inward, outward)
