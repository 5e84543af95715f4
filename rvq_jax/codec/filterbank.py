"""A codec that computes at its frame rate alone: learned filterbanks around residual units.

One strided convolution takes the audio to frames and one transposed convolution takes them back, as
in TasNet (Luo & Mesgarani 2019); what lies between costs the same for every sampling rate, as in
Vocos (Siuzdak 2023). On a processor an update takes a quarter of the time of a SEANet of its size,
whose layers at the audio's own rate are bound by memory (experiments/codec/forms.py).
"""

from dataclasses import dataclass, replace
from typing import Literal

import jax.numpy as jnp
from flax import nnx

from rvq_jax import quantize
from rvq_jax.codec.autoencoder import Autoencoder
from rvq_jax.codec.conv import ConvTranspose1d
from rvq_jax.codec.passes import through
from rvq_jax.codec.seanet import Residual, SEANetConfig, conv, elu
from rvq_jax.quantize import Codebooks
from rvq_jax.typing import Array, Audio, Dtype, Key, Latents


@dataclass(frozen=True)
class FilterbankConfig:
    """Sizes of the codec; the defaults are the built-in one's, 50 frames a second at 16 kHz."""

    rate: int = 16_000  # samples per second
    channels: int = 1  # C, of the audio
    hop: int = 320  # samples per frame; filters are twice as long
    filters: int = 384  # of each bank, and features between them
    dilations: tuple[int, ...] = (1, 2, 4, 1, 2)  # frames, of the residual units of each half
    dim: int = 48  # D, of the latents
    levels: int = 8  # K, codebooks
    codebook_size: int = 1024  # N, codes per codebook
    norm: Literal["weight_norm", "none"] = "weight_norm"  # of the convolutions
    dtype: Dtype = "float32"  # of the computation; parameters, latents and audio stay float32

    normalize = False
    segment = None
    causal = True
    mirrors = False

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.rate / self.hop

    def prepared(self) -> "FilterbankConfig":
        """This config without weight norm."""
        return replace(self, norm="none")

    def build(self, rngs: nnx.Rngs) -> Autoencoder:
        """The learned halves around the quantizer."""
        return Autoencoder(Encoder(self, rngs), Decoder(self, rngs))

    def quantizer(self, key: Key) -> Codebooks:
        """An untrained quantizer."""
        return quantize.init(key, self.levels, self.codebook_size, self.dim)


class Encoder(nnx.Module):
    """Audio `[B, S, C]` to latents `[B, F, D]`, F = ceil(S / hop)."""

    middle = None

    def __init__(self, config: FilterbankConfig, rngs: nnx.Rngs):
        c, s = config, _layers(config)
        self.dtype = c.dtype
        self.bank = conv(s, c.channels, c.filters, 2 * c.hop, rngs, stride=c.hop)
        self.units = nnx.List([Residual(s, c.filters, x, rngs) for x in c.dilations])
        self.last = conv(s, c.filters, c.dim, 3, rngs)

    def front(self, audio: Audio, run) -> Array:
        x = run(self.bank, audio.astype(self.dtype))
        for unit in self.units:
            x = unit(x, run)
        return x

    def back(self, x_BFD: Array, run) -> Latents:
        return run(self.last, elu(x_BFD)).astype(jnp.float32)

    def __call__(self, audio: Audio, run=None) -> Latents:
        return through(self, audio, run)


class Decoder(nnx.Module):
    """Latents `[B, F, D]` to audio `[B, F · hop, C]`, the mirror of the encoder."""

    middle = None

    def __init__(self, config: FilterbankConfig, rngs: nnx.Rngs):
        c, s = config, _layers(config)
        self.dtype = c.dtype
        self.first = conv(s, c.dim, c.filters, 3, rngs)
        self.units = nnx.List([Residual(s, c.filters, x, rngs) for x in c.dilations])
        self.bank = ConvTranspose1d(c.filters, c.channels, c.hop, rngs, causal=True, norm=c.norm)

    def front(self, latents: Latents, run) -> Array:
        return run(self.first, latents.astype(self.dtype))

    def back(self, x_BFD: Array, run) -> Audio:
        x = x_BFD
        for unit in self.units:
            x = unit(x, run)
        return run(self.bank, x).astype(jnp.float32)

    def __call__(self, latents: Latents, run=None) -> Audio:
        return through(self, latents, run)


def _layers(config: FilterbankConfig) -> SEANetConfig:
    """What SEANet's layers have to know."""
    return SEANetConfig(norm=config.norm, pad_mode="constant", true_skip=True, dtype=config.dtype)
