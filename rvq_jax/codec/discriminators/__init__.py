"""Networks that tell decoded from real audio, so that a codec learns what they hear."""

import functools
from dataclasses import dataclass, field

from flax import nnx

from rvq_jax.codec.discriminators.bands import MultiBand, MultiBandConfig
from rvq_jax.codec.discriminators.layers import Judgement
from rvq_jax.codec.discriminators.periods import MultiPeriod, MultiPeriodConfig
from rvq_jax.codec.discriminators.scales import MultiScale, MultiScaleConfig
from rvq_jax.codec.discriminators.stft import MultiScaleSTFT, MultiScaleSTFTConfig
from rvq_jax.typing import Audio, Key

__all__ = [
    "Discriminators",
    "DiscriminatorsConfig",
    "Judgement",
    "MultiBand",
    "MultiBandConfig",
    "MultiPeriod",
    "MultiPeriodConfig",
    "MultiScale",
    "MultiScaleConfig",
    "MultiScaleSTFT",
    "MultiScaleSTFTConfig",
    "graph",
    "init_params",
]


@dataclass(frozen=True)
class DiscriminatorsConfig:
    """Which discriminators judge a codec, if any; the default is EnCodec's choice at 24 kHz."""

    rate: int = 24_000  # samples per second of the audio they judge
    stft: MultiScaleSTFTConfig | None = field(default_factory=MultiScaleSTFTConfig)
    periods: MultiPeriodConfig | None = None
    bands: MultiBandConfig | None = None
    scales: MultiScaleConfig | None = None

    def build(self, rngs: nnx.Rngs) -> "Discriminators":
        """All of them."""
        return Discriminators(self, rngs)


class Discriminators(nnx.Module):
    """Audio `[B, S, C]` of any length to a judgement for each discriminator of each kind."""

    def __init__(self, config: DiscriminatorsConfig, rngs: nnx.Rngs):
        c = config
        self.stft = c.stft.build(rngs) if c.stft else None
        self.periods = c.periods.build(rngs) if c.periods else None
        self.bands = c.bands.build(rngs) if c.bands else None
        self.scales = c.scales.build(rngs) if c.scales else None

    def __call__(self, audio: Audio) -> tuple[Judgement, ...]:
        kinds = (self.stft, self.periods, self.bands, self.scales)
        return tuple(judgement for kind in kinds if kind is not None for judgement in kind(audio))


@functools.lru_cache(maxsize=32)
def graph(config: DiscriminatorsConfig):
    """The structure that `nnx.merge` joins with parameters; computes nothing."""
    return nnx.graphdef(nnx.eval_shape(lambda: config.build(nnx.Rngs(0))))


def init_params(config: DiscriminatorsConfig, key: Key) -> nnx.State:
    """Random parameters."""
    return nnx.state(config.build(nnx.Rngs(params=key)), nnx.Param)
