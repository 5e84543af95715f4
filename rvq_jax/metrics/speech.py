"""How speech sounds to people, as published models estimate it: PESQ, STOI, DNSMOS.

Signals are mono, `[S]`, of any loudness. NaN is what a measure's definition says nothing of:
silence, and signals that are too short. The packages are those of the extra `metrics`.
"""

import warnings
from collections.abc import Callable

import numpy as np

from rvq_jax.audio import resample
from rvq_jax.metrics.audio import SILENCE
from rvq_jax.metrics.packages import extra
from rvq_jax.typing import Array

WIDE = 16_000  # hertz, of wide-band speech
PIECE = 20  # seconds; see pesq
STOI_LEAST = 30 * 128 / 10_000  # seconds: thirty frames, of which one value is made


def pesq(reference_S: Array, estimate_S: Array, rate: int) -> float:
    """Estimates the mean opinion score of speech quality, 1.0 to 4.64, by wide-band PESQ.

    Both are resampled to 16 kHz. More than 20 s are scored in equal pieces of at most that, and the
    mean of those that have a score counts: PESQ is made for 8 to 30 s, and the package has room for
    fifty utterances, of at least 0.2 s and as long apart, behind which it writes where it must not.

    Args:
      reference_S: `[S]`, the speech.
      estimate_S: `[S]`, what became of it.
      rate: of both, in hertz.

    Returns:
      The score; NaN below 16 kHz, for silence, under a quarter of a second, and where no utterance
      is found. ITU-T P.862.2, through the package pesq.

    Raises:
      UserError: the package is not there.
    """
    with extra("PESQ"):
        from pesq import BufferTooShortError, NoUtterancesError
        from pesq import pesq as measure
    if rate < WIDE or silent(reference_S) or silent(estimate_S):
        return np.nan
    reference_S, estimate_S = (at_rate(x, rate, WIDE) for x in (reference_S, estimate_S))

    def score(*pair: np.ndarray) -> float:
        try:
            return measure(WIDE, *pair, "wb")
        except (BufferTooShortError, NoUtterancesError):
            return np.nan

    return mean_of_pieces(score, reference_S, estimate_S, PIECE * WIDE)


def stoi(reference_S: Array, estimate_S: Array, rate: int) -> float:
    """Estimates the intelligibility of speech, about 0 to 1, by the short-time objective measure.

    Args:
      reference_S: `[S]`, the speech.
      estimate_S: `[S]`, what became of it.
      rate: of both, in hertz; the measure itself hears up to 4.3 kHz.

    Returns:
      The score; NaN where the reference is silent or fewer than thirty of its frames of 12.8 ms are
      within 40 dB of the loudest. Taal et al. 2011, through the package pystoi.

    Raises:
      UserError: the package is not there.
    """
    with extra("STOI"):
        from pystoi import stoi as measure
    if silent(reference_S) or len(reference_S) < STOI_LEAST * rate:
        return np.nan
    pair = (np.asarray(x, np.float64) for x in (reference_S, estimate_S))
    with warnings.catch_warnings():
        # The package gives 1e-5 then, which is no measurement.
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            return float(measure(*pair, rate))
        except RuntimeWarning:
            return np.nan


def dnsmos(estimate_S: Array, rate: int) -> float:
    """Estimates the mean opinion score of a signal without a reference: DNSMOS P.835, overall.

    The mean over windows of 9.01 s, one each second, at 16 kHz; what is shorter is repeated until
    it fills one. Samples outside of [-1, 1], which the model does not take, are clipped.

    Args:
      estimate_S: `[S]`, as loud as it is: the model hears the level.
      rate: in hertz.

    Returns:
      The score, about 1 to 5; NaN for silence. Reddy et al. 2022, through the package speechmos.

    Raises:
      UserError: the package, or one that it needs and does not declare, is not there.
    """
    with extra("DNSMOS"):
        from speechmos import dnsmos as package
    if silent(estimate_S):
        return np.nan
    heard_S = np.clip(at_rate(estimate_S, rate, WIDE), -1.0, 1.0)
    if len(heard_S) == 0:
        return np.nan
    return float(package.run(heard_S, WIDE)["ovrl_mos"])


def mean_of_pieces(
    score: Callable[[np.ndarray, np.ndarray], float],
    reference_S: Array,
    estimate_S: Array,
    most: int,
) -> float:
    """The mean of what equal pieces of two signals score, of those that have a score.

    Args:
      score: of a piece of each; NaN where it has none. Not asked where either is silent.
      reference_S: `[S]`.
      estimate_S: `[S]`.
      most: samples of a piece.

    Returns:
      The mean; NaN where no piece has a score.
    """
    count = max(1, -(-len(reference_S) // most))
    pairs = zip(*(np.array_split(x, count) for x in (reference_S, estimate_S)), strict=True)
    scores = [score(*pair) for pair in pairs if not (silent(pair[0]) or silent(pair[1]))]
    defined = [x for x in scores if not np.isnan(x)]
    return float(np.mean(defined)) if defined else np.nan


def silent(signal_S: Array) -> bool:
    """Whether a signal has nothing to hear: no samples, a constant, or less than -140 dB."""
    signal_S = np.asarray(signal_S, np.float64)
    return len(signal_S) == 0 or float(signal_S.var()) < SILENCE


def at_rate(signal_S: Array, rate: int, new_rate: int) -> np.ndarray:
    """`[S]` at another rate."""
    return resample.to_rate(np.asarray(signal_S)[:, None], rate, new_rate)[:, 0]
