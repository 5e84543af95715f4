"""Lookups without codebooks: each dimension is rounded to a grid, or to a sign."""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from rvq_jax.quantize.state import Lookup
from rvq_jax.trees import pytree
from rvq_jax.typing import Array


@pytree
@dataclass(frozen=True)
class FSQ(Lookup):
    """Finite scalar quantization: dimension d is rounded to grid[d] points, evenly from -1 to 1.

    Level k rounds what level k-1 left, on a grid grid[d]^k times finer. The latents are first
    bounded by a tanh to the cells of the grid. N = product of the grid; dimension 0 varies fastest.
    Mentzer et al. 2023 (FSQ); Parker et al. 2024, §3.2, for the symmetric grid.
    """

    scale: Array  # [K, D]
    grid: tuple[int, ...] = field(metadata={"static": True})

    @property
    def levels(self) -> int:
        return self.scale.shape[0]

    @property
    def size(self) -> int:
        return math.prod(self.grid)

    @property
    def dim(self) -> int:
        return len(self.grid)

    def enter(self, latents_MD: Array) -> Array:
        # The outermost points own cells as wide as the others, half of it outside [-1, 1].
        edge_1D = 1.0 + 1.0 / (self._steps() - 1.0)
        return edge_1D * jnp.tanh(latents_MD / edge_1D)

    def project(self, residual_MD: Array) -> Array:
        return residual_MD / jax.lax.stop_gradient(self.scale)[None]

    def search(self, input_ME: Array, total_MD: Array) -> Array:
        last_1D = self._steps() - 1.0
        place_MD = jnp.floor(last_1D * (jnp.clip(input_ME, -1, 1) + 1.0) / 2.0 + 0.5)
        return jnp.sum(place_MD.astype(jnp.int32) * self._strides(), axis=-1, dtype=jnp.int32)

    def codewords(self, codes_M: Array, total_MD: Array) -> Array:
        place_MD = (codes_M[:, None] // self._strides()) % jnp.array(self.grid, jnp.int32)[None]
        inside_M1 = ((codes_M >= 0) & (codes_M < self.size))[:, None]
        return jnp.where(inside_M1, place_MD * (2.0 / (self._steps() - 1.0)) - 1.0, jnp.nan)

    def unproject(self, code_ME: Array) -> Array:
        return code_ME * jax.lax.stop_gradient(self.scale)[None]

    def _steps(self) -> Array:
        return jnp.array(self.grid, jnp.float32)[None]

    def _strides(self) -> Array:
        return jnp.array([[math.prod(self.grid[:d]) for d in range(len(self.grid))]], jnp.int32)

    @classmethod
    def init(cls, levels: int, grid: tuple[int, ...]) -> "FSQ":
        """Nothing is random; raises ValueError for a grid of fewer than 2 points."""
        if levels < 1 or not grid or min(grid) < 2:
            raise ValueError(f"FSQ needs levels >= 1 and grids >= 2 points, got {levels}, {grid}")
        finer_K1 = jnp.arange(levels, dtype=jnp.float32)[:, None]
        return cls(jnp.array(grid, jnp.float32)[None] ** -finer_K1, tuple(grid))


@pytree
@dataclass(frozen=True)
class LFQ(Lookup):
    """Lookup-free quantization: the code is the signs of D dimensions, N = 2^D.

    Level k's codewords are ±2^-k in each dimension; the first dimension is the highest bit.
    Yu et al. 2023 (MAGVIT-v2), with their entropy loss.
    """

    scale: Array  # [K]
    dim: int = field(metadata={"static": True})

    SHARPNESS = 100.0  # of the soft assignment that the entropy is taken of

    @property
    def levels(self) -> int:
        return self.scale.shape[0]

    @property
    def size(self) -> int:
        return 2**self.dim

    def search(self, input_ME: Array, total_MD: Array) -> Array:
        return jnp.sum((input_ME > 0) * self._bits(), axis=-1, dtype=jnp.int32)

    def codewords(self, codes_M: Array, total_MD: Array) -> Array:
        positive_MD = (codes_M[:, None] & self._bits()) != 0
        inside_M1 = ((codes_M >= 0) & (codes_M < self.size))[:, None]
        scale = jax.lax.stop_gradient(self.scale)
        return jnp.where(inside_M1, jnp.where(positive_MD, scale, -scale), jnp.nan)

    def entropy_loss(self, input_ME: Array, weight_M: Array) -> Array:
        """Mean entropy of a vector's soft assignment minus the entropy of the mean one, in nats.

        Small when every vector is sure and all codes are used.
        """
        codebook_ND = self.codewords(jnp.arange(self.size), None)
        # -(squared distance) up to a term that is the same for every code.
        logits_MN = (
            2.0
            * self.SHARPNESS
            * jnp.matmul(input_ME, codebook_ND.T, precision=jax.lax.Precision.HIGHEST)
        )
        log_MN = jax.nn.log_softmax(logits_MN, axis=-1)
        share_MN = jnp.exp(log_MN)
        each = -jnp.sum(weight_M * jnp.sum(share_MN * log_MN, axis=-1))
        mean_N = weight_M @ share_MN
        together = -jnp.sum(mean_N * jnp.log(jnp.maximum(mean_N, 1e-20)))
        return each - together

    def _bits(self) -> Array:
        return 2 ** jnp.arange(self.dim - 1, -1, -1, dtype=jnp.int32)[None]

    @classmethod
    def init(cls, levels: int, dim: int) -> "LFQ":
        """Nothing is random; raises ValueError outside 1 to 20 dimensions."""
        if levels < 1 or not 1 <= dim <= 20:
            raise ValueError(f"LFQ needs levels >= 1 and 1 to 20 dims, got {levels}, {dim}")
        return cls(0.5 ** jnp.arange(levels, dtype=jnp.float32), dim)
