"""The sizes of codecs of EnCodec's kind: SEANet around plain residual codebooks."""

import dataclasses
from dataclasses import dataclass, field

from flax import nnx

from rvq_jax import quantize
from rvq_jax.codec.autoencoder import Autoencoder
from rvq_jax.codec.seanet import Decoder, Encoder, SEANetConfig
from rvq_jax.quantize import Codebooks
from rvq_jax.typing import Key


@dataclass(frozen=True)
class CodecConfig:
    """A codec's sizes; `rvq_jax.systems.encodec` has the published ones by name."""

    rate: int = 16_000  # samples per second
    seanet: SEANetConfig = field(default_factory=SEANetConfig)
    levels: int = 4  # K, codebooks
    codebook_size: int = 256  # N, codes per codebook
    normalize: bool = False  # take out each segment's loudness before encoding
    segment: float | None = None  # seconds that are coded apart from each other; None: all at once
    overlap: float = 0.01  # share of a segment that the next one repeats
    bandwidths: tuple[float, ...] = ()  # kbps offered, lowest first, () for those of all levels

    def __post_init__(self):
        if self.segment is not None and self.segment * self.rate < 1:
            raise ValueError(f"segment must be at least one sample, got {self.segment} s")

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
        return self.seanet.hop

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.rate / self.hop

    @property
    def causal(self) -> bool:
        """Whether codes depend on no later audio, but for a mirrored start."""
        return self.seanet.causal

    @property
    def mirrors(self) -> bool:
        """Whether convolutions mirror the ends of what they see."""
        return self.seanet.pad_mode == "reflect"

    def prepared(self) -> "CodecConfig":
        """This config without weight norm."""
        if self.seanet.norm != "weight_norm":
            return self
        return dataclasses.replace(self, seanet=dataclasses.replace(self.seanet, norm="none"))

    def build(self, rngs: nnx.Rngs) -> Autoencoder:
        """The learned halves around the quantizer."""
        return Autoencoder(Encoder(self.seanet, rngs), Decoder(self.seanet, rngs))

    def quantizer(self, key: Key) -> Codebooks:
        """An untrained quantizer."""
        return quantize.init(key, self.levels, self.codebook_size, self.dim)


def tiny(filters: int = 8, dim: int = 64, levels: int = 4, codebook_size: int = 128) -> CodecConfig:
    """Makes the config of a causal codec small enough to train on a laptop.

    16 kHz, 50 frames per second, no LSTM. Its encoder strides by 8 first, so that little is
    computed at the full rate: half the time of EnCodec's order at the same width. Zero padding,
    because reflection looks ahead.

    Args:
      filters: features at the audio's rate; doubled at every stride.
      dim: D, features of the latents.
      levels: K, codebooks.
      codebook_size: N, codes per codebook.

    Returns:
      The config.
    """
    seanet = SEANetConfig(
        filters=filters, dim=dim, ratios=(2, 4, 5, 8), lstm_layers=0, pad_mode="constant"
    )
    return CodecConfig(seanet=seanet, levels=levels, codebook_size=codebook_size)
