"""EnCodec's discriminators of complex spectrograms at several window lengths.

Défossez et al. 2022 (EnCodec), §3.4 and figure 2.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx

from rvq_jax.audio import spectral
from rvq_jax.codec.discriminators.layers import Conv2d, Judgement, judge
from rvq_jax.typing import Array, Audio

KERNEL = (3, 9)  # frames and bins that a layer sees
LAST = (3, 3)


@dataclass(frozen=True)
class MultiScaleSTFTConfig:
    """Sizes of the discriminators of spectrograms; the defaults are EnCodec's at 24 kHz."""

    channels: int = 1  # C, of the audio, which are judged together
    filters: int = 32  # features of every layer
    windows: tuple[int, ...] = (2048, 1024, 512, 256, 128)  # samples; doubled at 48 kHz
    dilations: tuple[int, ...] = (1, 2, 4)  # frames, of the layers that halve the bins
    slope: float = 0.2  # of the rectifiers below zero; audiocraft's recipes have 0.3

    def build(self, rngs: nnx.Rngs) -> "MultiScaleSTFT":
        """The discriminators, one for each window."""
        return MultiScaleSTFT(self, rngs)


class MultiScaleSTFT(nnx.Module):
    """Audio `[B, S, C]` to a judgement for each window; shorter audio than a window is padded."""

    def __init__(self, config: MultiScaleSTFTConfig, rngs: nnx.Rngs):
        self.scales = nnx.List([Scale(config, window, rngs) for window in config.windows])

    def __call__(self, audio: Audio) -> tuple[Judgement, ...]:
        return tuple(scale(audio) for scale in self.scales)


class Scale(nnx.Module):
    """The discriminator of one window's spectrogram."""

    def __init__(self, config: MultiScaleSTFTConfig, window: int, rngs: nnx.Rngs):
        c = config
        self.window, self.slope = window, c.slope
        # The published first layer alone has no weight norm.
        layers = [Conv2d(2 * c.channels, c.filters, KERNEL, rngs, norm="none")]
        for dilation in c.dilations:
            layers.append(Conv2d(c.filters, c.filters, KERNEL, rngs, stride=2, dilation=dilation))
        layers.append(Conv2d(c.filters, c.filters, LAST, rngs))
        self.layers = nnx.List(layers)
        self.last = Conv2d(c.filters, 1, LAST, rngs)

    def __call__(self, audio: Audio) -> Judgement:
        return judge(self.layers, self.last, spectrogram(audio, self.window), self.slope)


def spectrogram(audio: Audio, window: int) -> Array:
    """Real and imaginary parts `[B, frames, bins, 2C]` of white noise's own size, hop window / 4.

    Only whole windows are seen; audio shorter than one is padded with zeros to one.
    """
    audio_BCS = audio.swapaxes(1, 2)
    short = max(0, window - audio.shape[1])
    audio_BCS = jnp.pad(audio_BCS, ((0, 0), (0, 0), (0, short)))
    hann = spectral.hann(window)
    hann = hann / np.sqrt(np.sum(hann**2))
    frames = spectral.slide(audio_BCS, window, max(1, window // 4))
    spectrum = jnp.fft.rfft(frames * hann[None, None, None])
    both = jnp.concatenate([spectrum.real, spectrum.imag], axis=1)
    return both.transpose(0, 2, 3, 1)
