"""HiFi-GAN's discriminators of every p-th sample, in the sizes that DAC has.

Kong et al. 2020 (HiFi-GAN), §2.3; Kumar et al. 2023 (DAC), §3.4.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx

from rvq_jax.codec.discriminators.layers import Conv1d, Judgement, judge, level
from rvq_jax.typing import Audio

SLOPE = 0.1


@dataclass(frozen=True)
class MultiPeriodConfig:
    """Sizes of the discriminators of periods; the defaults are DAC's."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)  # samples
    filters: tuple[int, ...] = (32, 128, 512, 1024, 1024)  # features; all but the last stride by 3

    def build(self, rngs: nnx.Rngs) -> "MultiPeriod":
        """The discriminators, one for each period."""
        return MultiPeriod(self, rngs)


class MultiPeriod(nnx.Module):
    """Audio `[B, S, C]` to a judgement for each period, of the channels apart."""

    def __init__(self, config: MultiPeriodConfig, rngs: nnx.Rngs):
        self.periods = nnx.List([Period(config.filters, period, rngs) for period in config.periods])

    def __call__(self, audio: Audio) -> tuple[Judgement, ...]:
        x_BS = level(audio)
        return tuple(period(x_BS) for period in self.periods)


class Period(nnx.Module):
    """The discriminator of one period: layers along the samples that are a period apart."""

    def __init__(self, filters: tuple[int, ...], period: int, rngs: nnx.Rngs):
        self.period = period
        strides = [3] * (len(filters) - 1) + [1]
        self.layers = nnx.List(
            Conv1d(inner, outer, 5, rngs, stride=stride)
            for inner, outer, stride in zip((1, *filters), filters, strides, strict=False)
        )
        self.last = Conv1d(filters[-1], 1, 3, rngs)

    def __call__(self, x_BS) -> Judgement:
        # A whole period more where none is missing, as published.
        more = self.period - x_BS.shape[1] % self.period
        x_BS = jnp.pad(x_BS, ((0, 0), (0, more)), mode="reflect")
        x = x_BS.reshape(x_BS.shape[0], -1, self.period).swapaxes(1, 2)
        return judge(self.layers, self.last, x.reshape(-1, x.shape[2], 1), SLOPE)
