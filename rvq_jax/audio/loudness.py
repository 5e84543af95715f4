"""Loudness as people hear it: ITU-R BS.1770, weighted by frequency and gated."""

import numpy as np
from scipy import signal

from rvq_jax.typing import Array

BLOCK, STEP = 0.4, 0.1  # seconds
SHORTEST = 0.5  # seconds; shorter audio is taken with silence after it
SILENCE = -70.0  # LUFS: blocks below it do not count, and no result is lower
SURROUND = 1.41  # weight of the fourth and fifth channel


def integrated(audio_SC: Array, rate: int) -> float:
    """Loudness in LUFS of `[S, C]`: -70 at least.

    A block counts if it is above -70 LUFS and at most 10 below the mean of those. ITU-R BS.1770-4.
    """
    audio_SC = np.asarray(audio_SC, np.float64)
    missing = round(SHORTEST * rate) - len(audio_SC)
    audio_SC = np.pad(audio_SC, ((0, max(0, missing)), (0, 0)))
    for coefficients in (_shelf(rate, 1500.0, 0.5**0.5, 4.0), _high_pass(rate, 38.0, 0.5)):
        audio_SC = signal.lfilter(*coefficients, audio_SC, axis=0)
    block = round(BLOCK * rate)
    starts = np.round(np.arange(0, (len(audio_SC) - block) / rate + 1e-9, STEP) * rate).astype(int)
    sums_SC = np.cumsum(np.pad(audio_SC**2, ((1, 0), (0, 0))), axis=0)
    power_BC = (sums_SC[starts + block] - sums_SC[starts]) / block
    weight_C = np.where(np.isin(np.arange(audio_SC.shape[1]), (3, 4)), SURROUND, 1.0)
    power_B = power_BC @ weight_C
    loud_B = power_B > _power(SILENCE)
    if not loud_B.any():
        return SILENCE
    loud_B &= power_B > power_B[loud_B].mean() * 0.1
    return max(SILENCE, float(10 * np.log10(power_B[loud_B].mean()) - 0.691))


def _power(loudness: float) -> float:
    return 10 ** ((loudness + 0.691) / 10)


def _shelf(rate: int, corner: float, q: float, gain: float) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator of a filter that raises what is above `corner` by `gain` dB."""
    a, cos, alpha = 10 ** (gain / 40), *_angle(rate, corner, q)
    root = 2 * np.sqrt(a) * alpha
    b = [a * (a + 1 + (a - 1) * cos + root), -2 * a * (a - 1 + (a + 1) * cos)]
    b.append(a * (a + 1 + (a - 1) * cos - root))
    return np.array(b), np.array(
        [a + 1 - (a - 1) * cos + root, 2 * (a - 1 - (a + 1) * cos), a + 1 - (a - 1) * cos - root]
    )


def _high_pass(rate: int, corner: float, q: float) -> tuple[np.ndarray, np.ndarray]:
    cos, alpha = _angle(rate, corner, q)
    return np.array([1 + cos, -2 * (1 + cos), 1 + cos]) / 2, np.array(
        [1 + alpha, -2 * cos, 1 - alpha]
    )


def _angle(rate: int, corner: float, q: float) -> tuple[float, float]:
    angle = 2 * np.pi * corner / rate
    return np.cos(angle), np.sin(angle) / (2 * q)
