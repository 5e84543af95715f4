"""DAC's discriminators of complex spectrograms, band by band, at several window lengths.

Kumar et al. 2023 (DAC), §3.4.
"""

from dataclasses import dataclass
from itertools import pairwise

import jax.numpy as jnp
from flax import nnx

from rvq_jax.audio import spectral
from rvq_jax.codec.discriminators.layers import Conv2d, Judgement, level, run
from rvq_jax.typing import Array, Audio

SLOPE = 0.1
LAYERS = (((3, 9), 1), ((3, 9), 2), ((3, 9), 2), ((3, 9), 2), ((3, 3), 1))  # kernels and strides


@dataclass(frozen=True)
class MultiBandConfig:
    """Sizes of the discriminators of bands; the defaults are DAC's."""

    windows: tuple[int, ...] = (2048, 1024, 512)  # samples, multiples of 8
    cuts: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75)  # shares of the spectrum where bands part
    filters: int = 32  # features of every layer

    def __post_init__(self):
        for window in self.windows:
            if window % 8:
                raise ValueError(f"windows must be multiples of 8, got {window}")
            edges = self.edges(window)
            if any(low >= high for low, high in pairwise(edges)):
                raise ValueError(f"cuts {self.cuts} leave a band empty in a window of {window}")

    def edges(self, window: int) -> tuple[int, ...]:
        """The bins of a window's spectrum where bands begin, and where the last one ends."""
        bins = window // 2 + 1
        return (0, *(int(cut * bins) for cut in self.cuts), bins)

    def build(self, rngs: nnx.Rngs) -> "MultiBand":
        """The discriminators, one for each window."""
        return MultiBand(self, rngs)


class MultiBand(nnx.Module):
    """Audio `[B, S, C]` to a judgement for each window, of the channels apart."""

    def __init__(self, config: MultiBandConfig, rngs: nnx.Rngs):
        self.windows = nnx.List([Bands(config, window, rngs) for window in config.windows])

    def __call__(self, audio: Audio) -> tuple[Judgement, ...]:
        x_BS = level(audio)
        return tuple(window(x_BS) for window in self.windows)


class Bands(nnx.Module):
    """The discriminator of one window: layers for each band, and one score over all of them."""

    def __init__(self, config: MultiBandConfig, window: int, rngs: nnx.Rngs):
        self.window, self.edges, width = window, config.edges(window), config.filters

        def layers():
            widths = [2, *[width] * (len(LAYERS) - 1)]
            return nnx.List(
                Conv2d(inner, width, kernel, rngs, stride=stride)
                for inner, (kernel, stride) in zip(widths, LAYERS, strict=True)
            )

        self.bands = nnx.List([layers() for _ in self.edges[1:]])
        self.last = Conv2d(width, 1, (3, 3), rngs)

    def __call__(self, x_BS: Array) -> Judgement:
        x = spectrogram(x_BS, self.window)
        features, ends = [], []
        for layers, (low, high) in zip(self.bands, pairwise(self.edges), strict=True):
            features += run(layers, x[:, :, low:high], SLOPE)
            ends.append(features[-1])
        return Judgement(self.last(jnp.concatenate(ends, axis=2)), tuple(features))


def spectrogram(x_BS: Array, window: int) -> Array:
    """Real and imaginary parts `[B, frames, bins, 2]`, ceil(S / hop) frames of hop window / 4.

    Frame i is centred on the middle of hop i, and the ends are mirrored.
    """
    hop = window // 4
    side, more = (window - hop) // 2, -x_BS.shape[1] % hop
    x_BS = jnp.pad(x_BS, ((0, 0), (side, side + more)), mode="reflect")
    frames = spectral.slide(x_BS, window, hop) * spectral.hann(window)[None, None]
    spectrum = jnp.fft.rfft(frames)
    return jnp.stack([spectrum.real, spectrum.imag], axis=-1)
