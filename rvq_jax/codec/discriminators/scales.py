"""HiFi-GAN's discriminators of audio at several rates, in the sizes that DAC has.

Kumar et al. 2019 (MelGAN), §2.2; Kong et al. 2020 (HiFi-GAN), §2.3. DAC's recipes leave them out.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rvq_jax.codec.discriminators.layers import Conv1d, Judgement, gather, judge, level
from rvq_jax.typing import Array, Audio

SLOPE = 0.1
FIRST, INNER, AFTER, LAST = 15, 41, 5, 3  # kernels
CROSSINGS, ROLLOFF = 24, 0.945  # of the resampling filter


@dataclass(frozen=True)
class MultiScaleConfig:
    """Sizes of the discriminators of rates; the defaults are DAC's, at HiFi-GAN's three rates."""

    divisors: tuple[int, ...] = (1, 2, 4)  # of the rate
    filters: tuple[int, ...] = (16, 64, 256, 1024, 1024, 1024)  # all between the ends stride by 4
    groups: tuple[int, ...] = (1, 4, 16, 64, 256, 1)  # of features that do not see each other

    def __post_init__(self):
        if len(self.groups) != len(self.filters) or len(self.filters) < 2:
            raise ValueError(f"{len(self.filters)} filters need as many groups, and two at least")
        for inner, outer, groups in zip(
            (1, *self.filters), self.filters, self.groups, strict=False
        ):
            if inner % groups or outer % groups:
                raise ValueError(f"{groups} groups do not divide {inner} and {outer} features")

    def build(self, rngs: nnx.Rngs) -> "MultiScale":
        """The discriminators, one for each rate."""
        return MultiScale(self, rngs)


class MultiScale(nnx.Module):
    """Audio `[B, S, C]` to a judgement for each rate, of the channels apart."""

    def __init__(self, config: MultiScaleConfig, rngs: nnx.Rngs):
        self.divisors = config.divisors
        self.rates = nnx.List([Rate(config, rngs) for _ in config.divisors])

    def __call__(self, audio: Audio) -> tuple[Judgement, ...]:
        x_BS = level(audio)
        return tuple(
            rate(downsample(x_BS, divisor))
            for rate, divisor in zip(self.rates, self.divisors, strict=True)
        )


class Rate(nnx.Module):
    """The discriminator of one rate."""

    def __init__(self, config: MultiScaleConfig, rngs: nnx.Rngs):
        inner = len(config.filters) - 2
        kernels = [FIRST, *[INNER] * inner, AFTER]
        strides = [1, *[4] * inner, 1]
        widths = (1, *config.filters)
        self.layers = nnx.List(
            GroupedConv1d(groups, widths[i], widths[i + 1], kernels[i], rngs, stride=strides[i])
            for i, groups in enumerate(config.groups)
        )
        self.last = Conv1d(widths[-1], 1, LAST, rngs)

    def __call__(self, x_BS: Array) -> Judgement:
        return judge(self.layers, self.last, x_BS[..., None], SLOPE)


class GroupedConv1d(Conv1d):
    """One convolution for each group of features, which sees no other.

    XLA's own takes up to five hundred times as long on CPU for its kernel's gradient.
    """

    def __init__(self, groups: int, inner: int, outer: int, kernel: int, rngs: nnx.Rngs, **options):
        super().__init__(inner // groups, outer, kernel, rngs, **options)
        self.groups = groups

    def __call__(self, x_BSD: Array) -> Array:
        if self.groups == 1:
            return super().__call__(x_BSD)
        kernel = self.kernel()
        width, inner, outer = kernel.shape
        x_BSD, taps = gather(x_BSD, width, self.stride)
        batch, steps, _ = x_BSD.shape
        # Groups in front, as those of a batched product.
        x = x_BSD.reshape(batch, steps, self.stride, self.groups, inner).transpose(3, 0, 1, 2, 4)
        x = x.reshape(self.groups, batch, steps, self.stride * inner)
        kernel = jnp.pad(kernel, ((0, taps * self.stride - width), (0, 0), (0, 0)))
        kernel = kernel.reshape(taps, self.stride * inner, self.groups, -1)
        out = steps - taps + 1
        y = sum(jnp.einsum("gbsi,igo->bsgo", x[:, :, i : i + out], kernel[i]) for i in range(taps))
        return y.reshape(batch, out, outer) + self.bias[...][None, None]


def downsample(x_BS: Array, divisor: int) -> Array:
    """Every `divisor`-th sample, floor(S / divisor) of them and one at least, after a low pass.

    A sinc under a squared cosine (Smith 2002, bandlimited interpolation); the ends are repeated.
    """
    if divisor == 1:
        return x_BS
    half = math.ceil(CROSSINGS * divisor / ROLLOFF)
    at = np.arange(-half, half + divisor) * (ROLLOFF / divisor)
    at = np.clip(at, -CROSSINGS, CROSSINGS)
    low_pass = np.sinc(at) * np.cos(np.pi / 2 * at / CROSSINGS) ** 2
    low_pass = np.pad(low_pass / low_pass.sum(), (0, -len(at) % divisor)).astype(np.float32)
    samples, taps = x_BS.shape[1], len(low_pass) // divisor
    right = (max(1, samples // divisor) + taps - 1) * divisor - half - samples
    padded = jnp.pad(x_BS, ((0, 0), (half, right)), mode="edge")
    y = jax.lax.conv_general_dilated(
        padded.reshape(x_BS.shape[0], -1, divisor),
        low_pass.reshape(taps, divisor, 1),
        (1,),
        "VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    return y[..., 0]
