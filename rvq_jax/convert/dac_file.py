"""Descript's .dac files: a pickle inside an .npy file, read as data, so that none of it can run."""

import io
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rvq_jax.convert import pickled
from rvq_jax.convert.pickled import Foreign
from rvq_jax.errors import UserError, reading, shown
from rvq_jax.opening import read_bytes

MAGIC = b"\x93NUMPY"
# Of numpy 1 and of numpy 2.
MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
ARRAYS = {f"{module}._reconstruct" for module in MODULES}
SCALARS = {f"{module}.scalar" for module in MODULES}
DTYPE = "numpy.dtype"
LARGEST = 1 << 40
# Whole numbers that the metadata holds, and the most that each may be.
WHOLE = {
    "original_length": LARGEST,
    "sample_rate": 768_000,
    "channels": 1024,
    "chunk_length": LARGEST,
}
# LUFS; audio within [-1, 1] has 7 at most, and measuring ends at -70.
QUIETEST, LOUDEST = -200.0, 40.0


class DacFile(NamedTuple):
    """What a .dac file holds."""

    codes: np.ndarray  # [C, K, F] int32
    input_db: np.ndarray  # [n] float32, loudness before encoding: decoded audio is set to it
    samples: int  # S, at `rate`
    rate: int  # of the audio before encoding; the codec's may be another
    channels: int
    chunk_frames: int  # frames that are decoded at a time
    padding: bool  # whether the codec's convolutions pad; if not, chunks lose their margins
    version: str


def read(path: str | Path) -> DacFile:
    """The codes that descript-audio-codec's `compress` saved.

    Nothing in the file is imported or called. Raises UserError if it is not there, is no such file,
    asks for anything but numpy's arrays of numbers and plain values, or is damaged or cut short.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not there; check the name")
    with reading(path, "a .dac file"):
        return _file(_saved(read_bytes(path)))


def _saved(data: bytes):
    """What numpy.save was given: it makes an array without dimensions of an object."""
    if data[:6] != MAGIC:
        raise ValueError("it does not begin as one")
    length_bytes = 2 if data[6:7] == b"\1" else 4
    begin = 8 + length_bytes + int.from_bytes(data[8 : 8 + length_bytes], "little")
    outer = pickled.load(io.BytesIO(data[begin:]), _call)
    _, shape, dtype, _, values = _state(_made_by(ARRAYS, outer))
    if _made_by({DTYPE}, dtype).args[0] != "O8" or shape != () or not isinstance(values, list):
        raise ValueError("it holds no object")
    return values[0]


def _made_by(names: set[str], value) -> Foreign:
    if not (isinstance(value, Foreign) and value.name in names and value.args):
        raise ValueError("a value is of another kind")
    return value


def _state(value: Foreign) -> tuple:
    if not isinstance(value.state, tuple):
        raise ValueError("a value without its contents")
    return value.state


def _call(name: str, args: tuple) -> Foreign:
    if name not in ARRAYS | SCALARS | {DTYPE}:
        raise ValueError(f"it asks for {name}")
    return Foreign(name, args)


def _file(saved) -> DacFile:
    said = saved["metadata"]
    version = said["dac_version"]
    if not isinstance(version, str) or not version.startswith("1."):
        raise ValueError("it is not of version 1")
    codes_CKF, decibels = _array(saved["codes"]), said["input_db"]
    for name, most in WHOLE.items():
        if type(said[name]) is not int or not 1 <= said[name] <= most:
            raise ValueError(f"{name} must be a whole number from 1 to {most}")
    if codes_CKF.ndim != 3 or codes_CKF.dtype.kind != "u" or codes_CKF.dtype.itemsize > 2:
        raise ValueError("its codes are not numbers of 16 bits [C, K, F]")
    if 0 in codes_CKF.shape:
        raise ValueError(
            f"codes of no {'channels levels frames'.split()[codes_CKF.shape.index(0)]}"
        )
    if len(codes_CKF) % said["channels"]:
        raise ValueError(f"it has codes of {len(codes_CKF)} channels, not {said['channels']}")
    if type(said["padding"]) is not bool:
        raise ValueError("padding is neither true nor false")
    decibels = np.array(decibels) if type(decibels) in (int, float) else _array(decibels)
    if decibels.dtype.kind not in "fi" or not decibels.size:
        raise ValueError("input_db is no number")
    if not ((QUIETEST <= decibels) & (decibels <= LOUDEST)).all():
        raise ValueError(f"input_db must be from {QUIETEST} to {LOUDEST} LUFS")
    return DacFile(
        codes_CKF.astype(np.int32),
        decibels.astype(np.float32).reshape(-1),
        said["original_length"],
        said["sample_rate"],
        said["channels"],
        said["chunk_length"],
        said["padding"],
        version,
    )


def _array(value) -> np.ndarray:
    """The numbers that stand for an array or a scalar."""
    if _made_by(ARRAYS | SCALARS, value).name in ARRAYS:
        _, shape, dtype, is_fortran, data = _state(value)
    else:
        (dtype, data), shape, is_fortran = value.args, (), False
    dtype = _dtype(dtype)
    if not isinstance(data, bytes) or not isinstance(shape, tuple) or len(shape) > 3:
        raise ValueError("an array is not of plain numbers")
    if not all(type(n) is int and 0 <= n < LARGEST for n in shape):
        raise ValueError(f"an array {shown(shape)}")
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array {shape} of {len(data)} bytes")
    return np.ndarray(shape, dtype, data, order="F" if is_fortran else "C")


def _dtype(value) -> np.dtype:
    """Of numbers alone: objects, records and dates are refused."""
    kind, order = _made_by({DTYPE}, value).args[0], _state(value)[1]
    if kind not in ("u1", "u2", "i4", "i8", "f4", "f8") or order not in ("<", ">", "|"):
        raise ValueError("an array of something else than numbers")
    return np.dtype(order + kind)
