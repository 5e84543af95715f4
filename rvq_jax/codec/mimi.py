"""Mimi: a SEANet without recurrence, causal transformers, and half its frame rate.

Défossez et al. 2024 (Moshi), §3.3.
"""

import dataclasses
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax import draws, quantize
from rvq_jax.codec import seanet
from rvq_jax.codec.autoencoder import Autoencoder
from rvq_jax.codec.conv import Conv1d
from rvq_jax.codec.edges import Edges
from rvq_jax.codec.passes import through
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.codec.transformer import Transformer, TransformerConfig
from rvq_jax.quantize import Bottleneck, Split
from rvq_jax.typing import Array, Audio, Key, Latents


def _seanet() -> SEANetConfig:
    return SEANetConfig(
        dim=512,
        filters=64,
        ratios=(8, 6, 5, 4),
        last_kernel=3,
        true_skip=True,
        lstm_layers=0,
        norm="none",
        pad_mode="constant",
    )


@dataclass(frozen=True)
class MimiConfig:
    """Mimi's sizes; the defaults are the published ones."""

    rate: int = 24_000  # samples per second
    seanet: SEANetConfig = field(default_factory=_seanet)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    stride: int = 2  # of the frames of SEANet and transformers to those of the codes
    levels: int = 32  # K, codebooks, the semantic ones first
    semantic: int = 1  # levels that learn from a speech model
    codebook_size: int = 2048  # N, codes per codebook
    code_dim: int = 256  # features in which codes are looked up

    normalize = False
    segment = None
    causal = True
    mirrors = False

    def __post_init__(self):
        if not 0 < self.semantic < self.levels:
            raise ValueError(f"semantic must be in 1..{self.levels - 1}, got {self.semantic}")
        if self.transformer.dim != self.seanet.dim:
            raise ValueError(
                f"transformer.dim {self.transformer.dim} must be seanet.dim {self.seanet.dim}"
            )

    @property
    def channels(self) -> int:
        """Of the audio."""
        return self.seanet.channels

    @property
    def dim(self) -> int:
        """Features of the latents."""
        return self.seanet.dim

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return self.seanet.hop * self.stride

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.rate / self.hop

    def prepared(self) -> "MimiConfig":
        """This config with every transformer layer's parameters apart."""
        return dataclasses.replace(
            self, transformer=dataclasses.replace(self.transformer, stacked=False)
        )

    def build(self, rngs: nnx.Rngs) -> Autoencoder:
        """The learned halves around the quantizer."""
        return Autoencoder(Encoder(self, rngs), Decoder(self, rngs))

    def quantizer(self, key: Key) -> Split:
        """An untrained quantizer."""

        def part(key: Key, levels: int) -> Bottleneck:
            map_key, book_key = jax.random.split(key)
            books = quantize.init(book_key, levels, self.codebook_size, self.code_dim)
            return Bottleneck.init(map_key, self.dim, books)

        first_key, rest_key = jax.random.split(key)
        first, rest = part(first_key, self.semantic), part(rest_key, self.levels - self.semantic)
        return Split(first, rest)


class Encoder(nnx.Module):
    """Audio `[B, S, C]` to latents `[B, F, D]`, F = ceil(S / hop)."""

    def __init__(self, config: MimiConfig, rngs: nnx.Rngs):
        c = config
        self.seanet = seanet.Encoder(c.seanet, rngs)
        self.middle = Transformer(c.transformer, rngs)
        # The one convolution that repeats its first input, at the very beginning.
        options = {"stride": c.stride, "norm": "none", "pad_mode": "replicate", "bias": False}
        self.down = Conv1d(c.dim, c.dim, 2 * c.stride, rngs, **options)

    def front(self, audio: Audio, run) -> Array:
        return through(self.seanet, audio, run)

    def back(self, x_BFD: Array, run) -> Latents:
        return run(self.down, x_BFD)

    def __call__(self, audio: Audio, run=None) -> Latents:
        return through(self, audio, run)


class Decoder(nnx.Module):
    """Latents `[B, F, D]` to audio `[B, F · hop, C]`."""

    def __init__(self, config: MimiConfig, rngs: nnx.Rngs):
        c = config
        self.up = Repeat(c.dim, c.stride, rngs)
        self.middle = Transformer(c.transformer, rngs)
        self.seanet = seanet.Decoder(c.seanet, rngs)

    def front(self, latents: Latents, run) -> Array:
        return run(self.up, latents)

    def back(self, x_BFD: Array, run) -> Audio:
        return through(self.seanet, x_BFD, run)

    def __call__(self, latents: Latents, run=None) -> Audio:
        return through(self, latents, run)


class Repeat(nnx.Module):
    """A causal transposed convolution, each feature by itself, without bias."""

    def __init__(self, dim: int, stride: int, rngs: nnx.Rngs):
        self.stride, self.reach = stride, 2
        # Each output is the sum of two.
        draw = draws.normal(rngs.params(), (2 * stride, dim), 0.5**0.5)
        self.kernel = nnx.Param(draw, axes=(None, "embed"))

    def moves(self, edges: Edges) -> Edges:
        """Where an item lies after this layer."""
        return edges.up(self.stride)

    def __call__(self, x_BFD: Array, edges: Edges | None = None) -> Array:
        return self.step(x_BFD, None, edges)[0]

    def step(self, x_BFD: Array, past: Array | None, edges: Edges | None = None):
        """The next F · stride outputs, and the input that the next ones still see."""
        past = jnp.zeros_like(x_BFD[:, :1]) if past is None else past
        seen_BFD = jnp.concatenate([past, x_BFD], axis=1)
        first_SD, second_SD = self.kernel[: self.stride], self.kernel[self.stride :]
        blocks = x_BFD[:, :, None] * first_SD[None, None]
        blocks = blocks + seen_BFD[:, :-1, None] * second_SD[None, None]
        return blocks.reshape(x_BFD.shape[0], -1, x_BFD.shape[2]), x_BFD[:, -1:]
