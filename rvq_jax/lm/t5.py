"""T5's encoder: the frozen reader of the captions that MusicGen is conditioned on.

Layers are pre-norm, without biases or absolute positions: attention adds a learned bias for each
range of distances, the same in all layers, and does not scale its logits. It only runs for
inference, so every layer has arrays of its own. Here L counts tokens of a prompt.

Raffel et al. 2020 (T5); Shazeer 2020 (gated feed-forwards, in version 1.1 and Flan); Zhang and
Sennrich 2019 (RMS normalization).
"""

import functools
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rvq_jax.lm.transformer import weight
from rvq_jax.typing import Array

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
}


@dataclass(frozen=True)
class T5Config:
    """Sizes of an encoder; the defaults are t5-base's."""

    vocab: int = 32128
    dim: int = 768  # D, features of a token
    layers: int = 12
    heads: int = 12  # H
    head_dim: int = 64
    mlp_dim: int = 3072  # features inside the feed-forward
    gated: bool = False  # the feed-forward's activation multiplies a second product
    activation: Literal["relu", "gelu_new"] = "relu"  # gelu_new is by tanh
    buckets: int = 32  # ranges of distances with a bias each, half of them for either side
    distance: int = 128  # where the last range begins, about
    eps: float = 1e-6  # of the norms

    def build(self, rngs: nnx.Rngs) -> "T5Encoder":
        """The encoder of this config."""
        return T5Encoder(self, rngs)


class T5Encoder(nnx.Module):
    """Tokens int32 `[B, L]` and their mask `[B, L]` to states `[B, L, D]` (Raffel et al. 2020).

    Raises ValueError for sizes below 1, an unknown activation, or ranges of distances that leave
    no room.
    """

    def __init__(self, config: T5Config, rngs: nnx.Rngs):
        c = self.config = config
        if min(c.vocab, c.dim, c.layers, c.heads, c.head_dim, c.mlp_dim) < 1:
            raise ValueError(f"every size must be at least 1, got {c}")
        if c.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be of {list(ACTIVATIONS)}, got {c.activation!r}")
        if c.buckets < 4 or c.distance <= c.buckets // 4:
            raise ValueError(f"{c.buckets} buckets do not reach a distance of {c.distance}")
        self.embed = weight(rngs, (c.vocab, c.dim), ("vocab", "embed"), 1)
        self.bias = weight(rngs, (c.buckets, c.heads), (None, "heads"), 1)
        self.layers = nnx.List([Layer(c, rngs) for _ in range(c.layers)])
        self.norm = nnx.RMSNorm(c.dim, epsilon=c.eps, rngs=rngs)

    def __call__(self, ids_BL: Array, mask_BL: Array) -> Array:
        """States float32, zero where the mask is False; what stands there changes nothing."""
        x_BLD = self.embed[...][ids_BL].astype(jnp.float32)
        ranges_LL = relative_buckets(ids_BL.shape[1], self.config.buckets, self.config.distance)
        bias_HLL = self.bias[...][ranges_LL].astype(jnp.float32).transpose(2, 0, 1)
        for layer in self.layers:
            x_BLD = layer(x_BLD, bias_HLL, mask_BL)
        return jnp.where(mask_BL[..., None], self.norm(x_BLD), 0.0)


class Layer(nnx.Module):
    """Self-attention, then a feed-forward, each on a normalized input and added."""

    def __init__(self, config: T5Config, rngs: nnx.Rngs):
        c = self.config = config
        inner, ways = c.heads * c.head_dim, 2 if c.gated else 1
        self.norm_self = nnx.RMSNorm(c.dim, epsilon=c.eps, rngs=rngs)
        self.norm_mlp = nnx.RMSNorm(c.dim, epsilon=c.eps, rngs=rngs)
        # Queries, keys and values side by side; so too the gate and what it multiplies.
        self.qkv = weight(rngs, (c.dim, 3 * inner), ("embed", "heads"), c.dim)
        self.out = weight(rngs, (inner, c.dim), ("heads", "embed"), inner)
        self.up = weight(rngs, (c.dim, ways * c.mlp_dim), ("embed", "mlp"), c.dim)
        self.down = weight(rngs, (c.mlp_dim, c.dim), ("mlp", "embed"), c.mlp_dim)

    def __call__(self, x_BLD: Array, bias_HLL: Array, mask_BL: Array) -> Array:
        """The next layer's input; no token sees one whose mask is False."""
        c = self.config
        heads = (*x_BLD.shape[:2], 3 * c.heads, c.head_dim)
        y = (self.norm_self(x_BLD) @ self.qkv[...]).reshape(heads)
        y = jax.nn.dot_product_attention(
            *jnp.split(y, 3, axis=2), bias_HLL[None], mask_BL[:, None, None], scale=1.0
        )
        x_BLD = x_BLD + y.reshape(*x_BLD.shape[:2], -1) @ self.out[...]
        y = self.norm_mlp(x_BLD) @ self.up[...]
        gate, *rest = jnp.split(y, 2 if c.gated else 1, axis=-1)
        y = ACTIVATIONS[c.activation](gate)
        return x_BLD + (y * rest[0] if c.gated else y) @ self.down[...]


def relative_buckets(length: int, buckets: int, distance: int) -> np.ndarray:
    """The range of distances `[L, L]` int32 that a query (row) sees a key (column) in.

    The first half of the ranges is for keys at or before the query. On either side half of them
    hold one distance each; the others widen, and the last has all from about `distance` on.
    """
    side, exact = buckets // 2, buckets // 4
    ahead_LL = np.arange(length)[None, :] - np.arange(length)[:, None]
    far_LL = np.abs(ahead_LL)
    # In float32, whose rounding decides where a range begins, as when the models were trained.
    octaves_LL = np.log(np.maximum(far_LL, exact).astype(np.float32) / np.float32(exact))
    wide_LL = octaves_LL / np.float32(np.log(distance / exact)) * np.float32(side - exact)
    wide_LL = np.minimum(exact + wide_LL.astype(np.int32), side - 1)
    ranges_LL = np.where(far_LL < exact, far_LL, wide_LL) + side * (ahead_LL > 0)
    return ranges_LL.astype(np.int32)
