"""SEANet, the convolutional encoder and decoder of EnCodec and its kin.

Tagliasacchi et al. 2020 (SEANet); Défossez et al. 2022 (EnCodec), §3.1.
"""

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.codec.conv import Conv1d, ConvTranspose1d
from rvq_jax.codec.lstm import LSTM
from rvq_jax.codec.passes import through
from rvq_jax.typing import Array, Audio, Dtype, Latents


@dataclass(frozen=True)
class SEANetConfig:
    """Sizes of an encoder and its mirrored decoder; the defaults are EnCodec's at 24 kHz."""

    channels: int = 1  # C, of the audio
    dim: int = 128  # D, of the latents
    filters: int = 32  # features at the audio's rate; doubled at every stride
    ratios: tuple[int, ...] = (8, 5, 4, 2)  # strides in the decoder's order
    residual_layers: int = 1  # residual units per stride
    kernel: int = 7  # of the first convolution
    last_kernel: int = 7  # of the last convolution
    residual_kernel: int = 3  # of the first convolution in a residual unit
    dilation_base: int = 2  # the unit after i others has dilation dilation_base ** i
    compress: int = 2  # features inside a residual unit are divided by this
    true_skip: bool = False  # identity shortcuts in place of a convolution
    lstm_layers: int = 2  # after the encoder's convolutions and before the decoder's; 0 for none
    causal: bool = True  # a frame sees no later audio, but for pad_mode reflect
    # Of the convolutions; time_group_norm is that of codecs that are not causal.
    norm: Literal["weight_norm", "time_group_norm", "none"] = "weight_norm"
    # Under reflect the first frames of a causal model look ahead (as EnCodec's do), so a stream
    # must wait for them before it starts.
    pad_mode: Literal["reflect", "constant", "replicate"] = "reflect"
    dtype: Dtype = "float32"  # of the computation; parameters, latents and audio stay float32

    def __post_init__(self):
        if 0 < self.filters < self.compress:
            raise ValueError(f"compress {self.compress} leaves nothing of filters {self.filters}")

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(self.ratios)

    @property
    def widest(self) -> int:
        """Features at the frame rate."""
        return self.filters * 2 ** len(self.ratios)


class Residual(nnx.Module):
    """A dilated and a pointwise convolution beside a shortcut."""

    def __init__(self, config: SEANetConfig, dim: int, dilation: int, rngs: nnx.Rngs):
        c = config
        inner = dim // c.compress
        self.dilated = conv(c, dim, inner, c.residual_kernel, rngs, dilation=dilation)
        self.pointwise = conv(c, inner, dim, 1, rngs)
        self.shortcut = None if c.true_skip else conv(c, dim, dim, 1, rngs)

    def __call__(self, x_BSD: Array, run) -> Array:
        y = run(self.pointwise, elu(run(self.dilated, elu(x_BSD))))
        return y + (x_BSD if self.shortcut is None else run(self.shortcut, x_BSD))


class Encoder(nnx.Module):
    """Audio `[B, S, C]` to latents `[B, F, D]`, F = ceil(S / hop).

    `front` and `back` are convolutions, between them the recurrent layers; `run` is one of the
    ways in `rvq_jax.codec.passes` to run layers.
    """

    def __init__(self, config: SEANetConfig, rngs: nnx.Rngs):
        c = config
        dim = c.filters
        self.dtype = c.dtype
        self.first = conv(c, c.channels, dim, c.kernel, rngs)
        residuals, downs = [], []
        for ratio in reversed(c.ratios):
            residuals.append(_residuals(c, dim, rngs))
            downs.append(conv(c, dim, 2 * dim, 2 * ratio, rngs, stride=ratio))
            dim *= 2
        self.residuals, self.downs = nnx.List(residuals), nnx.List(downs)
        self.middle = LSTM(dim, c.lstm_layers, rngs) if c.lstm_layers else None
        self.last = conv(c, dim, c.dim, c.last_kernel, rngs)

    def front(self, audio: Audio, run) -> Array:
        x = run(self.first, audio.astype(self.dtype))
        for units, down in zip(self.residuals, self.downs, strict=True):
            for unit in units:
                x = unit(x, run)
            x = run(down, elu(x))
        return x

    def back(self, x_BFD: Array, run) -> Latents:
        return run(self.last, elu(x_BFD)).astype(jnp.float32)

    def __call__(self, audio: Audio, run=None) -> Latents:
        return through(self, audio, run)


class Decoder(nnx.Module):
    """Latents `[B, F, D]` to audio `[B, F · hop, C]`, the mirror of the encoder."""

    def __init__(self, config: SEANetConfig, rngs: nnx.Rngs):
        c = config
        self.dtype = c.dtype
        dim = c.widest
        self.first = conv(c, c.dim, dim, c.kernel, rngs)
        self.middle = LSTM(dim, c.lstm_layers, rngs) if c.lstm_layers else None
        ups, residuals = [], []
        for ratio in c.ratios:
            ups.append(ConvTranspose1d(dim, dim // 2, ratio, rngs, causal=c.causal, norm=c.norm))
            dim //= 2
            residuals.append(_residuals(c, dim, rngs))
        self.ups, self.residuals = nnx.List(ups), nnx.List(residuals)
        self.last = conv(c, dim, c.channels, c.last_kernel, rngs)

    def front(self, latents: Latents, run) -> Array:
        return run(self.first, latents.astype(self.dtype))

    def back(self, x_BFD: Array, run) -> Audio:
        x = x_BFD
        for up, units in zip(self.ups, self.residuals, strict=True):
            x = run(up, elu(x))
            for unit in units:
                x = unit(x, run)
        return run(self.last, elu(x)).astype(jnp.float32)

    def __call__(self, latents: Latents, run=None) -> Audio:
        return through(self, latents, run)


def conv(
    c: SEANetConfig,
    inner: int,
    outer: int,
    kernel: int,
    rngs: nnx.Rngs,
    *,
    stride: int = 1,
    dilation: int = 1,
) -> Conv1d:
    """Makes a convolution with the config's norm, padding and causality.

    Args:
      c: sizes and choices of the encoder and decoder.
      inner: features of the input.
      outer: features of the output.
      kernel: width of the kernel in steps.
      rngs: keys from which the parameters are drawn.
      stride: steps of the input for one of the output.
      dilation: steps of the input between taps of the kernel.

    Returns:
      The untrained layer.

    Raises:
      ValueError: when the norm or padding is unknown, a causal convolution has group norm, or the
        stride is beyond the kernel.
    """
    return Conv1d(
        inner,
        outer,
        kernel,
        rngs,
        stride=stride,
        dilation=dilation,
        causal=c.causal,
        norm=c.norm,
        pad_mode=c.pad_mode,
    )


def _residuals(c: SEANetConfig, dim: int, rngs: nnx.Rngs) -> nnx.List:
    dilations = [c.dilation_base**i for i in range(c.residual_layers)]
    return nnx.List([Residual(c, dim, dilation, rngs) for dilation in dilations])


@jax.custom_jvp
def elu(x: Array) -> Array:
    """Exponential linear unit, x where positive and exp(x) - 1 elsewhere (Clevert et al. 2015)."""
    return jnp.maximum(x, jnp.expm1(jnp.minimum(x, 0)))


@elu.defjvp
def _elu_jvp(primals, tangents):
    # The slope read off the output spares a second exponential: a tenth of a step on CPU.
    y = elu(*primals)
    return y, tangents[0] * jnp.minimum(y + 1, 1)
