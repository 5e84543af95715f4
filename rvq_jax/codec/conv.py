"""Convolutions over time under EnCodec's rules: what is padded, what is trimmed, how it is normed.

Arrays are channels-last `[B, S, D]`. XLA's convolution was measured against matrix products over
shifted slices, frames and blocks at laptop sizes on two CPU cores: forward with backward it is the
fastest at nearly every size. The transposed convolution is one matrix product and one overlap-add.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.typing import Array

NORMS = ("weight_norm", "time_group_norm", "none")


class Conv1d(nnx.Module):
    """A convolution that gives ceil(S / stride) steps for S, causal or centred.

    norm: 'weight_norm' (Salimans & Kingma 2016, one gain per output channel), 'time_group_norm'
    (after the convolution, one group, statistics over time and channels: not causal), 'none'.
    Raises ValueError for an unknown norm, a causal group norm, or a stride beyond the kernel.
    """

    def __init__(
        self,
        inner: int,
        outer: int,
        kernel: int,
        rngs: nnx.Rngs,
        *,
        stride: int = 1,
        dilation: int = 1,
        causal: bool = True,
        norm: str = "weight_norm",
        pad_mode: str = "reflect",
    ):
        if (kernel - 1) * dilation + 1 < stride:
            raise ValueError(f"kernel {kernel} leaves gaps at stride {stride}")
        if causal and norm == "time_group_norm":
            raise ValueError("time_group_norm sees the whole of time, so it cannot be causal")
        self.stride, self.dilation = stride, dilation
        self.causal, self.pad_mode = causal, pad_mode
        self.kernel = Kernel((kernel, inner, outer), (0, 1), kernel * inner, norm, rngs)
        self.bias = nnx.Param(jnp.zeros(outer), axes=(None,))
        self.norm = GroupNorm(outer) if norm == "time_group_norm" else None

    def __call__(self, x_BSD: Array) -> Array:
        kernel = self.kernel().astype(x_BSD.dtype)
        reach = (kernel.shape[0] - 1) * self.dilation + 1
        left, right = padding(x_BSD.shape[1], reach, self.stride, self.causal)
        y = jax.lax.conv_general_dilated(
            pad(x_BSD, left, right, self.pad_mode),
            kernel,
            (self.stride,),
            "VALID",
            rhs_dilation=(self.dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        y = y + self.bias[...].astype(y.dtype)[None, None]
        return y if self.norm is None else self.norm(y)


class ConvTranspose1d(nnx.Module):
    """A transposed convolution of kernel 2 · stride that gives exactly S · stride steps for S.

    Each step becomes two blocks of `stride`, the second overlapping the next step's first. What
    exceeds S · stride is trimmed: all from the end if causal, else half from each side.
    """

    def __init__(
        self,
        inner: int,
        outer: int,
        stride: int,
        rngs: nnx.Rngs,
        *,
        causal: bool = True,
        norm: str = "weight_norm",
    ):
        self.stride, self.causal = stride, causal
        # The published layout keeps one gain per *input* channel here.
        self.kernel = Kernel((2 * stride, inner, outer), (0, 2), 2 * inner, norm, rngs)
        self.bias = nnx.Param(jnp.zeros(outer), axes=(None,))
        self.norm = GroupNorm(outer) if norm == "time_group_norm" else None

    def __call__(self, x_BFD: Array) -> Array:
        kernel = self.kernel().astype(x_BFD.dtype)
        batch, frames, _ = x_BFD.shape
        _, inner, outer = kernel.shape
        blocks = x_BFD @ kernel.swapaxes(0, 1).reshape(inner, -1)
        blocks = blocks.reshape(batch, frames, 2, self.stride * outer)
        first = jnp.pad(blocks[:, :, 0], ((0, 0), (0, 1), (0, 0)))
        second = jnp.pad(blocks[:, :, 1], ((0, 0), (1, 0), (0, 0)))
        y = (first + second).reshape(batch, (frames + 1) * self.stride, outer)
        y = y + self.bias[...].astype(y.dtype)[None, None]
        # The norm sees what the reference's sees: everything, before trimming.
        y = y if self.norm is None else self.norm(y)
        begin = 0 if self.causal else self.stride - self.stride // 2
        return y[:, begin : begin + frames * self.stride]


class Kernel(nnx.Module):
    """A kernel `[width, in, out]`, as a direction and a gain under weight norm."""

    def __init__(self, shape: tuple, over: tuple, fan_in: int, norm: str, rngs: nnx.Rngs):
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {NORMS}, got {norm!r}")
        self.over = over
        # Keeps the variance of its input. At a third of that, the usual default, a deep stack
        # starts nearly silent and its gradients with it.
        bound = math.sqrt(3.0 / fan_in)
        v = jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)
        self.v = nnx.Param(v, axes=(None, "embed", "mlp"))
        gain = jnp.sqrt(jnp.sum(v**2, axis=over, keepdims=True))
        self.gain = nnx.Param(gain, axes=(None,) * 3) if norm == "weight_norm" else None

    def __call__(self) -> Array:
        v = self.v[...]
        if self.gain is None:
            return v
        return v * (self.gain[...] * jax.lax.rsqrt(jnp.sum(v**2, self.over, keepdims=True)))


class GroupNorm(nnx.Module):
    """One group over time and channels of each item (Wu & He 2018)."""

    def __init__(self, dim: int):
        self.scale = nnx.Param(jnp.ones(dim), axes=(None,))
        self.bias = nnx.Param(jnp.zeros(dim), axes=(None,))

    def __call__(self, x_BSD: Array) -> Array:
        y = x_BSD.astype(jnp.float32)
        y = y - y.mean((1, 2), keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y**2, (1, 2), keepdims=True) + 1e-5)
        return (y * self.scale[...][None, None] + self.bias[...][None, None]).astype(x_BSD.dtype)


class LSTM(nnx.Module):
    """Stacked LSTM layers with a skip around them all (Hochreiter & Schmidhuber 1997).

    Gates in the order input, forget, cell, output; two biases, as published weights have.
    """

    def __init__(self, dim: int, layers: int, rngs: nnx.Rngs):
        self.dim, self.layers = dim, layers
        bound = 1.0 / math.sqrt(dim)

        def draw(*shape):
            return jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)

        self.input = nnx.Param(draw(layers, dim, 4 * dim), axes=(None, "embed", "mlp"))
        self.hidden = nnx.Param(draw(layers, dim, 4 * dim), axes=(None, "embed", "mlp"))
        self.bias = nnx.Param(draw(layers, 2, 4 * dim), axes=(None, None, None))

    def __call__(self, x_BSD: Array) -> Array:
        y_SBD = x_BSD.swapaxes(0, 1)
        for layer in range(self.layers):
            # All inputs in one product; only the recurrence is sequential.
            bias = self.bias[layer].sum(0).astype(x_BSD.dtype)
            gates_SBG = y_SBD @ self.input[layer].astype(x_BSD.dtype) + bias[None, None]
            hidden_DG = self.hidden[layer].astype(x_BSD.dtype)

            def step(carry, gates_BG, hidden_DG=hidden_DG):
                h, c = carry
                i, f, g, o = jnp.split(gates_BG + h @ hidden_DG, 4, axis=-1)
                c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
                h = jax.nn.sigmoid(o) * jnp.tanh(c)
                return (h, c), h

            zero_BD = jnp.zeros_like(y_SBD[0])
            y_SBD = jax.lax.scan(step, (zero_BD, zero_BD), gates_SBG)[1]
        return y_SBD.swapaxes(0, 1) + x_BSD


def padding(samples: int, reach: int, stride: int, causal: bool) -> tuple[int, int]:
    """Left and right padding for a kernel reaching over `reach` samples: ceil(S / stride) windows.

    Causal: everything but what fills the last window goes left. Centred: the smaller half right.
    """
    total = reach - stride
    last = -samples % stride
    if causal:
        return total, last
    right = total // 2
    return total - right, right + last


def pad(x_BSD: Array, left: int, right: int, mode: str) -> Array:
    """Pads time by 'constant' zeros or 'reflect'; too short an input is first made longer by zeros
    on the right, which are cut again after reflecting."""
    if mode == "constant":
        return jnp.pad(x_BSD, ((0, 0), (left, right), (0, 0)))
    missing = max(0, max(left, right) + 1 - x_BSD.shape[1])
    y = jnp.pad(x_BSD, ((0, 0), (0, missing), (0, 0)))
    y = jnp.pad(y, ((0, 0), (left, right), (0, 0)), mode=mode)
    return y[:, : y.shape[1] - missing]
