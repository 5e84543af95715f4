"""Arrangements of levels: pytrees whose parts are quantizer states again.

Grouped(books)           groups of features, each with K levels of its own
Split(first, rest)       two quantizers of the same latents, their outputs added (Mimi)
Bottleneck(…, inner)     a quantizer between two linear maps (Mimi)
Strided(books, strides)  levels at lower frame rates (SNAC)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from rvq_jax import draws
from rvq_jax.quantize.lookups import Projected
from rvq_jax.quantize.state import Lookup
from rvq_jax.trees import pytree
from rvq_jax.typing import Array, Codes, Key


@pytree
@dataclass(frozen=True)
class Grouped:
    """G groups of D/G features, each quantized by K levels of its own.

    Codes are `[B, K·G, F]`, level by level, so that a prefix of whole levels decodes.
    Yang et al. 2023 (HiFi-Codec).
    """

    books: Lookup  # every array with a leading [G]

    @property
    def groups(self) -> int:
        return jax.tree.leaves(self.books)[0].shape[0]

    @property
    def one(self) -> Lookup:
        """The first group."""
        return jax.tree.map(lambda x: x[0], self.books)

    @property
    def levels(self) -> int:
        return self.groups * self.one.levels

    @property
    def size(self) -> int:
        return self.one.size

    @property
    def dim(self) -> int:
        return self.groups * self.one.dim

    @classmethod
    def of(cls, parts: Sequence[Lookup]) -> "Grouped":
        """Groups of the given states, which must be alike in kind and shape."""
        return cls(jax.tree.map(lambda *x: jnp.stack(x), *parts))


@pytree
@dataclass(frozen=True)
class Split:
    """Two quantizers of the *same* latents; decoded, they are added. Codes: first, then rest.

    Défossez et al. 2024 (Moshi, §3.3.4): one semantic level beside the acoustic ones.
    """

    first: "State"
    rest: "State"

    @property
    def levels(self) -> int:
        return self.first.levels + self.rest.levels

    @property
    def size(self) -> int:
        return max(self.first.size, self.rest.size)

    @property
    def dim(self) -> int:
        return self.first.dim


@pytree
@dataclass(frozen=True)
class Bottleneck:
    """A quantizer in E dimensions between two linear maps without bias (Mimi's 512, 256, 512)."""

    down: Array  # [D, E]
    up: Array  # [E, D]
    inner: "State"

    @property
    def levels(self) -> int:
        return self.inner.levels

    @property
    def size(self) -> int:
        return self.inner.size

    @property
    def dim(self) -> int:
        return self.down.shape[0]

    @classmethod
    def init(cls, key: Key, dim: int, inner: "State") -> "Bottleneck":
        """Random maps that keep the variance."""
        down_key, up_key = jax.random.split(key)
        down = draws.normal(down_key, (dim, inner.dim), dim**-0.5)
        up = draws.normal(up_key, (inner.dim, dim), inner.dim**-0.5)
        return cls(down, up, inner)


@pytree
@dataclass(frozen=True)
class Strided:
    """Level k codes means of strides[k] frames and repeats them: coarse levels at low frame rates.

    Codes are `[B, K, F]` with repeats; `compact` drops them. F must be a multiple of every stride.
    Siuzdak et al. 2024 (SNAC).
    """

    books: Lookup
    strides: tuple[int, ...] = field(metadata={"static": True})

    @property
    def levels(self) -> int:
        return self.books.levels

    @property
    def size(self) -> int:
        return self.books.size

    @property
    def dim(self) -> int:
        return self.books.dim

    def compact(self, codes: Codes) -> tuple[Array, ...]:
        """Codes `[B, F / strides[k]]` of each level."""
        strides = self.strides[: codes.shape[1]]
        return tuple(codes[:, k, ::stride] for k, stride in enumerate(strides))

    def expand(self, codes: Sequence[Array]) -> Codes:
        """The inverse of `compact`."""
        strides = self.strides[: len(codes)]
        return jnp.stack([jnp.repeat(c, s, 1) for c, s in zip(codes, strides, strict=True)], 1)


State = Lookup | Grouped | Split | Bottleneck | Strided


def random_projection(
    key: Key, codebooks: int, size: int, dim: int, code_dim: int = 16
) -> Projected | Split:
    """Draws random maps to few dimensions and random unit codebooks there, never to be learned.

    Every codebook codes the same latents: targets for self-supervised speech models, not codes to
    decode. Normalise the latents first, as the paper does; in `quantize` give it `Frozen()`. Chiu
    et al. 2022 (BEST-RQ).

    Args:
      key: for random numbers.
      codebooks: number of maps, each with a codebook.
      size: number of codes N of each.
      dim: number of features D of the latents.
      code_dim: number of features of the codewords.

    Returns:
      A quantizer with one level for each codebook.

    Raises:
      ValueError: for a number below 1, or code_dim above dim.
    """
    if codebooks < 1:
        raise ValueError(f"codebooks must be at least 1, got {codebooks}")
    first_key, rest_key = jax.random.split(key)
    first = Projected.init(first_key, 1, size, dim, code_dim)
    if codebooks == 1:
        return first
    return Split(first, random_projection(rest_key, codebooks - 1, size, dim, code_dim))
