"""Convolutions over time under EnCodec's rules: what is padded, what is trimmed, how it is normed.

Arrays are channels-last `[B, S, D]`. Every layer runs in three ways that agree: over whole arrays,
over items marked by edges inside longer arrays, and by `step`, block after block with a state.
XLA's convolution was measured against matrix products over shifted slices, frames and blocks on two
CPU cores: it is the fastest at nearly every size. The transposed one is a plain convolution of two
neighbours that gives `stride` outputs at a time: 2.4 times as fast as adding overlapping blocks.
A strided one takes `stride` inputs as one wide input, where its kernel is a multiple of that: as
fast, and its gradients up to twice, since they dilate nothing.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax import draws
from rvq_jax.axes import place
from rvq_jax.codec.edges import MODES, Edges, fill, pad, padding
from rvq_jax.typing import Array

NORMS = ("weight_norm", "time_group_norm", "none")


class Conv1d(nnx.Module):
    """A convolution that gives ceil(S / stride) steps for S, causal or centred.

    norm: 'weight_norm' (Salimans & Kingma 2016, one gain per output channel), 'time_group_norm'
    (after the convolution, one group, statistics over time and channels: not causal), 'none'.
    Raises ValueError for an unknown norm or padding, a causal group norm, or a stride beyond the
    kernel.
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
        bias: bool = True,
    ):
        if (kernel - 1) * dilation + 1 < stride:
            raise ValueError(f"kernel {kernel} leaves gaps at stride {stride}")
        if causal and norm == "time_group_norm":
            raise ValueError("time_group_norm sees the whole of time, so it cannot be causal")
        if pad_mode not in MODES:
            raise ValueError(f"pad_mode must be one of {MODES}, got {pad_mode!r}")
        self.stride, self.dilation = stride, dilation
        self.causal, self.pad_mode = causal, pad_mode
        self.kernel = Kernel((kernel, inner, outer), (0, 1), kernel * inner, norm, rngs)
        self.bias = nnx.Param(jnp.zeros(outer), axes=(None,)) if bias else None
        self.norm = GroupNorm(outer) if norm == "time_group_norm" else None

    @property
    def reach(self) -> int:
        """Input steps that one output sees."""
        return (self.kernel.width - 1) * self.dilation + 1

    def moves(self, edges: Edges) -> Edges:
        """Where an item lies after this layer."""
        return edges.down(self.stride)

    def __call__(self, x_BSD: Array, edges: Edges | None = None) -> Array:
        if edges is None:
            left, right = padding(x_BSD.shape[1], self.reach, self.stride, self.causal)
            y = self.valid(pad(x_BSD, left, right, self.pad_mode))
            return y if self.norm is None else self.norm(y)
        left, right = padding(0, self.reach, self.stride, self.causal)
        y = self.valid(fill(x_BSD, left, right, self.stride, self.pad_mode, edges))
        return y if self.norm is None else self.norm(y, self.moves(edges))

    def step(self, x_BSD: Array, past: tuple | None, edges: Edges | None = None):
        """The next S / stride outputs, and the inputs that later ones will see.

        past: None at the very beginning, where a mirrored start needs reach - stride + 1 inputs;
        other paddings may begin with a `past` of zeros. edges: where the stream ends in this block.
        Only for causal layers.
        """
        left, samples = self.reach - self.stride, x_BSD.shape[1]
        if past is None and edges is not None:
            whole = Edges(jnp.zeros_like(edges.end), edges.end)
            x_BSD = fill(x_BSD, left, 0, self.stride, self.pad_mode, whole)
        elif past is None:
            x_BSD = pad(x_BSD, left, 0, self.pad_mode)
        else:
            before_BSD, begun = past
            if self.pad_mode == "replicate":
                before_BSD = jnp.where(begun, before_BSD, x_BSD[:, :1])
            x_BSD = jnp.concatenate([before_BSD, x_BSD], axis=1)
            if edges is not None:
                shifted = Edges(jnp.zeros_like(edges.end), edges.end + left)
                x_BSD = fill(x_BSD, 0, 0, self.stride, self.pad_mode, shifted)
        past = x_BSD[:, samples : samples + left], jnp.array(True)
        return self.valid(x_BSD), past

    def valid(self, x_BSD: Array) -> Array:
        """Without any padding or norm."""
        kernel, stride = self.kernel().astype(x_BSD.dtype), self.stride
        width, inner, outer = kernel.shape
        if stride > 1 and width % stride == 0 and self.dilation == 1:
            taps = width // stride
            steps = (x_BSD.shape[1] - width) // stride + taps
            x_BSD = x_BSD[:, : steps * stride].reshape(len(x_BSD), steps, stride * inner)
            kernel, stride = kernel.reshape(taps, stride * inner, outer), 1
        y = jax.lax.conv_general_dilated(
            x_BSD,
            kernel,
            (stride,),
            "VALID",
            rhs_dilation=(self.dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)[None, None]


class ConvTranspose1d(nnx.Module):
    """A transposed convolution of kernel 2 · stride that gives S · stride - missing steps for S.

    Each step becomes two blocks of `stride`, the second overlapping the next step's first. What
    exceeds S · stride is trimmed: all from the end if causal, else half from each side. `missing`
    steps more go from the end (DAC's odd strides lose one).
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
        missing: int = 0,
    ):
        self.stride, self.causal, self.missing = stride, causal, missing
        # The published layout keeps one gain per *input* channel here.
        self.kernel = Kernel((2 * stride, inner, outer), (0, 2), 2 * inner, norm, rngs)
        self.bias = nnx.Param(jnp.zeros(outer), axes=(None,))
        self.norm = GroupNorm(outer) if norm == "time_group_norm" else None

    @property
    def reach(self) -> int:
        """Input steps that one output sees."""
        return 2

    def moves(self, edges: Edges) -> Edges:
        """Where an item lies after this layer."""
        return edges.up(self.stride, self.missing)

    def __call__(self, x_BFD: Array, edges: Edges | None = None) -> Array:
        if edges is not None:
            # Beyond its ends an item adds nothing to the overlap.
            x_BFD = jnp.where(edges.inside(x_BFD.shape[1])[..., None], x_BFD, 0)
        y = self.untrimmed(x_BFD)
        if self.norm is not None:
            # The norm sees what the reference's sees: everything, before trimming.
            y = self.norm(y, None if edges is None else edges.up(self.stride, -self.stride))
        begin = 0 if self.causal else self.stride - self.stride // 2
        return y[:, begin : begin + x_BFD.shape[1] * self.stride - self.missing]

    def step(self, x_BFD: Array, past: Array | None, edges: Edges | None = None):
        """The next S · stride outputs, and the input that later ones still see."""
        past = jnp.zeros_like(x_BFD[:, :1]) if past is None else past
        return self._pairs(jnp.concatenate([past, x_BFD], axis=1)), x_BFD[:, -1:]

    def untrimmed(self, x_BFD: Array) -> Array:
        """All (S + 1) · stride steps, without a norm."""
        return self._pairs(jnp.pad(x_BFD, ((0, 0), (1, 1), (0, 0))))

    def _pairs(self, x_BFD: Array) -> Array:
        """(F - 1) · stride outputs `[B, S, D]`: each two neighbours give `stride` of them."""
        kernel = self.kernel().astype(x_BFD.dtype)
        _, inner, outer = kernel.shape
        # The later of two neighbours adds its first block, the earlier one its second.
        blocks = kernel.reshape(2, self.stride, inner, outer)[::-1].swapaxes(1, 2)
        y = jax.lax.conv_general_dilated(
            x_BFD,
            blocks.reshape(2, inner, self.stride * outer),
            (1,),
            "VALID",
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        y = y.reshape(x_BFD.shape[0], -1, outer)
        return y + self.bias[...].astype(y.dtype)[None, None]


@functools.partial(jax.jit, static_argnames="over")
def norms(v: Array, over: tuple[int, ...]) -> Array:
    """Euclidean norms over some axes, which are kept."""
    return jnp.sqrt(jnp.sum(v**2, over, keepdims=True))


class Kernel(nnx.Module):
    """A kernel `[width, in, out]`, as a direction and a gain under weight norm."""

    def __init__(self, shape: tuple, over: tuple, fan_in: int, norm: str, rngs: nnx.Rngs):
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {NORMS}, got {norm!r}")
        self.over, self.width = over, shape[0]
        # Keeps the variance of its input. At a third of that, the usual default, a deep stack
        # starts nearly silent and its gradients with it.
        bound = math.sqrt(3.0 / fan_in)
        v = draws.uniform(rngs.params(), shape, bound)
        self.v = nnx.Param(v, axes=(None, "embed", "mlp"))
        normed = norm == "weight_norm"
        self.gain = nnx.Param(norms(v, over), axes=(None,) * 3) if normed else None

    def __call__(self) -> Array:
        # Whole over the devices that share a batch. Split there too, XLA's partitioner (JAX 0.10 to
        # 0.12) gives kernels wrong gradients where few steps are padded by three or more.
        v = place(self.v[...], None, None, "mlp")
        if self.gain is None:
            return v
        return v * (self.gain[...] * jax.lax.rsqrt(jnp.sum(v**2, self.over, keepdims=True)))

    def prepare(self) -> None:
        """Becomes the plain kernel that it stands for."""
        self.v[...], self.gain = self(), None

    def split(self) -> None:
        """Becomes direction and gain of the plain kernel that it is: the inverse of `prepare`."""
        if self.gain is None:
            gain = norms(self.v[...], self.over)
            # Zeros have no direction: any will do, with a gain of zero.
            self.v[...] = jnp.where(gain > 0, self.v[...], 1.0)
            self.gain = nnx.data(nnx.Param(gain, axes=(None,) * 3))


class GroupNorm(nnx.Module):
    """One group over time and channels of each item (Wu & He 2018)."""

    def __init__(self, dim: int):
        self.scale = nnx.Param(jnp.ones(dim), axes=(None,))
        self.bias = nnx.Param(jnp.zeros(dim), axes=(None,))

    def __call__(self, x_BSD: Array, edges: Edges | None = None) -> Array:
        y = x_BSD.astype(jnp.float32)
        inside_BSD = True
        if edges is not None:
            inside_BSD = jnp.broadcast_to(edges.inside(y.shape[1])[..., None], y.shape)
        y = y - y.mean((1, 2), keepdims=True, where=inside_BSD)
        y = y * jax.lax.rsqrt(jnp.mean(y**2, (1, 2), keepdims=True, where=inside_BSD) + 1e-5)
        return (y * self.scale[...][None, None] + self.bias[...][None, None]).astype(x_BSD.dtype)
