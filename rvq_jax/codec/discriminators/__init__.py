"""Networks that tell decoded from real audio, so that a codec learns what they hear."""

from dataclasses import dataclass, field

from flax import nnx

from rvq_jax.codec.discriminators.layers import Judgement
from rvq_jax.codec.discriminators.stft import MultiScaleSTFT, MultiScaleSTFTConfig
from rvq_jax.typing import Audio

__all__ = [
    "Discriminators",
    "DiscriminatorsConfig",
    "Judgement",
    "MultiScaleSTFT",
    "MultiScaleSTFTConfig",
]


@dataclass(frozen=True)
class DiscriminatorsConfig:
    """Which discriminators judge a codec; the default is EnCodec's choice at 24 kHz."""

    rate: int = 24_000  # samples per second of the audio they judge
    stft: MultiScaleSTFTConfig | None = field(default_factory=MultiScaleSTFTConfig)

    def build(self, rngs: nnx.Rngs) -> "Discriminators":
        """All of them."""
        return Discriminators(self, rngs)


class Discriminators(nnx.Module):
    """Audio `[B, S, C]` of any length to a judgement for each discriminator of each kind."""

    def __init__(self, config: DiscriminatorsConfig, rngs: nnx.Rngs):
        self.stft = config.stft.build(rngs) if config.stft else None

    def __call__(self, audio: Audio) -> tuple[Judgement, ...]:
        kinds = [kind for kind in (self.stft,) if kind is not None]
        return tuple(judgement for kind in kinds for judgement in kind(audio))
