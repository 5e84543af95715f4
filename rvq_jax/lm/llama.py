"""The block of published language models: RMSNorm, grouped queries, a gated feed-forward.

Its forms, whole and step by step, are those of `transformer.Block`; rotary angles come from outside
there too. Touvron et al. 2023 (Llama); of the models of audio tokens Moshi and CSM have it.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.lm.transformer import Attention, Block, weight
from rvq_jax.typing import Array


class RMSNorm(nnx.Module):
    """Features over the root of their mean square, in float32, scaled (Zhang & Sennrich 2019)."""

    def __init__(self, dim: int, eps: float = 1e-5):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(dim), axes=(None,))

    def __call__(self, x: Array, axis: int = -1) -> Array:
        """x with the features along one of its axes normalized."""
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y**2, axis, keepdims=True) + self.eps)
        others = [i for i in range(x.ndim) if i != axis % x.ndim]
        return (y * jnp.expand_dims(self.scale[...], others)).astype(x.dtype)


class LlamaBlock(Block):
    """Self-attention, cross-attention if asked for, SwiGLU (Shazeer 2020), each on RMSNorm."""

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_dim: int,
        rngs: nnx.Rngs,
        *,
        kv_heads: int | None = None,
        eps: float = 1e-5,
        cross: bool = False,
    ):
        """kv_heads: of keys and values, each for heads / kv_heads queries; None: as many as of
        queries. eps: of the norms."""
        self.norm_self, self.norm_mlp = RMSNorm(dim, eps), RMSNorm(dim, eps)
        self.attend_self = Attention(dim, heads, rngs, kv_heads)
        if cross:
            self.norm_cross = RMSNorm(dim, eps)
            self.attend_cross = Attention(dim, heads, rngs, kv_heads)
        self.gate = weight(rngs, (mlp_dim, dim), ("mlp", "embed"), dim)
        self.up = weight(rngs, (mlp_dim, dim), ("mlp", "embed"), dim)
        self.down = weight(rngs, (dim, mlp_dim), ("embed", "mlp"), mlp_dim)

    def inner(self, times) -> Array:
        """As of `Block`: one product decides how much of the other comes through."""
        return jax.nn.silu(times(self.gate[...])) * times(self.up[...])
