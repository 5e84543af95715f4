"""What an evaluation reports of audio beside its reference: one table of measures.

Each takes `[S, C]` of both, equally long, and gives one number: the mean over channels of what is
computed for each, or one of their mean. What a measure's definition says nothing of is NaN.
"""

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rvq_jax import metrics
from rvq_jax.errors import UserError
from rvq_jax.metrics.packages import REMEDY
from rvq_jax.metrics.speech import silent
from rvq_jax.typing import Array

LEAST = 4096  # samples for which a program is compiled
PIECE = 30  # seconds


@dataclass(frozen=True)
class Measure:
    """One column: what it is called, how to read it, and how to compute it."""

    name: str
    label: str
    unit: str
    better: Literal["more", "less"]
    signal: Literal["speech", "music"] | None  # what it is made for; None for any
    function: Callable[[Array, Array, int], float]  # of reference_SC, estimate_SC, rate
    packages: tuple[str, ...] = ()  # modules that it imports
    worst: float | None = None  # of its scale, for an estimate without sound; None if it says that

    def score(self, reference_SC: Array, estimate_SC: Array, rate: int) -> float:
        """Measures an estimate `[S, C]` beside its reference.

        NaN where the reference says nothing: where it is silent for all but distances, which hear
        what is there instead. What a codec failed at counts: silence in place of sound is the worst
        of the scale, and an estimate that is not finite is silence.

        Raises:
          UserError: the measure's package is not there, or fails at this audio.
          ValueError: the two differ in shape.
        """
        if np.shape(reference_SC) != np.shape(estimate_SC):
            shapes = f"{np.shape(reference_SC)} and {np.shape(estimate_SC)}"
            raise ValueError(f"reference and estimate must have one shape, got {shapes}")
        if not np.isfinite(estimate_SC).all():
            estimate_SC = np.zeros_like(estimate_SC)
        lost = self.worst is not None and silent(np.mean(estimate_SC, axis=1))
        try:
            # A reference that has no score itself has none to lose.
            other_SC = reference_SC if lost else estimate_SC
            found = float(self.function(reference_SC, other_SC, rate))
            return self.worst if lost and np.isfinite(found) else found
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{self.label} fails at this audio ({type(error).__name__}: {error}); leave it out"
            ) from error


def missing(measure: Measure) -> str | None:
    """What stands in a measure's place when a package is not there; None when all are."""
    lacking = [name for name in measure.packages if importlib.util.find_spec(name) is None]
    return f"needs {' and '.join(lacking)}: {REMEDY}" if lacking else None


def _by_channel(program: Callable, is_ratio: bool = False) -> Callable:
    """Makes the mean over channels of what a program of `[S]`, rate and mask gives for each.

    program: compiled. is_ratio: of a channel that is silent in the reference it says nothing; else
    it is a mean over time, and what is longer than `PIECE` is measured in equal pieces, so that
    memory does not grow.
    """

    def measured(reference_SC: Array, estimate_SC: Array, rate: int) -> float:
        pair = [np.asarray(x, np.float32).T for x in (reference_SC, estimate_SC)]
        count = 1 if is_ratio else -(-len(reference_SC) // (PIECE * rate))
        scores = []
        for channel in zip(*pair, strict=True):
            if is_ratio and silent(channel[0]):
                continue
            pieces = zip(*(np.array_split(x_S, max(1, count)) for x_S in channel), strict=True)
            scores += [_padded(program, *piece, rate) for piece in pieces if len(piece[0])]
        return float(np.mean(scores)) if scores else np.nan

    return measured


def _padded(program: Callable, reference_S: Array, estimate_S: Array, rate: int) -> float:
    """What a program gives, as `program` of `_by_channel`, of lengths that files share."""
    samples = len(reference_S)
    length = _length(samples)
    padded = (np.pad(x_S, (0, length - samples)) for x_S in (reference_S, estimate_S))
    return float(program(*padded, rate, np.arange(length) < samples))


def _length(samples: int) -> int:
    """The next of four lengths an octave: files share programs."""
    octave = 2 ** int(np.log2(max(LEAST, samples)))
    return next(n for i in range(4, 9) if (n := i * octave // 4) >= samples)


def _of_mono(function: Callable[[np.ndarray, np.ndarray, int], float]) -> Callable:
    """Makes a function of `[S, C]` of one of `[S]`: of the mean over channels."""

    def measured(reference_SC: Array, estimate_SC: Array, rate: int) -> float:
        pair = (np.asarray(x, np.float32).mean(1) for x in (reference_SC, estimate_SC))
        return function(*pair, rate)

    return measured


def _si_sdr(reference: Array, estimate: Array, rate: int, mask: Array) -> Array:
    return metrics.si_sdr(reference, estimate, mask)


def _dnsmos(reference_S: np.ndarray, estimate_S: np.ndarray, rate: int) -> float:
    """Where there was something to hear."""
    return np.nan if silent(reference_S) else metrics.dnsmos(estimate_S, rate)


_visqol_speech = functools.partial(metrics.visqol, mode="speech")
_visqol_audio = functools.partial(metrics.visqol, mode="audio")
LATTICE = ("visqol", "ai_edge_litert")
UNDECLARED = ("speechmos", "onnxruntime", "librosa", "requests")

DNSMOS = Measure("dnsmos", "DNSMOS", "", "more", "speech", _of_mono(_dnsmos), UNDECLARED, 1.0)
MEASURES = (
    Measure("si_sdr", "SI-SDR", "dB", "more", None, _by_channel(_si_sdr, is_ratio=True)),
    Measure("mel", "Mel distance", "", "less", None, _by_channel(metrics.mel_distance)),
    Measure("stft", "STFT distance", "", "less", None, _by_channel(metrics.stft_distance)),
    Measure("pesq", "PESQ", "", "more", "speech", _of_mono(metrics.pesq), ("pesq",), 1.0),
    Measure("stoi", "STOI", "", "more", "speech", _of_mono(metrics.stoi), ("pystoi",)),
    Measure(
        *("visqol_speech", "ViSQOL, speech", "", "more", "speech"),
        *(_of_mono(_visqol_speech), LATTICE, 1.0),
    ),
    Measure(
        *("visqol_audio", "ViSQOL, audio", "", "more", "music"),
        *(_of_mono(_visqol_audio), LATTICE[:1], 1.0),
    ),
    DNSMOS,
)
