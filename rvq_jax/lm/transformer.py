"""A decoder-only transformer in MusicGen's shape: pre-norm, cross-attention, GELU, no biases.

Every layer has two forms that compute the same: whole sequences for training, and one step with a
cache for decoding. Parameters of all layers are stacked and scanned over in training; decoding
unstacks them, because a scan inside the loop over steps would copy the weights at every step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rvq_jax.typing import Array


class Memory(NamedTuple):
    """A condition projected to one layer's cross-attention keys and values."""

    keys: Array  # [B, L, H, D / H]
    values: Array  # [B, L, H, D / H]
    mask: Array  # [B, L] bool


class Cache(NamedTuple):
    """One layer's self-attention keys and values, one row per step."""

    keys: Array  # [B, T, H, D / H]
    values: Array  # [B, T, H, D / H]


def weight(rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple, fan_in: int) -> nnx.Param:
    """A truncated normal of standard deviation 1 / sqrt(fan_in), with logical axis names."""
    draw = jax.random.truncated_normal(rngs.params(), -3.0, 3.0, shape)
    return nnx.Param(draw * fan_in**-0.5, axes=axes)


class LayerNorm(nnx.Module):
    """Layer normalization with scale and bias, statistics in float32 (Ba et al. 2016)."""

    def __init__(self, dim: int):
        self.scale = nnx.Param(jnp.ones(dim), axes=(None,))
        self.bias = nnx.Param(jnp.zeros(dim), axes=(None,))

    def __call__(self, x: Array) -> Array:
        y = x.astype(jnp.float32)
        y = y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y**2, -1, keepdims=True) + 1e-5)
        shape = (1,) * (x.ndim - 1) + (-1,)
        y = y * self.scale[...].reshape(shape) + self.bias[...].reshape(shape)
        return y.astype(x.dtype)


class Attention(nnx.Module):
    """Multi-head attention without biases (Vaswani et al. 2017)."""

    def __init__(self, dim: int, heads: int, rngs: nnx.Rngs):
        inner = (dim, heads, dim // heads)
        into = ("embed", "heads", None)
        self.query = weight(rngs, inner, into, dim)
        self.key = weight(rngs, inner, into, dim)
        self.value = weight(rngs, inner, into, dim)
        self.out = weight(rngs, (heads, dim // heads, dim), ("heads", None, "embed"), dim)

    def project(self, x_BTD: Array, turn: Array | None = None) -> tuple[Array, Array]:
        """Keys and values `[B, T, H, D / H]`; keys turned by angles `[T, D / 2H]` if given."""
        keys = jnp.einsum("btd,dhe->bthe", x_BTD, self.key[...].astype(x_BTD.dtype))
        values = jnp.einsum("btd,dhe->bthe", x_BTD, self.value[...].astype(x_BTD.dtype))
        return rotate(keys, turn), values

    def __call__(
        self, x_BTD: Array, keys: Array, values: Array, turn: Array | None = None, **mask
    ) -> Array:
        """Attends from x to keys and values; `mask` as jax.nn.dot_product_attention takes it."""
        queries = jnp.einsum("btd,dhe->bthe", x_BTD, self.query[...].astype(x_BTD.dtype))
        queries = rotate(queries, turn)
        y = jax.nn.dot_product_attention(queries, keys, values, **mask)
        return jnp.einsum("bthe,hed->btd", y, self.out[...].astype(x_BTD.dtype))


class Block(nnx.Module):
    """Self-attention, cross-attention, feed-forward, each on a normalized input and added."""

    def __init__(self, dim: int, heads: int, hidden: int, rngs: nnx.Rngs, *, cross: bool = True):
        self.norm_self, self.norm_mlp = LayerNorm(dim), LayerNorm(dim)
        self.attend_self = Attention(dim, heads, rngs)
        if cross:
            self.norm_cross = LayerNorm(dim)
            self.attend_cross = Attention(dim, heads, rngs)
        self.up = weight(rngs, (dim, hidden), ("embed", "mlp"), dim)
        self.down = weight(rngs, (hidden, dim), ("mlp", "embed"), hidden)

    def __call__(
        self, x_BTD: Array, memory: Memory | None = None, turn: Array | None = None, **mask
    ) -> Array:
        """The whole sequence at once; turn `[T, D / 2H]` and `mask` (is_causal=True or mask=…) are
        self-attention's."""
        y = self.norm_self(x_BTD)
        x_BTD = x_BTD + self.attend_self(y, *self.attend_self.project(y, turn), turn, **mask)
        return self._rest(x_BTD, memory)

    def step(
        self, x_B1D: Array, cache: Cache, t: Array, memory: Memory, turn: Array | None = None
    ) -> tuple[Array, Cache]:
        """Step t alone, with the keys and values of steps before it in the cache; turn `[1, …]`."""
        y = self.norm_self(x_B1D)
        key, value = self.attend_self.project(y, turn)
        keys = jax.lax.dynamic_update_slice_in_dim(cache.keys, key, t, axis=1)
        values = jax.lax.dynamic_update_slice_in_dim(cache.values, value, t, axis=1)
        past = (jnp.arange(keys.shape[1]) <= t)[None, None, None, :]
        x_B1D = x_B1D + self.attend_self(y, keys, values, turn, mask=past)
        return self._rest(x_B1D, memory), Cache(keys, values)

    def remember(self, condition_BLD: Array, mask_BL: Array) -> Memory:
        """The condition as this layer attends to it: once per sequence, not per step."""
        return Memory(*self.attend_cross.project(condition_BLD), mask_BL)

    def _rest(self, x_BTD: Array, memory: Memory | None) -> Array:
        if memory is not None:
            seen = memory.mask[:, None, None, :]
            y = self.norm_cross(x_BTD)
            x_BTD = x_BTD + self.attend_cross(y, memory.keys, memory.values, mask=seen)
        y = self.norm_mlp(x_BTD) @ self.up[...].astype(x_BTD.dtype)
        return x_BTD + jax.nn.gelu(y, approximate=False) @ self.down[...].astype(x_BTD.dtype)


def stack(count: int, make, rngs: nnx.Rngs):
    """One module whose parameters hold `count` layers, `[count, …]`; make(rngs) builds a layer."""
    keys = jax.random.split(rngs.params(), count)
    state = jax.vmap(lambda key: nnx.state(make(nnx.Rngs(params=key))))(keys)
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    return nnx.merge(graphdef, state)


def scan(stacked, x, body, *, remat: bool = False):
    """Folds x through the stacked layers: body(layer, x) -> x, compiled once for all of them."""
    graphdef, state = nnx.split(stacked)

    def one(x, layer):
        return body(nnx.merge(graphdef, layer), x), None

    return jax.lax.scan(jax.checkpoint(one) if remat else one, x, state)[0]


def unstack(stacked) -> list:
    """The stacked layers as a list of modules."""
    graphdef, state = nnx.split(stacked)
    count = jax.tree.leaves(state)[0].shape[0]
    return [nnx.merge(graphdef, jax.tree.map(lambda x: x[i], state)) for i in range(count)]  # noqa: B023


def sinusoids(steps: int, dim: int) -> np.ndarray:
    """Sinusoidal positions `[T, D]`, cosines then sines, angle t / 10000^(i / (D / 2 - 1))."""
    half = dim // 2
    rate = 10000.0 ** (-np.arange(half) / max(half - 1, 1))
    angle = np.arange(steps)[:, None] * rate[None, :]
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def angles(steps: int, dim: int) -> np.ndarray:
    """Rotary angles `[T, D / 2]` of heads of D features: t · 10000^(-2i / D) (Su et al. 2021)."""
    return np.arange(steps)[:, None] * 10000.0 ** (-np.arange(dim // 2)[None] / (dim // 2))


def rotate(x_BTHD: Array, turn: Array | None) -> Array:
    """Heads turned by angles `[T, D / 2]`, feature i with i + D / 2; as they are for None.

    Products of turned queries and keys depend on distances alone.
    """
    if turn is None:
        return x_BTHD
    cos, sin = jnp.cos(turn)[None, :, None], jnp.sin(turn)[None, :, None]
    x, y = jnp.split(x_BTHD.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([x * cos - y * sin, y * cos + x * sin], axis=-1).astype(x_BTHD.dtype)
