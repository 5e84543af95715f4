"""What all discriminators are made of: what they return, and convolutions over spectrograms."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.codec.conv import Kernel
from rvq_jax.typing import Array, Audio


class Judgement(NamedTuple):
    """What one discriminator says of a batch of audio.

    scores: high where it takes the audio for real, at each place that it looks at.
    features: what its hidden layers saw, after their activations.
    """

    scores: Array
    features: tuple[Array, ...]


class Conv1d(nnx.Module):
    """A convolution of `[B, S, D]`, zero-padded so that only the stride makes it shorter.

    It is a matrix product over the steps that each output sees: here, where features are many and
    steps few, that is faster than XLA's convolution on CPU, backwards by a third.
    """

    def __init__(self, inner: int, outer: int, kernel: int, rngs: nnx.Rngs, *, stride: int = 1):
        self.stride = stride
        self.kernel = Kernel((kernel, inner, outer), (0, 1), kernel * inner, "weight_norm", rngs)
        self.bias = nnx.Param(jnp.zeros(outer), axes=(None,))

    def __call__(self, x_BSD: Array) -> Array:
        kernel = self.kernel()
        width, inner, outer = kernel.shape
        x_BSD, taps = gather(x_BSD, width, self.stride)
        out = x_BSD.shape[1] - taps + 1
        columns = jnp.concatenate([x_BSD[:, i : i + out] for i in range(taps)], axis=2)
        y = columns[..., : width * inner] @ kernel.reshape(-1, outer)
        return y + self.bias[...][None, None]


class Conv2d(nnx.Module):
    """A convolution of `[B, frames, bins, D]`, zero-padded so that only strides make it smaller."""

    def __init__(
        self,
        inner: int,
        outer: int,
        kernel: tuple[int, int],
        rngs: nnx.Rngs,
        *,
        stride: int = 1,
        dilation: int = 1,
        norm: str = "weight_norm",
    ):
        """stride: of bins; dilation: of frames."""
        self.stride, self.dilation = stride, dilation
        fan_in = kernel[0] * kernel[1] * inner
        self.kernel = Kernel((*kernel, inner, outer), (0, 1, 2), fan_in, norm, rngs)
        self.bias = nnx.Param(jnp.zeros(outer), axes=(None,))

    def __call__(self, x: Array) -> Array:
        y = _centred(x, self.kernel(), self.stride, self.dilation)
        return y + self.bias[...][None, None, None]


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _centred(x: Array, kernel: Array, stride: int, dilation: int) -> Array:
    """A convolution of `[B, frames, bins, D]`, its kernel's middle over every `stride`-th bin.

    The kernel has an odd number of bins.
    """
    half = kernel.shape[1] // 2
    return _convolve(x, kernel, (half, half), stride, dilation)


@_centred.defjvp
def _centred_jvp(stride, dilation, primals, tangents):
    # A strided convolution's gradient to its input is dilated, which takes XLA five times as long
    # on CPU as this form, in which `stride` bins are one and the kernel has zeros for its last. Its
    # padding is the convolution's for the input's gradient, but not for the kernel's: both are
    # faster so. Forwards it would be slower by the zeros.
    (x, kernel), (dx, dkernel) = primals, tangents
    y, half = _centred(*primals, stride, dilation), kernel.shape[1] // 2
    if stride == 1 or half % stride:
        dy = _convolve(dx, kernel, (half, half), stride, dilation)
        return y, dy + _convolve(x, dkernel, (half, half), stride, dilation)
    x, dx = (neighbours(z, stride, 2) for z in (x, dx))
    kernel, dkernel = (neighbours(z, stride, 1) for z in (kernel, dkernel))
    sides = half // stride, kernel.shape[1] - 1 - half // stride
    dy = _convolve(dx, kernel, sides, 1, dilation)
    x = jnp.pad(x, ((0, 0), (0, 0), sides, (0, 0)))
    return y, dy + _convolve(x, dkernel, (0, 0), 1, dilation)


def neighbours(x: Array, stride: int, axis: int) -> Array:
    """Every `stride` steps of an axis as one, with zeros at the end, features side by side."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = 0, -x.shape[axis] % stride
    shape = list(x.shape)
    shape[axis : axis + 2] = -1, stride * shape[axis + 1]
    return jnp.pad(x, widths).reshape(shape)


def _convolve(x: Array, kernel: Array, bins: tuple, stride: int, dilation: int) -> Array:
    """With zeros beside the bins, and before and after the frames so that none is lost."""
    frames = (kernel.shape[0] - 1) * dilation // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, stride),
        ((frames, frames), bins),
        rhs_dilation=(dilation, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def gather(x_BSD: Array, kernel: int, stride: int) -> tuple[Array, int]:
    """Pads for a centred kernel, and makes every `stride` neighbours one step of their features.

    A kernel over the result has the second number returned of steps, and no stride.
    """
    steps, half = x_BSD.shape[1], kernel // 2
    out = (steps + 2 * half - kernel) // stride + 1
    taps = -(-kernel // stride)
    right = (out + taps - 1) * stride - half - steps
    x_BSD = jnp.pad(x_BSD, ((0, 0), (half, right), (0, 0)))
    return x_BSD.reshape(x_BSD.shape[0], -1, stride * x_BSD.shape[2]), taps


def level(audio: Audio) -> Array:
    """Each channel by itself `[B · C, S]`, without its mean and with a peak of 0.8 (DAC).

    What is below -60 dB is raised by as much as -60 dB is: the published division by the peak alone
    has a slope of nearly 1e9 at silence.
    """
    x_BS = audio.swapaxes(1, 2).reshape(-1, audio.shape[1])
    x_BS = x_BS - x_BS.mean(axis=1, keepdims=True)
    return 0.8 * x_BS / jnp.maximum(jnp.abs(x_BS).max(axis=1, keepdims=True), 1e-3)


def judge(layers: Sequence, last: nnx.Module, x: Array, slope: float) -> Judgement:
    """Judges what a discriminator sees.

    Args:
      layers: hidden ones, each before a leaky rectifier.
      last: the one that scores.
      x: what the first sees, as it takes it.
      slope: of the rectifiers below zero.

    Returns:
      The scores, and what every rectifier gave.
    """
    features = run(layers, x, slope)
    return Judgement(last(features[-1]), tuple(features))


def run(layers: Sequence, x: Array, slope: float) -> list[Array]:
    """What each of some layers gives to the next, after a leaky rectifier."""
    features = []
    for layer in layers:
        x = jax.nn.leaky_relu(layer(x), slope)
        features.append(x)
    return features
