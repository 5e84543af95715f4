"""Augmentation of batches of audio inside a training step: loudness, gain, mixing, phase."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from rvq_jax.typing import Array, Audio, Key

QUIETEST = -70.0  # LUFS that count as silence (the absolute gate of BS.1770)


@dataclass(frozen=True)
class Augmentation:
    """What happens to each item of a batch, in this order; nothing by default."""

    loudness_db: float | None = None  # LUFS that every item is brought to; DAC has -16
    gain_db: tuple[float, float] = (0.0, 0.0)  # range of a random gain; EnCodec has -10 to 6
    mix: float = 0.0  # share of items that the next one is added to; EnCodec mixes 0.36
    phase: float = 0.0  # share of items whose phase is shifted by a random angle; DAC has 1


def augment(
    key: Key,
    audio: Audio,
    mask: Array,
    config: Augmentation,
    rate: int,
    index: Array | None = None,
) -> Audio:
    """Augments the items of a batch, each by random numbers of its own.

    What an item becomes depends on the key, its index and itself alone, but for mixing, which adds
    the next item of the batch. Padding stays silent, and an item that would pass full scale is
    scaled down to it as a whole. Défossez et al. 2022 (EnCodec), §4.1; Kumar et al. 2023
    (Improved RVQGAN), whose recipe brings crops to one loudness and shifts their phase.

    Args:
      key: of this update.
      audio: `[B, S, C]`, 0 where padded.
      mask: bool `[B, S]`, False where padded.
      config: what to do.
      rate: samples per second.
      index: int `[B]`, what the items' random numbers are drawn by; their places by default.

    Returns:
      Audio `[B, S, C]`.
    """
    if config == Augmentation():
        return audio
    items, padding = len(audio), mask[..., None]
    index = jnp.arange(items) if index is None else index
    draws_B4 = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (4,)))(index)
    gain_B, mixed_B, shifted_B, angle_B = draws_B4.T
    low, high = config.gain_db
    gain_dB_B = low + (high - low) * gain_B
    if config.loudness_db is not None:
        gain_dB_B += config.loudness_db - loudness(audio, mask, rate)
    audio = audio * _of_items(10.0 ** (gain_dB_B / 20.0))
    if config.mix > 0 and items > 1:
        audio += _of_items(mixed_B < config.mix) * jnp.roll(audio, -1, axis=0)
    if config.phase > 0:
        angle_B = jnp.where(shifted_B < config.phase, np.pi * (2.0 * angle_B - 1.0), 0.0)
        audio = shift_phase(audio, angle_B)
    audio *= padding
    return audio / jnp.maximum(1.0, jnp.abs(audio).max(axis=(1, 2), keepdims=True))


def shift_phase(audio: Audio, angle_B: Array) -> Audio:
    """Turns every frequency of items `[B, S, C]` by an angle `[B]` in radians, of each its own.

    As of the whole crop's spectrum, so its ends meet. The mean, which has no phase, is scaled by
    the angle's cosine.
    """
    turned = jnp.fft.rfft(audio, axis=1) * _of_items(jnp.exp(1j * angle_B))
    return jnp.fft.irfft(turned, audio.shape[1], axis=1)


def loudness(audio: Audio, mask: Array, rate: int) -> Array:
    """Measures the loudness of each item as ITU-R BS.1770-4 weights it, without its gate.

    Args:
      audio: `[B, S, C]`, 0 where padded.
      mask: bool `[B, S]`, False where padded.
      rate: samples per second.

    Returns:
      LUFS `[B]`, at least -70.
    """
    samples = audio.shape[1]
    spectrum = jnp.fft.rfft(audio, axis=1)
    power_BFC = spectrum.real**2 + spectrum.imag**2
    # By Parseval; each bin counts twice, but for the ends, of which the lower has no gain.
    gain_F = _k_weighting(rate, samples) * 2.0 / samples
    energy_B = jnp.einsum("bfc,f->b", power_BFC, gain_F)
    mean_B = energy_B / jnp.maximum(1, mask.sum(axis=1))
    return jnp.maximum(QUIETEST, 10.0 * jnp.log10(jnp.maximum(mean_B, 1e-30)) - 0.691)


@functools.lru_cache(maxsize=16)
def _k_weighting(rate: int, samples: int) -> np.ndarray:
    """Squared gain of each bin of a real spectrum."""
    z = np.exp(-2j * np.pi * np.arange(samples // 2 + 1) / samples)
    gain = np.ones(len(z))
    for numerator, denominator in k_filters(rate):
        gain *= np.abs(np.polyval(numerator[::-1], z) / np.polyval(denominator[::-1], z)) ** 2
    return gain.astype(np.float32)


def k_filters(rate: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two filters of K-weighting, a shelf and a high-pass: numerator and denominator in 1/z.

    BS.1770 lists them for 48 kHz; for other rates their analogue forms (De Man 2014) are warped.
    """
    warped = np.tan(np.pi * np.array([1681.974450955533, 38.13547087602444]) / rate)
    widths = warped / np.array([0.7071752369554196, 0.5003270373238773])
    high = 10.0 ** (3.999843853973347 / 20.0)
    band = high**0.4996667741545416
    (k, _), (width, _) = warped, widths
    shelf = [high + band * width + k**2, 2.0 * (k**2 - high), high - band * width + k**2]
    denominators = [
        np.array([1.0 + w + k**2, 2.0 * (k**2 - 1.0), 1.0 - w + k**2])
        for k, w in zip(warped, widths, strict=True)
    ]
    (first, second), one = denominators, np.array([1.0, -2.0, 1.0])
    return [(np.array(shelf) / first[0], first / first[0]), (one, second / second[0])]


def _of_items(values_B: Array) -> Array:
    return values_B[:, None, None]
