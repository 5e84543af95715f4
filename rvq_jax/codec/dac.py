"""The Descript Audio Codec: Snake activations, dilated residual units, no recurrence.

Kumar et al. 2023 (High-fidelity audio compression with improved RVQGAN).
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from flax import nnx

from rvq_jax.codec.autoencoder import Autoencoder
from rvq_jax.codec.conv import Conv1d, ConvTranspose1d
from rvq_jax.codec.passes import through
from rvq_jax.codec.snake import snake
from rvq_jax.quantize import Projected
from rvq_jax.typing import Array, Audio, Dtype, Key, Latents

DILATIONS = (1, 3, 9)


@dataclass(frozen=True)
class DACConfig:
    """DAC's sizes; the defaults are those at 44.1 kHz and 8 kbps."""

    rate: int = 44_100  # samples per second
    ratios: tuple[int, ...] = (2, 4, 8, 8)  # strides in the encoder's order
    filters: int = 64  # features at the audio's rate; doubled at every stride
    decoder_filters: int = 1536  # features at the frame rate; halved at every stride
    dim: int = 1024  # D, of the latents
    levels: int = 9  # K, codebooks
    codebook_size: int = 1024  # N, codes per codebook
    code_dim: int = 8  # features in which codes are looked up
    # Published weights have weight norm folded in; weight_norm to train.
    norm: Literal["none", "weight_norm"] = "none"
    dtype: Dtype = "float32"

    channels = 1  # the channels of stereo are two items
    normalize = False
    segment = None
    causal = mirrors = False

    def __post_init__(self):
        if self.decoder_filters < 2 ** len(self.ratios):
            raise ValueError(
                f"decoder_filters {self.decoder_filters} cannot be halved {len(self.ratios)} times"
            )

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(self.ratios)

    @property
    def widest(self) -> int:
        """Features at the frame rate."""
        return self.filters * 2 ** len(self.ratios)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.rate / self.hop

    def prepared(self) -> "DACConfig":
        """This config without weight norm."""
        return dataclasses.replace(self, norm="none")

    def build(self, rngs: nnx.Rngs) -> Autoencoder:
        """The learned halves around the quantizer."""
        return Autoencoder(Encoder(self, rngs), Decoder(self, rngs))

    def quantizer(self, key: Key) -> Projected:
        """An untrained quantizer."""
        return Projected.init(key, self.levels, self.codebook_size, self.dim, self.code_dim)


class Snake(nnx.Module):
    """x + sin²(αx) / α, periodic with a slope of its own per feature (Ziyin et al. 2020)."""

    def __init__(self, dim: int):
        self.alpha = nnx.Param(jnp.ones(dim), axes=(None,))

    def __call__(self, x_BSD: Array) -> Array:
        return snake(x_BSD, self.alpha[...].astype(x_BSD.dtype)[None, None])


class Residual(nnx.Module):
    """A dilated and a pointwise convolution, each after a Snake, beside an identity."""

    def __init__(self, c: DACConfig, dim: int, dilation: int, rngs: nnx.Rngs):
        self.snakes = nnx.List([Snake(dim), Snake(dim)])
        self.dilated = _conv(c, dim, dim, 7, rngs, dilation=dilation)
        self.pointwise = _conv(c, dim, dim, 1, rngs)

    def __call__(self, x_BSD: Array, run) -> Array:
        y = run(self.dilated, self.snakes[0](x_BSD))
        return x_BSD + run(self.pointwise, self.snakes[1](y))


class Block(nnx.Module):
    """Residual units and a strided convolution, down (units first) or up (units last)."""

    def __init__(self, c: DACConfig, dim: int, stride: int, rngs: nnx.Rngs, *, up: bool):
        inside = dim // 2 if up else dim
        self.up = up
        self.snake = Snake(dim)
        if up:
            # The reference trims ceil(stride / 2) on both sides: an odd stride loses a step.
            options = {"causal": False, "norm": c.norm, "missing": stride % 2}
            self.strided = ConvTranspose1d(dim, inside, stride, rngs, **options)
        else:
            self.strided = _conv(c, dim, 2 * dim, 2 * stride, rngs, stride=stride)
        self.units = nnx.List([Residual(c, inside, dilation, rngs) for dilation in DILATIONS])

    def __call__(self, x_BSD: Array, run) -> Array:
        if self.up:
            x_BSD = run(self.strided, self.snake(x_BSD))
        for unit in self.units:
            x_BSD = unit(x_BSD, run)
        return x_BSD if self.up else run(self.strided, self.snake(x_BSD))


class Encoder(nnx.Module):
    """Audio `[B, S, 1]` to latents `[B, F, D]`, F = ceil(S / hop)."""

    middle = None

    def __init__(self, config: DACConfig, rngs: nnx.Rngs):
        c, dim = config, config.filters
        self.dtype, self.hop = c.dtype, c.hop
        self.first = _conv(c, c.channels, dim, 7, rngs)
        blocks = []
        for stride in c.ratios:
            blocks.append(Block(c, dim, stride, rngs, up=False))
            dim *= 2
        self.blocks = nnx.List(blocks)
        self.snake = Snake(dim)
        self.last = _conv(c, dim, c.dim, 3, rngs)

    def front(self, audio: Audio, run) -> Array:
        # Whole frames first: a part full frame holds zeros, not what deeper layers would pad.
        x = jnp.pad(audio, ((0, 0), (0, -audio.shape[1] % self.hop), (0, 0)))
        if run.edges is not None:
            x = jnp.where(run.edges.inside(x.shape[1])[..., None], x, 0)
            run.edges = run.edges.down(self.hop).up(self.hop)
        x = run(self.first, x.astype(self.dtype))
        for block in self.blocks:
            x = block(x, run)
        return x

    def back(self, x_BFD: Array, run) -> Latents:
        return run(self.last, self.snake(x_BFD)).astype(jnp.float32)

    def __call__(self, audio: Audio, run=None) -> Latents:
        return through(self, audio, run)


class Decoder(nnx.Module):
    """Latents `[B, F, D]` to audio `[B, F · hop, 1]`.

    What odd strides lose at the end (8 samples at 16 and 24 kHz) is silence.
    """

    middle = None

    def __init__(self, config: DACConfig, rngs: nnx.Rngs):
        c, dim = config, config.decoder_filters
        self.dtype, self.hop = c.dtype, c.hop
        self.first = _conv(c, c.dim, dim, 7, rngs)
        blocks = []
        for stride in reversed(c.ratios):
            blocks.append(Block(c, dim, stride, rngs, up=True))
            dim //= 2
        self.blocks = nnx.List(blocks)
        self.snake = Snake(dim)
        self.last = _conv(c, dim, c.channels, 7, rngs)

    def front(self, latents: Latents, run) -> Array:
        return run(self.first, latents.astype(self.dtype))

    def back(self, x_BFD: Array, run) -> Audio:
        x = x_BFD
        for block in self.blocks:
            x = block(x, run)
        audio = jnp.tanh(run(self.last, self.snake(x))).astype(jnp.float32)
        if run.edges is not None:
            audio = jnp.where(run.edges.inside(audio.shape[1])[..., None], audio, 0)
        return jnp.pad(audio, ((0, 0), (0, x_BFD.shape[1] * self.hop - audio.shape[1]), (0, 0)))

    def __call__(self, latents: Latents, run=None) -> Audio:
        return through(self, latents, run)


def _conv(c: DACConfig, inner: int, outer: int, kernel: int, rngs: nnx.Rngs, **options) -> Conv1d:
    return Conv1d(
        inner, outer, kernel, rngs, causal=False, norm=c.norm, pad_mode="constant", **options
    )
