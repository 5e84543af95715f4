"""What all discriminators are made of: what they return, and convolutions over spectrograms."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.codec.conv import Kernel
from rvq_jax.typing import Array


class Judgement(NamedTuple):
    """What one discriminator says of a batch of audio.

    scores: high where it takes the audio for real, at each place that it looks at.
    features: what its hidden layers saw, after their activations.
    """

    scores: Array
    features: tuple[Array, ...]


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
        kernel = self.kernel()
        frames = (kernel.shape[0] - 1) * self.dilation // 2
        bins = (kernel.shape[1] - 1) // 2
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            (1, self.stride),
            ((frames, frames), (bins, bins)),
            rhs_dilation=(self.dilation, 1),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + self.bias[...][None, None, None]


def judge(layers, last, x: Array, slope: float) -> Judgement:
    """Runs layers with leaky rectifiers, and a last one that scores."""
    features = []
    for layer in layers:
        x = jax.nn.leaky_relu(layer(x), slope)
        features.append(x)
    return Judgement(last(x), tuple(features))
