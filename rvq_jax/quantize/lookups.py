"""Lookups made of other parts: codes in few dimensions, codebooks behind a matrix, shared ones."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from rvq_jax.quantize.state import Codebooks, Cosine, Lookup, init
from rvq_jax.trees import pytree
from rvq_jax.typing import Array, Key

HIGHEST = jax.lax.Precision.HIGHEST


@pytree
@dataclass(frozen=True)
class Projected(Lookup):
    """Every level looks its residual up in a few dimensions, by linear maps of its own.

    Kumar et al. 2023 (Improved RVQGAN, DAC): 8 dimensions, codebooks searched by cosine.
    """

    down: Array  # [K, D, E]
    down_bias: Array  # [K, E]
    up: Array  # [K, E, D]
    up_bias: Array  # [K, D]
    inner: Lookup  # of E features

    @property
    def levels(self) -> int:
        return self.down.shape[0]

    @property
    def size(self) -> int:
        return self.inner.size

    @property
    def dim(self) -> int:
        return self.down.shape[-2]

    @property
    def books(self) -> Codebooks | None:
        return self.inner.books

    def with_books(self, books: Codebooks) -> "Projected":
        inner = self.inner.with_books(books)
        return Projected(self.down, self.down_bias, self.up, self.up_bias, inner)

    def project(self, residual_MD: Array) -> Array:
        inside_ME = jnp.matmul(residual_MD, self.down, precision=HIGHEST) + self.down_bias[None]
        return self.inner.project(self.inner.enter(inside_ME))

    def table(self) -> Array:
        return self.inner.table()

    def search(self, input_ME: Array, total_MD: Array) -> Array:
        return self.inner.search(input_ME, total_MD)

    def codewords(self, codes_M: Array, total_MD: Array) -> Array:
        return self.inner.codewords(codes_M, total_MD)

    def direction(self, vectors: Array) -> Array:
        return self.inner.direction(vectors)

    def unproject(self, code_ME: Array) -> Array:
        inside_ME = self.inner.unproject(code_ME)
        return jnp.matmul(inside_ME, self.up, precision=HIGHEST) + self.up_bias[None]

    def entropy_loss(self, input_ME: Array, weight_M: Array) -> Array:
        return self.inner.entropy_loss(input_ME, weight_M)

    @classmethod
    def init(cls, key: Key, levels: int, size: int, dim: int, code_dim: int = 8) -> "Projected":
        """Draws orthonormal maps, `up` the transpose of `down`, and unit codebooks.

        So every level takes something out of the residual from the start.

        Args:
          key: for random numbers.
          levels: number of levels K.
          size: number of codes N of every level.
          dim: number of features D of the latents.
          code_dim: number of features of the codewords.

        Returns:
          The lookup, with codebooks `[K, N, code_dim]` searched by cosine.

        Raises:
          ValueError: if code_dim is not in 1..dim, or levels or size is below 1.
        """
        if not 1 <= code_dim <= dim:
            raise ValueError(f"code_dim must be in 1..{dim}, got {code_dim}")
        map_key, book_key = jax.random.split(key)
        return cls.around(map_key, dim, Cosine.init(book_key, levels, size, code_dim))

    @classmethod
    def around(cls, key: Key, dim: int, inner: Lookup) -> "Projected":
        """The same maps around any lookup of fewer dimensions, as FSQ.

        Raises ValueError for a shared codebook: every level's projection wants codes of its own.
        """
        if isinstance(inner, Shared):
            raise ValueError("Projected and Shared clash: each level's maps need its own codebook")
        levels, code_dim = inner.levels, inner.dim
        down = jax.random.orthogonal(key, dim, (levels,), jnp.float32)[:, :, :code_dim]
        return cls(
            down,
            jnp.zeros((levels, code_dim), jnp.float32),
            down.swapaxes(1, 2),
            jnp.zeros((levels, dim), jnp.float32),
            inner,
        )


@pytree
@dataclass(frozen=True)
class SimVQ(Lookup):
    """Frozen random codebooks behind one learned matrix, so that every code moves at each step.

    Zhu et al. 2024 (Addressing representation collapse with one linear layer).
    """

    frozen: Array  # [K, N, D], never learned
    matrix: Array  # [K, D, D], learned by the codebook loss

    euclidean = True

    @property
    def levels(self) -> int:
        return self.frozen.shape[0]

    @property
    def size(self) -> int:
        return self.frozen.shape[-2]

    @property
    def dim(self) -> int:
        return self.frozen.shape[-1]

    def table(self) -> Array:
        frozen = jax.lax.stop_gradient(self.frozen)
        return jnp.matmul(frozen, self.matrix, precision=HIGHEST)

    @classmethod
    def init(cls, key: Key, levels: int, size: int, dim: int) -> "SimVQ":
        """Draws codebooks as `quantize.init` does, behind identity matrices.

        Args:
          key: for random numbers.
          levels: number of levels K.
          size: number of codes N of every level.
          dim: number of features D.

        Returns:
          The lookup, with frozen codebooks `[K, N, D]` and matrices `[K, D, D]`.

        Raises:
          ValueError: for a number below 1.
        """
        eye = jnp.broadcast_to(jnp.eye(dim, dtype=jnp.float32), (levels, dim, dim))
        return cls(init(key, levels, size, dim).vectors, eye)


@pytree
@dataclass(frozen=True)
class Shared(Lookup):
    """One codebook for all K levels, taught by the residuals of all of them."""

    one: Codebooks  # [1, N, D]
    levels: int = field(metadata={"static": True})

    euclidean = True

    @property
    def size(self) -> int:
        return self.one.size

    @property
    def dim(self) -> int:
        return self.one.dim

    @property
    def books(self) -> Codebooks:
        return self.one

    def with_books(self, books: Codebooks) -> "Shared":
        return Shared(books, self.levels)

    def stacked(self) -> Codebooks:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (self.levels, *x.shape[1:])), self.one)

    def table(self) -> Array:
        return self.stacked().table()

    def first(self, levels: int | None) -> "Shared":
        if levels is not None and not 1 <= levels <= self.levels:
            raise ValueError(f"levels must be in 1..{self.levels}, got {levels}")
        return Shared(self.one, levels or self.levels)

    @classmethod
    def init(cls, key: Key, levels: int, size: int, dim: int) -> "Shared":
        """Draws one random codebook of unit variance, used by every level.

        Args:
          key: for random numbers.
          levels: number of levels K that use it.
          size: number of codes N.
          dim: number of features D.

        Returns:
          The lookup, with one codebook `[1, N, D]`.

        Raises:
          ValueError: for size or dim below 1.
        """
        return cls(init(key, 1, size, dim), levels)
