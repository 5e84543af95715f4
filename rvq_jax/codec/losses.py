"""What a codec's audio should share with the original: samples, and spectra at many scales."""

import jax.numpy as jnp

from rvq_jax.audio import spectral
from rvq_jax.typing import Array, Audio, Latents

WINDOWS = (128, 512, 2048)  # 8 to 128 ms at 16 kHz


def l1(reference: Audio, estimate: Audio) -> Array:
    """Mean absolute difference of samples."""
    return jnp.mean(jnp.abs(reference - estimate))


def multi_scale_mel(
    reference: Audio, estimate: Audio, rate: int, windows: tuple[int, ...] = WINDOWS
) -> Array:
    """Computes a distance of log-mel spectra over several window lengths: L1 plus root mean square.

    The hop is a quarter of the window. Défossez et al. 2022 (EnCodec), §3.4, which has windows 2^5
    to 2^11: the default three cost a third of that and less than a tenth of a laptop codec's step.

    Args:
      reference: original audio `[B, S, C]`, whose channels are averaged first.
      estimate: decoded audio `[B, S, C]`, likewise.
      rate: samples per second.
      windows: lengths of the windows in samples.

    Returns:
      The mean over all windows, a scalar.
    """
    total = 0.0
    for window in windows:
        mels = (
            spectral.log_mel(x.mean(axis=-1), rate, window, window // 4, bands_of(window))
            for x in (reference, estimate)
        )
        difference = jnp.subtract(*mels)
        # The root's slope is infinite where both spectra agree exactly.
        squared = jnp.mean(difference**2, axis=-1)
        total += jnp.mean(jnp.abs(difference)) + jnp.mean(jnp.sqrt(squared + 1e-8))
    return total / len(windows)


def encodec_mel(
    reference: Audio,
    estimate: Audio,
    rate: int,
    windows: tuple[int, ...] = (64, 128, 256, 512, 1024),
    bands: int = 64,
    low: float = 64.0,
) -> Array:
    """Computes EnCodec's distance of mel spectra: L1 of powers and squares of their logarithms.

    As audiocraft trains with it; the paper's windows are 32 to 2048. Défossez et al. 2022, §3.4.

    Args:
      reference: original audio `[B, S, C]`, each channel on its own.
      estimate: decoded audio `[B, S, C]`.
      rate: samples per second.
      windows: lengths of the windows in samples; the hop is a quarter.
      bands: mel bands, of which those between two bins of a short window are empty.
      low: where the lowest begins, in hertz.

    Returns:
      The mean over windows and both terms, a scalar.
    """
    total = 0.0
    for window in windows:
        hop = window // 4
        filters = spectral.htk_filters(rate, window, bands, low)
        mels = []
        for x in (reference, estimate):
            x = spectral.reflect(jnp.moveaxis(x, 1, -1), (window - hop) // 2)
            x = jnp.pad(x, ((0, 0), (0, 0), (0, -reference.shape[1] % hop)))
            found = spectral.spectrum(spectral.slide(x, window, hop))
            energy = 0.375 * window  # of the Hann window
            mels.append((found.real**2 + found.imag**2) / energy @ filters)
        total += jnp.mean(jnp.abs(mels[0] - mels[1]))
        total += jnp.mean((jnp.log10(mels[0] + 1e-5) - jnp.log10(mels[1] + 1e-5)) ** 2)
    return total / (2 * len(windows))


def dac_mel(
    reference: Audio,
    estimate: Audio,
    rate: int,
    windows: tuple[int, ...] = (32, 64, 128, 256, 512, 1024, 2048),
    bands: tuple[int, ...] = (5, 10, 20, 40, 80, 160, 320),
) -> Array:
    """Computes DAC's distance of mel spectra: L1 of log10 of magnitudes, summed over windows.

    Kumar et al. 2023 (Improved RVQGAN), §3.4.

    Args:
      reference: original audio `[B, S, C]`, each channel on its own.
      estimate: decoded audio `[B, S, C]`.
      rate: samples per second.
      windows: lengths of the windows in samples; the hop is a quarter.
      bands: mel bands of each window.

    Returns:
      The sum over windows, a scalar.
    """
    total = 0.0
    for window, count in zip(windows, bands, strict=True):
        filters = spectral.slaney_filters(rate, window, count)
        pair = (_magnitudes(x, window, window // 4) @ filters for x in (reference, estimate))
        total += _log10_l1(*pair)
    return total


def dac_stft(reference: Audio, estimate: Audio, windows: tuple[int, ...] = (2048, 512)) -> Array:
    """Computes DAC's multi-scale distance of spectra: L1 of magnitudes and of log10 of powers.

    Engel et al. 2020 (DDSP), §4.2.

    Args:
      reference: original audio `[B, S, C]`, each channel on its own.
      estimate: decoded audio `[B, S, C]`.
      windows: lengths of the windows in samples; the hop is a quarter.

    Returns:
      The sum over windows of both terms, a scalar.
    """
    total = 0.0
    for window in windows:
        pair = [_magnitudes(x, window, window // 4) for x in (reference, estimate)]
        total += 2.0 * _log10_l1(*pair) + l1(*pair)
    return total


def multi_resolution_stft(
    reference: Audio,
    estimate: Audio,
    sizes: tuple[int, ...] = (1024, 2048, 512),
    hops: tuple[int, ...] = (120, 240, 50),
    windows: tuple[int, ...] = (600, 1200, 240),
) -> Array:
    """Computes the multi-resolution STFT distance: spectral convergence and L1 of log magnitudes.

    Yamamoto et al. 2020 (Parallel WaveGAN), §2.2, with a weight of a half for each term, as
    audiocraft has them.

    Args:
      reference: original audio `[B, S, C]`, each channel on its own.
      estimate: decoded audio `[B, S, C]`.
      sizes: lengths of the Fourier transforms in samples.
      hops: samples between frames, for each size.
      windows: lengths of the Hann windows in samples, for each size.

    Returns:
      The mean over sizes and terms, a scalar.
    """
    total, tiny = 0.0, jnp.finfo(jnp.float32).eps
    for size, hop, window in zip(sizes, hops, windows, strict=True):
        squares = [
            jnp.maximum(_magnitudes(x, size, hop, window) ** 2, 1e-7) for x in (reference, estimate)
        ]
        original, decoded = map(jnp.sqrt, squares)
        apart = jnp.sum((original - decoded) ** 2)
        # The root's slope is infinite where both agree.
        apart = jnp.where(apart > 0, jnp.sqrt(jnp.where(apart > 0, apart, 1.0)), 0.0)
        total += apart / (jnp.sqrt(jnp.sum(original**2)) + tiny)
        total += l1(jnp.log(original + tiny), jnp.log(decoded + tiny))
    return total / (2 * len(sizes))


def si_sdr_loss(reference: Audio, estimate: Audio) -> Array:
    """Negative scale-invariant signal-to-distortion ratio in dB, the mean over items.

    Means are removed, all channels of an item are one signal. Le Roux et al. 2019.

    Args:
      reference: original audio `[B, S, C]`.
      estimate: decoded audio `[B, S, C]`.

    Returns:
      A scalar up to 80, as for an item that is silence and decoded as something else.
    """
    small = 1e-8
    original, decoded = (x.reshape(len(x), -1) for x in (reference, estimate))
    original, decoded = (x - x.mean(axis=1, keepdims=True) for x in (original, decoded))
    energy_B = jnp.sum(original**2, axis=1) + small
    scale_B = (jnp.sum(original * decoded, axis=1) + small) / energy_B
    target = scale_B[:, None] * original
    signal_B = jnp.sum(target**2, axis=1)
    # The floor keeps the slope finite where there is no noise, and the difference that of 0 / 0.
    noise_B = jnp.maximum(jnp.sum((decoded - target) ** 2, axis=1), 1e-20)
    return 10.0 * jnp.mean(jnp.log10(noise_B) - jnp.log10(signal_B + small * noise_B))


def distillation(projected: Latents, features: Latents, mask: Array) -> Array:
    """Mean over frames of 1 - cosine of what a codec's first level says and given features.

    Défossez et al. 2024 (Moshi), §3.3.2, whose features are of WavLM.

    Args:
      projected: semantic latents `[B, F, D]` after a learned map to the size of the features.
      features: `[B, F, D]`, at the codec's frame rate.
      mask: bool `[B, F]`, which frames count.

    Returns:
      A scalar in 0..2; 0 where no frame counts.
    """
    dot_BF, *squares = (
        jnp.sum(a * b, axis=-1)
        for a, b in ((projected, features), (projected, projected), (features, features))
    )
    lengths = (jnp.sqrt(jnp.maximum(x, 1e-12)) for x in squares)
    cosine_BF = dot_BF / jnp.multiply(*lengths)
    return jnp.sum((1.0 - cosine_BF) * mask) / jnp.maximum(jnp.sum(mask), 1)


def bands_of(window: int) -> int:
    """Mel bands for a window: 64, and fewer below 512 samples, where some would be empty."""
    return max(5, min(64, window // 8))


def _magnitudes(audio: Audio, size: int, hop: int, window: int | None = None) -> Array:
    """`[B, C, frames, size // 2 + 1]` of audio `[B, S, C]`, mirrored at both ends."""
    padded = spectral.reflect(jnp.moveaxis(audio, 1, -1), size // 2)
    frames = spectral.slide(padded, size, hop)
    return spectral.magnitude(spectral.spectrum(frames, window))


def _log10_l1(reference: Array, estimate: Array) -> Array:
    return l1(*(jnp.log10(jnp.maximum(x, 1e-5)) for x in (reference, estimate)))
