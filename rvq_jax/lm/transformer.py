"""A decoder-only transformer in MusicGen's shape: pre-norm, cross-attention, GELU, no biases.

Published language models' shape is a `Block` too, see `rvq_jax.lm.llama`.

Every layer has two forms that compute the same: whole sequences for training and prompts, and one
step with a cache for decoding. In training the parameters of all layers are stacked and scanned
over; elsewhere they are lists, as a scan inside the loop over steps would copy them at every step.
Weights have the axes that come out first. A step's activations are columns `[D, B]`, not rows: on a
CPU a step takes the same time for B = 2, two thirds of it for B = 8, and half of it for B = 32.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rvq_jax import draws
from rvq_jax.axes import meshed, place
from rvq_jax.lm.attention import Form, attend
from rvq_jax.lm.filled import of_filled
from rvq_jax.lm.precision import Int8, split
from rvq_jax.typing import Array


class CrossKV(NamedTuple):
    """A condition projected to one layer's cross-attention keys and values."""

    keys: Array  # [B, H, D / H, L], of grouped-query attention fewer heads, here and below
    values: Array  # [B, H, L, D / H]
    mask: Array  # [B, L] bool


class KVCache(NamedTuple):
    """One layer's self-attention keys and values, for every step of the sequence and its prefix."""

    keys: Array  # [B, H, D / H, T]
    values: Array  # [B, H, T, D / H]

    def update(self, new: "KVCache", position: Array | int) -> "KVCache":
        """With keys and values of the positions from `position` on."""
        keys = jax.lax.dynamic_update_slice_in_dim(self.keys, new.keys, position, axis=3)
        values = jax.lax.dynamic_update_slice_in_dim(self.values, new.values, position, axis=2)
        return KVCache(keys, values)

    def first(self, length: int) -> "KVCache":
        """Of the first positions alone."""
        return KVCache(self.keys[..., :length], self.values[:, :, :length])


def weight(rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple, fan_in: int) -> nnx.Param:
    """A weight drawn from a truncated normal of standard deviation 1 / sqrt(fan_in).

    Args:
      rngs: of the draw.
      shape: of the weight, axes that come out first.
      axes: logical names of its axes, for `rvq_jax.axes`.
      fan_in: how many inputs a sum has.

    Returns:
      The parameter.
    """
    return nnx.Param(draws.truncated_normal(rngs.params(), shape, fan_in**-0.5), axes=axes)


class LayerNorm(nnx.Module):
    """Layer normalization with scale and bias, statistics in float32 (Ba et al. 2016)."""

    def __init__(self, dim: int, levels: int | None = None):
        """levels: K, each with a scale and bias of its own (VALL-E's adaptive norm); None: one."""
        shape = (dim,) if levels is None else (levels, dim)
        axes = (None,) * len(shape)
        self.scale = nnx.Param(jnp.ones(shape), axes=axes)
        self.bias = nnx.Param(jnp.zeros(shape), axes=axes)

    def __call__(self, x: Array, axis: int = -1, level: Array | None = None) -> Array:
        """x with the features along one of its axes normalized.

        level: of all rows or `[B]` of each, where levels have their own; features are last then.
        """
        y = x.astype(jnp.float32)
        y = y - y.mean(axis, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y**2, axis, keepdims=True) + 1e-5)
        if self.scale.ndim == 1:
            others = [i for i in range(x.ndim) if i != axis % x.ndim]
            scale, bias = (jnp.expand_dims(p[...], others) for p in (self.scale, self.bias))
        else:
            rows = jnp.reshape(level, -1)
            scale, bias = (p[...][rows][:, None] for p in (self.scale, self.bias))
        return (y * scale + bias).astype(x.dtype)


class Attention(nnx.Module):
    """Multi-head attention without biases (Vaswani et al. 2017).

    Each head of keys and values may serve several neighbouring queries (Ainslie et al. 2023).
    """

    def __init__(self, dim: int, heads: int, rngs: nnx.Rngs, kv_heads: int | None = None):
        kv, width, axes = kv_heads or heads, dim // heads, ("heads", None, "embed")
        self.query = weight(rngs, (heads, width, dim), axes, dim)
        self.key_value = weight(rngs, (2, kv, width, dim), (None, *axes), dim)
        self.out = weight(rngs, (dim, heads, dim // heads), ("embed", "heads", None), dim)

    def project(self, x_BTD: Array, angles: Array | None = None) -> KVCache:
        """Keys and values; keys rotated by angles `[B, T, D / 2H]` if given."""
        keys, values = project(x_BTD, self.key_value[...]).transpose(2, 0, 3, 1, 4)
        return KVCache(rotate(keys, angles).swapaxes(2, 3), values)

    def project_step(self, x_DB: Array, angles: Array | None = None) -> KVCache:
        """Keys and values of one position."""
        keys, values = product(self.key_value[...], x_DB).transpose(0, 3, 1, 2)[:, :, :, None]
        return KVCache(rotate(keys, angles).swapaxes(2, 3), values)

    def __call__(
        self, x_BTD: Array, keys: Array, values: Array, angles: Array | None = None, **mask
    ) -> Array:
        """Attends from x to keys and values; `mask` as `rvq_jax.lm.attention.attend` takes it."""
        queries = rotate(project(x_BTD, self.query[...]).swapaxes(1, 2), angles).swapaxes(1, 2)
        keys, values = keys.transpose(0, 3, 1, 2), values.swapaxes(1, 2)
        # Said of the result, it holds for the gradient that comes back: each device its own heads.
        y_BTHE = attend(queries, keys, values, **mask)
        y_BTHE = place(y_BTHE, "batch", None, "heads", None)
        return project(y_BTHE, self.out[...])

    def step(
        self, x_DB: Array, keys: Array, values: Array, mask_BT: Array, angles: Array | None = None
    ) -> Array:
        """Attends from one position to those in the mask; equal to the whole sequence at once.

        Products of one row are sums, which XLA fuses with reading the cache.

        Args:
          x_DB: the position's features, as columns.
          keys: `[B, H, D / H, T]`.
          values: `[B, H, T, D / H]`.
          mask_BT: positions that are seen.
          angles: `[B, 1, D / 2H]` rotary angles of the query; None for none.

        Returns:
          Features, as columns `[D, B]`.
        """
        query_BH1E = product(self.query[...], x_DB).transpose(2, 0, 1)[:, :, None]
        query_BHE1 = rotate(query_BH1E, angles).swapaxes(2, 3)
        if keys.shape[1] != query_BHE1.shape[1]:
            times = query_BHE1.shape[1] // keys.shape[1]
            keys, values = (jnp.repeat(x, times, axis=1) for x in (keys, values))
        # In float32 at any precision of the cache, as products of matrices sum.
        scores_BHT = jnp.sum(query_BHE1.astype(jnp.float32) * keys, axis=2)
        scores_BHT = scores_BHT * values.shape[-1] ** -0.5
        scores_BHT = jnp.where(mask_BT[:, None], scores_BHT, jnp.finfo(jnp.float32).min)
        weights_BHT1 = jax.nn.softmax(scores_BHT, axis=-1)[..., None]
        y_BHE = jnp.sum(weights_BHT1 * values, axis=2).astype(x_DB.dtype)
        return product(flat(self.out[...]), y_BHE.transpose(1, 2, 0).reshape(x_DB.shape))


def project(x_BTD: Array, weight: Array | Int8, dtype=None) -> Array:
    """x times a weight: `[B, T, …]` of a weight `[…, D]`, `[B, T, D]` of one of heads `[D, H, E]`.

    As a product of matrices: with more axes XLA copies the weight, ten times slower on a CPU. A
    gradient keeps the weight as it came: of a matrix made of it, or of its cast, a gradient through
    a scan would keep a copy for each layer. On a mesh axes stay apart: with one split behind a
    whole one, as heads behind keys and values, no device has a piece of both together, and XLA
    would gather them.

    Args:
      x_BTD: features; `[B, T, H, E]` of heads.
      weight: axes that come out first.
      dtype: of the result; None for x's own.

    Returns:
      The product.
    """
    return jax.checkpoint(partial(_project, dtype), prevent_cse=False)(x_BTD, weight)


def _project(dtype, x_BTD: Array, weight: Array | Int8) -> Array:
    weight, scale = split(weight)
    if x_BTD.ndim > 3:
        weight = flat(weight)
        x_BTD = x_BTD.reshape(*x_BTD.shape[:2], weight.shape[-1])  # -1 fails for B = 0
    weight = weight.astype(x_BTD.dtype)
    together = weight if meshed() else weight.reshape(-1, weight.shape[-1])
    sums = dtype if scale is None else jnp.float32
    dims = (((2,), (together.ndim - 1,)), ((), ()))
    y = jax.lax.dot_general(x_BTD, together, dims, preferred_element_type=sums)
    y = y.reshape(*x_BTD.shape[:2], *weight.shape[:-1])
    return y if scale is None else (y * scale[None, None]).astype(dtype or x_BTD.dtype)


def product(weight: Array | Int8, x_DB: Array, dtype=None) -> Array:
    """`[…, B]`: columns projected to all but the last axis of a weight `[…, D]`, as `project`."""
    weight, scale = split(weight)
    weight = weight.astype(x_DB.dtype)
    together = weight if meshed() else weight.reshape(-1, weight.shape[-1])
    sums = dtype if scale is None else jnp.float32
    dims = (((together.ndim - 1,), (0,)), ((), ()))
    y = jax.lax.dot_general(together, x_DB, dims, preferred_element_type=sums)
    if dtype is not None:
        # Else XLA would transpose the product itself: a CPU has no such one with sums of its own.
        y = jax.lax.optimization_barrier(y)
    y = y.reshape(*weight.shape[:-1], -1)
    return y if scale is None else (y * scale[..., None]).astype(dtype or x_DB.dtype)


def flat(weight_DHE: Array | Int8) -> Array | Int8:
    """`[D, HE]`: a weight of all heads together."""
    if isinstance(weight_DHE, Int8):
        return Int8(flat(weight_DHE.values), weight_DHE.scale)
    return weight_DHE.reshape(len(weight_DHE), -1)


class Block(nnx.Module):
    """Self-attention, cross-attention, feed-forward, each on a normalized input and added."""

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_dim: int,
        rngs: nnx.Rngs,
        *,
        kv_heads: int | None = None,
        cross: bool = True,
        levels: int | None = None,
    ):
        """kv_heads: of keys and values, each for heads / kv_heads queries; None: as many as of
        queries. levels: K, whose norms are their own; None: one norm."""
        self.norm_self, self.norm_mlp = LayerNorm(dim, levels), LayerNorm(dim, levels)
        self.attend_self = Attention(dim, heads, rngs, kv_heads)
        if cross:
            self.norm_cross = LayerNorm(dim, levels)
            self.attend_cross = Attention(dim, heads, rngs, kv_heads)
        self.up = weight(rngs, (mlp_dim, dim), ("mlp", "embed"), dim)
        self.down = weight(rngs, (dim, mlp_dim), ("embed", "mlp"), mlp_dim)

    def __call__(
        self,
        x_BTD: Array,
        cross_kv: CrossKV | None = None,
        angles: Array | None = None,
        *,
        level: Array | None = None,
        form: Form = "auto",
        **mask,
    ) -> Array:
        """The whole sequence at once; the rotary angles `[B, T, D / 2H]` and the `mask`
        (causal=True, seen_BS=… or mask=…) are self-attention's, the level is the norms'."""
        return self.prefill(x_BTD, cross_kv, angles, level=level, form=form, **mask)[0]

    def prefill(
        self,
        x_BTD: Array,
        cross_kv: CrossKV | None = None,
        angles: Array | None = None,
        *,
        level: Array | None = None,
        form: Form = "auto",
        **mask,
    ) -> tuple[Array, KVCache]:
        """The whole sequence, and the keys and values that later steps will attend to.

        Args:
          x_BTD: features.
          cross_kv: keys and values of the condition; None without one.
          angles: `[B, T, D / 2H]` rotary angles; None for none.
          level: of the norms, where levels have their own; of all rows or `[B]` of each.
          form: of attention, as of `rvq_jax.lm.attention.attend`.
          mask: of self-attention, as `rvq_jax.lm.attention.attend` takes it.

        Returns:
          Features `[B, T, D]`, and the cache.
        """

        def normed(norm, x_BTD: Array) -> Array:
            y_BTD = norm(x_BTD) if level is None else norm(x_BTD, level=level)
            return place(y_BTD, "batch", None, None)

        x_BTD = place(x_BTD, "batch", "time", None)
        y_BTD = normed(self.norm_self, x_BTD)
        cache = self.attend_self.project(y_BTD, angles)
        y_BTD = self.attend_self(y_BTD, *cache, angles, form=form, **mask)
        x_BTD = x_BTD + place(y_BTD, "batch", "time", None)
        if cross_kv is not None:
            y_BTD, seen = normed(self.norm_cross, x_BTD), {"seen_BS": cross_kv.mask, "form": form}
            y_BTD = self.attend_cross(y_BTD, cross_kv.keys, cross_kv.values, **seen)
            x_BTD = x_BTD + place(y_BTD, "batch", "time", None)
        y_BTD = normed(self.norm_mlp, x_BTD)
        y_BTF = self.inner(lambda matrix: place(project(y_BTD, matrix), "batch", None, "mlp"))
        y_BTD = place(project(y_BTF, self.down[...]), "batch", "time", None)
        return x_BTD + y_BTD, cache

    def inner(self, times) -> Array:
        """What is inside the feed-forward; times: its input's product with a matrix."""
        return jax.nn.gelu(times(self.up[...]), approximate=False)

    def step(
        self,
        x_DB: Array,
        cache: KVCache,
        position: Array,
        past_BT: Array,
        cross_kv: CrossKV | None = None,
        angles: Array | None = None,
    ) -> tuple[Array, KVCache]:
        """One position through the layer; equal to the whole sequence at once.

        Args:
          x_DB: the position's features, as columns.
          cache: keys and values of the positions before.
          position: the row of the cache that this one is written to.
          past_BT: rows of the cache that it attends to.
          cross_kv: keys and values of the condition; None without one.
          angles: `[B, 1, D / 2H]` rotary angles; None for none.

        Returns:
          Features, as columns `[D, B]`, and the cache with this position.
        """
        y_DB = self.norm_self(x_DB, axis=0)
        cache = cache.update(self.attend_self.project_step(y_DB, angles), position)

        def attend(rows: int) -> Array:
            past_Bt = past_BT[:, :rows]
            return self.attend_self.step(y_DB, *cache.first(rows), past_Bt, angles)

        x_DB = x_DB + of_filled(attend, position, past_BT.shape[1])
        if cross_kv is not None:
            x_DB = x_DB + self.attend_cross.step(self.norm_cross(x_DB, axis=0), *cross_kv)
        y_DB = self.norm_mlp(x_DB, axis=0)
        y_FB = self.inner(lambda matrix: product(matrix, y_DB))
        return x_DB + product(self.down[...], y_FB), cache

    def cross_kv(self, condition_BLD: Array, mask_BL: Array) -> CrossKV:
        """Keys and values of a condition, projected once per sequence and not per step."""
        return CrossKV(*self.attend_cross.project(condition_BLD), mask_BL)


def sinusoids(steps: int, dim: int) -> np.ndarray:
    """Sinusoidal positions `[T, D]`, cosines then sines, angle t / 10000^(i / (D / 2 - 1))."""
    half = dim // 2
    rate = 10000.0 ** (-np.arange(half) / max(half - 1, 1))
    angle = np.arange(steps)[:, None] * rate[None, :]
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def rope_angles(steps: int, dim: int, theta: float = 10_000.0) -> np.ndarray:
    """Rotary angles `[T, E / 2]` of heads of E features: t · theta^(-2i / E) (Su et al. 2021)."""
    rate = theta ** (-np.arange(dim // 2)[None] / (dim // 2))
    return (np.arange(steps)[:, None] * rate).astype(np.float32)


def rotate(x_BHTE: Array, angles: Array | None) -> Array:
    """Heads rotated by angles `[B, T, E / 2]`, feature i with i + E / 2; as they are for None.

    Products of rotated queries and keys depend on distances alone.
    """
    if angles is None:
        return x_BHTE
    cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
    x, y = jnp.split(x_BHTE.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([x * cos - y * sin, y * cos + x * sin], axis=-1).astype(x_BHTE.dtype)
