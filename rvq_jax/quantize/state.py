"""The state of a residual quantizer: codebooks and the running statistics they are made of.

A lookup is one way to find and read a codeword. It is a pytree whose arrays have a leading [K], so
that a `lax.scan` over the levels hands each level its own; the methods below see one level.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from rvq_jax import draws
from rvq_jax.quantize.search import nearest
from rvq_jax.tracing import typed
from rvq_jax.trees import pytree
from rvq_jax.typing import Array, Key, Vectors


class Lookup:
    """What the scan over levels asks of a lookup; these defaults are those of a plain codebook.

    M vectors of D features; inside a level they may live in a code space of E features. A lookup
    has `levels`, `size` and `dim`; `with_books(books)` if its `books` are not None; and either
    `table()`, all codewords `[N, E]`, or a `search` and `codewords` of its own.
    """

    euclidean = False  # whether it picks the nearest of a table of vectors in the latent space
    books = None  # the codebooks that running means can teach, if there are any

    def stacked(self):
        """The lookup with a leading [K] on every array, for the scan over levels."""
        return self

    def enter(self, latents_MD: Array) -> Array:
        """What level 1 sees of the latents."""
        return latents_MD

    def project(self, residual_MD: Array) -> Array:
        """Latent space to code space `[M, E]`."""
        return residual_MD

    def search(self, input_ME: Array, total_MD: Array) -> Array:
        """Codes `[M]` of inputs in code space; total_MD is the sum of the earlier levels."""
        return nearest(self.direction(input_ME), self.direction(self.table()))

    def direction(self, vectors: Array) -> Array:
        """What of a vector the search compares and a running mean follows."""
        return vectors

    def codewords(self, codes_M: Array, total_MD: Array) -> Array:
        """Codewords `[M, E]` of codes; NaN for a code outside [0, N), never another's codeword."""
        return rows(self.table(), codes_M)

    def unproject(self, code_ME: Array) -> Array:
        """Code space to latent space `[M, D]`."""
        return code_ME

    def entropy_loss(self, input_ME: Array, weight_M: Array) -> Array:
        """A loss that spreads the use of codes, for lookups without codebooks."""
        return jnp.zeros((), jnp.float32)

    def first(self, levels: int | None):
        """The first `levels` levels (all for None); raises ValueError outside 1..K."""
        if levels is None or levels == self.levels:
            return self
        if not 1 <= levels <= self.levels:
            raise ValueError(f"levels must be in 1..{self.levels}, got {levels}")
        return jax.tree.map(lambda x: x[:levels], self)


@pytree
@dataclass(frozen=True)
class Codebooks(Lookup):
    """K codebooks of N vectors, each vector the ratio of two running means.

    `counts` are shares of use, not numbers of vectors: nothing below then depends on the size of
    the batch or on how many devices share it. A codebook that learned nothing yet has counts of 0;
    they approach a sum of 1, and their ratio with `sums` is unbiased from the first batch on.
    van den Oord et al. 2017 (VQ-VAE).
    """

    vectors: Array  # [K, N, D]
    sums: Array  # [K, N, D], running mean over input vectors of (vector if it chose code n else 0)
    counts: Array  # [K, N], running share of input vectors that chose code n
    sizes: Array | None = None  # [K], codes in use where levels have fewer than N; None for all N

    euclidean = True

    @classmethod
    def of(cls, vectors: Array, sizes: Array | None = None):
        """Given vectors `[K, N, D]` as codebooks that have learned nothing yet."""
        vectors = jnp.asarray(vectors, jnp.float32)
        # Not of a weak type, which would compile a training step twice.
        return cls(vectors, jnp.zeros_like(vectors), jnp.zeros_like(vectors[..., 0]), sizes)

    @property
    def levels(self) -> int:
        return self.vectors.shape[0]

    @property
    def size(self) -> int:
        return self.counts.shape[-1]

    @property
    def dim(self) -> int:
        return self.vectors.shape[-1]

    @property
    def books(self) -> "Codebooks":
        return self

    def with_books(self, books: "Codebooks") -> "Codebooks":
        return books

    def table(self) -> Array:
        return self.vectors

    def search(self, input_ME: Array, total_MD: Array) -> Array:
        return nearest(self.direction(input_ME), self.direction(self.vectors), self.sizes)


@pytree
@dataclass(frozen=True)
class Cosine(Codebooks):
    """Codebooks searched by direction: the codeword of the greatest cosine, returned as stored.

    Yu et al. 2021 (ViT-VQGAN); DAC's codebooks inside `Projected`.
    """

    euclidean = False

    def direction(self, vectors: Array) -> Array:
        return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)

    @classmethod
    def init(cls, key: Key, levels: int, size: int, dim: int) -> "Cosine":
        """Draws random unit vectors as codebooks.

        Args:
          key: for random numbers.
          levels: number of levels K.
          size: number of codes N of every level.
          dim: number of features D.

        Returns:
          Codebooks `[K, N, D]` that have learned nothing yet.

        Raises:
          ValueError: for a number below 1.
        """
        books = init(key, levels, size, dim)
        lengths = jnp.linalg.norm(books.vectors, axis=-1, keepdims=True)
        return cls.of(books.vectors / lengths, books.sizes)


def init(key: Key, levels: int, size: int | Sequence[int], dim: int) -> Codebooks:
    """Draws random codebooks for unit-variance inputs, each level half the scale of the one before.

    Learning starts better from data: see `start`.

    Args:
      key: for random numbers.
      levels: number of levels K.
      size: number of codes N of every level, or K numbers of codes, one per level.
      dim: number of features D.

    Returns:
      Codebooks `[K, N, D]` that have learned nothing yet; N is the largest of several sizes.

    Raises:
      ValueError: for a size or number below 1, or sizes that are not one per level.
    """
    sizes = (size,) * levels if isinstance(size, int) else tuple(size)
    if levels < 1 or dim < 1 or min(sizes, default=0) < 1:
        raise ValueError(f"levels, size and dim must be at least 1, got {levels}, {size}, {dim}")
    if len(sizes) != levels:
        raise ValueError(f"{levels} levels need as many sizes, got {len(sizes)}")
    size = max(sizes)
    scale = 0.5 ** np.arange(levels, dtype=np.float32)[:, None, None]
    vectors = draws.normal(typed(key), (levels, size, dim), scale)
    per_level = None if min(sizes) == size else jnp.array(sizes, jnp.int32)
    return Codebooks.of(vectors, per_level)


def rows(table_ND: Array, codes: Array) -> Vectors:
    """Rows of a table by index; NaN outside [0, N), where plain indexing would wrap or clamp."""
    codes = jnp.where(codes < 0, table_ND.shape[0], codes)
    return table_ND.at[codes].get(mode="fill", fill_value=jnp.nan)
