"""What both sides of `train_codec.py` share, without JAX and torch: cases, audio, memory."""

import ctypes
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    """A codec and the batch of a step."""

    name: str
    samples: int  # of a crop: whole frames
    batch: int = 2


# 0.38 s at 44.1 kHz end inside a frame, which DAC fills before it encodes.
CASES = {c.name: c for c in (Case("encodec_24khz", 24_000), Case("dac_44khz", 33 * 512))}


def audio_of(case: Case) -> np.ndarray:
    """Noise `[B, S, 1]`."""
    shape = case.batch, case.samples, 1
    return (0.1 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


class Memory:
    """Resident memory of this process on Linux, in MB: before a model, and at most in its steps."""

    def __init__(self):
        self.before = _status("VmRSS")

    def begin(self) -> None:
        """What was freed goes back first: a compiler's memory is none of a step's."""
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> dict:
        peak = _status("VmHWM")
        return {"peak_mb": peak, "model_mb": peak - self.before}


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / 1e6
