"""The Conformer block: attention between two half feed-forwards, and a convolution after it.

Gulati et al. 2020, with rotary attention as SoundStorm has it. Inside the convolution features are
normalized by position (LayerNorm) where the paper has batch normalization: statistics over a batch,
or over time, would make a row depend on its neighbours and on its padding.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.axes import place
from rvq_jax.lm.transformer import Attention, CrossKV, LayerNorm, project, weight
from rvq_jax.typing import Array


class FeedForward(nnx.Module):
    """Feed-forward of a normalized input, with swish."""

    def __init__(self, dim: int, mlp_dim: int, rngs: nnx.Rngs):
        self.norm = LayerNorm(dim)
        self.up = weight(rngs, (mlp_dim, dim), ("mlp", "embed"), dim)
        self.down = weight(rngs, (dim, mlp_dim), ("embed", "mlp"), mlp_dim)

    def __call__(self, x_BTD: Array) -> Array:
        """Features `[B, T, D]` to add to x."""
        y_BTD = place(self.norm(x_BTD), "batch", None, None)
        y_BTF = place(project(y_BTD, self.up[...]), "batch", None, "mlp")
        return place(project(jax.nn.silu(y_BTF), self.down[...]), "batch", "time", None)


class Convolution(nnx.Module):
    """Gated pointwise map, convolution of each feature over time, pointwise map."""

    def __init__(self, dim: int, kernel: int, rngs: nnx.Rngs):
        self.norm = LayerNorm(dim)
        self.gate = weight(rngs, (2, dim, dim), (None, "mlp", "embed"), dim)
        self.kernel = weight(rngs, (kernel, dim), (None, "mlp"), kernel)
        self.norm_inside = LayerNorm(dim)
        self.down = weight(rngs, (dim, dim), ("embed", "mlp"), dim)

    def __call__(self, x_BTD: Array, here_BT: Array | None = None) -> Array:
        """Features `[B, T, D]` to add to x; where `here` is False is as before the beginning."""
        y_BTD = place(self.norm(x_BTD), "batch", None, None)
        y_BT2D = place(project(y_BTD, self.gate[...]), "batch", None, None, "mlp")
        y_BTD = y_BT2D[:, :, 0] * jax.nn.sigmoid(y_BT2D[:, :, 1])
        if here_BT is not None:
            y_BTD = jnp.where(here_BT[..., None], y_BTD, 0)
        y_BTD = jax.nn.silu(self.norm_inside(depthwise(y_BTD, self.kernel[...])))
        return place(project(y_BTD, self.down[...]), "batch", "time", None)


class ConformerBlock(nnx.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, normalization."""

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_dim: int,
        kernel: int,
        rngs: nnx.Rngs,
        *,
        cross: bool = False,
    ):
        self.first, self.second = (FeedForward(dim, mlp_dim, rngs) for _ in range(2))
        self.norm_self, self.attend_self = LayerNorm(dim), Attention(dim, heads, rngs)
        if cross:
            self.norm_cross, self.attend_cross = LayerNorm(dim), Attention(dim, heads, rngs)
        self.convolution = Convolution(dim, kernel, rngs)
        self.norm = LayerNorm(dim)

    def __call__(
        self,
        x_BTD: Array,
        cross_kv: CrossKV | None = None,
        angles: Array | None = None,
        here_BT: Array | None = None,
        **mask,
    ) -> Array:
        """The whole sequence at once.

        Args:
          x_BTD: features.
          cross_kv: keys and values of the condition; None without one.
          angles: `[B, T, D / 2H]` rotary angles; None for none.
          here_BT: positions that are no padding, for the convolution; None for all.
          mask: self-attention's, as `rvq_jax.lm.attention.attend` takes it.

        Returns:
          Features `[B, T, D]`.
        """
        x_BTD = place(x_BTD, "batch", "time", None)
        x_BTD = x_BTD + 0.5 * self.first(x_BTD)
        y_BTD = place(self.norm_self(x_BTD), "batch", None, None)
        y_BTD = self.attend_self(y_BTD, *self.attend_self.project(y_BTD, angles), angles, **mask)
        x_BTD = x_BTD + place(y_BTD, "batch", "time", None)
        if cross_kv is not None:
            y_BTD = place(self.norm_cross(x_BTD), "batch", None, None)
            seen = {"seen_BS": cross_kv.mask}
            y_BTD = self.attend_cross(y_BTD, cross_kv.keys, cross_kv.values, **seen)
            x_BTD = x_BTD + place(y_BTD, "batch", "time", None)
        x_BTD = x_BTD + self.convolution(x_BTD, here_BT)
        return self.norm(x_BTD + 0.5 * self.second(x_BTD))

    def cross_kv(self, condition_BLD: Array, mask_BL: Array) -> CrossKV:
        """Keys and values of a condition."""
        return CrossKV(*self.attend_cross.project(condition_BLD), mask_BL)


def depthwise(x_BTD: Array, kernel_LD: Array) -> Array:
    """Each feature convolved over time with L taps of its own, zeros around, as many on each side.

    As shifted sums: XLA's grouped convolution takes many times longer on a CPU.
    """
    taps, steps = len(kernel_LD), x_BTD.shape[1]
    before = (taps - 1) // 2
    padded = jnp.pad(x_BTD, ((0, 0), (before, taps - 1 - before), (0, 0)))
    kernel_LD = kernel_LD.astype(x_BTD.dtype)
    return sum(padded[:, i : i + steps] * kernel_LD[i][None, None] for i in range(taps))
