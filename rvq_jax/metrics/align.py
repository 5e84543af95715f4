"""How late a signal is, and the signal without it."""

import numpy as np

from rvq_jax.typing import Array


def delay(reference_S: Array, estimate_S: Array, most: int) -> int:
    """How many samples an estimate comes after its reference, where their correlation is greatest.

    Args:
      reference_S: `[S]`.
      estimate_S: `[S]`, of any other length too.
      most: the greatest delay looked for, in samples, either way.

    Returns:
      Whole samples in [-most, most], negative for an estimate that is early; 0 if either is silent.
      Of equal correlations the least delay counts. Knapp & Carter 1976, without a weighting.

    Raises:
      ValueError: `most` is negative.
    """
    if most < 0:
        raise ValueError(f"the greatest delay must be at least 0, got {most}")
    reference_S, estimate_S = (np.asarray(x, np.float64) for x in (reference_S, estimate_S))
    if len(reference_S) == 0 or len(estimate_S) == 0:
        return 0
    most = min(most, max(len(reference_S), len(estimate_S)) - 1)
    # Beyond both lengths nothing wraps around.
    size = 1 << (len(reference_S) + len(estimate_S) + most).bit_length()
    spectra = [np.fft.rfft(x - x.mean(), size) for x in (reference_S, estimate_S)]
    correlation = np.fft.irfft(spectra[0].conj() * spectra[1], size)
    lags = np.arange(-most, most + 1)
    lags = lags[np.argsort(np.abs(lags), kind="stable")]
    # Equal but for rounding: of silence all of them are.
    floor = 1e-9 * np.sqrt((reference_S**2).sum() * (estimate_S**2).sum())
    found = correlation[lags]
    return int(lags[np.argmax(found >= found.max() - floor)])


def aligned(reference_SC: Array, estimate_SC: Array, delay: int) -> np.ndarray:
    """The estimate `[S, C]` that many samples earlier, of exactly the reference's length: cut or
    filled with zeros."""
    estimate_SC = np.asarray(estimate_SC)
    result_SC = np.zeros((len(reference_SC), *estimate_SC.shape[1:]), estimate_SC.dtype)
    part_SC = estimate_SC[max(0, delay) :][: max(0, len(result_SC) + min(0, delay))]
    first = max(0, -delay)
    result_SC[first : first + len(part_SC)] = part_SC
    return result_SC
