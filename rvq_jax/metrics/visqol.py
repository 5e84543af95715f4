"""How near audio sounds to its reference, by ViSQOL, a model of listeners' scores."""

import functools
from typing import Literal

import numpy as np

from rvq_jax.metrics.packages import extra
from rvq_jax.metrics.speech import at_rate, mean_of_pieces, silent
from rvq_jax.typing import Array

Mode = Literal["speech", "audio"]
RATES = {"speech": 16_000, "audio": 48_000}
PIECE = 60  # seconds; listeners heard ten, and memory grows with the length
# A patch of 20 or 30 frames, behind half of one, of windows of 80 ms each 20 ms.
LEAST = {"speech": 0.08 + 28 * 0.02, "audio": 0.08 + 44 * 0.02}  # seconds


def visqol(reference_S: Array, estimate_S: Array, rate: int, mode: Mode) -> float:
    """Estimates the mean opinion score of an estimate beside its reference, 1 to about 4.7.

    Both are resampled to the rate of the mode; delays up to half of the signal, and those of each
    part of it, are taken off by the measure itself, which ignores loudness. More than 60 s are
    scored in equal pieces of at most that, of which the mean counts.

    Args:
      reference_S: `[S]`, mono.
      estimate_S: `[S]`, what became of it.
      rate: of both, in hertz.
      mode: "speech", at 16 kHz with the lattice model; "audio", of music and all else at 48 kHz
        with the support vector model.

    Returns:
      The score; NaN for silence, for signals shorter than one patch (0.64 s of speech, 0.96 s of
      audio), and for an estimate so misaligned that no patch is left to compare. Chinen et al.
      2020, through the package visqol-python.

    Raises:
      UserError: the package is not there.
      ValueError: another mode.
    """
    if mode not in RATES:
        raise ValueError(f"mode must be one of {', '.join(RATES)}, got {mode!r}")
    api = _api(mode)
    if silent(reference_S) or silent(estimate_S):
        return np.nan

    def score(*pair: np.ndarray) -> float:
        if min(map(len, pair)) < round(LEAST[mode] * RATES[mode]):
            return np.nan
        try:
            return float(api.measure_from_arrays(*pair, RATES[mode]).moslqo)
        except ValueError as error:
            # Which it raises for whatever is wrong; this it says of audio it has no score for.
            if "too short, different, or misaligned" not in f"{error}":
                raise
            return np.nan

    pair = (at_rate(x, rate, RATES[mode]).astype(np.float64) for x in (reference_S, estimate_S))
    return mean_of_pieces(score, *pair, PIECE * RATES[mode])


@functools.cache
def _api(mode: Mode):
    """The model of a mode, read once."""
    with extra("ViSQOL"):
        from visqol import VisqolApi

        if mode == "speech":
            # Without it the package takes another model, and only warns.
            import ai_edge_litert.interpreter  # noqa: F401
    api = VisqolApi()
    api.create(mode=mode, **({"use_lattice_model": True} if mode == "speech" else {}))
    return api
