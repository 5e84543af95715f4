"""Descript's .dac files: a pickle inside an .npy file, read as data, so that none of it can run."""

import io
import math
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rvq_jax.convert import pickled
from rvq_jax.convert.pickled import Foreign
from rvq_jax.errors import UserError

MAGIC = b"\x93NUMPY"
# Of numpy 1 and of numpy 2.
MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
ARRAYS = {f"{module}._reconstruct" for module in MODULES}
SCALARS = {f"{module}.scalar" for module in MODULES}
DTYPE = "numpy.dtype"


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
    try:
        with warnings.catch_warnings():
            # Where a name is damaged, pickletools may warn of odd escapes in it.
            warnings.simplefilter("ignore")
            return _file(_saved(path.read_bytes()))
    except (*pickled.BROKEN, RecursionError) as error:
        reason = " ".join(f"{error}".split())[:200]
        raise UserError(f"{path} cannot be read as a .dac file ({reason}); get it again") from error


def _saved(data: bytes):
    """What numpy.save was given: it makes an array without dimensions of an object."""
    if data[:6] != MAGIC:
        raise ValueError("it does not begin as one")
    length_bytes = 2 if data[6:7] == b"\1" else 4
    begin = 8 + length_bytes + int.from_bytes(data[8 : 8 + length_bytes], "little")
    outer = pickled.load(io.BytesIO(data[begin:]), _call)
    _, shape, dtype, _, values = _made_by(ARRAYS, outer).state
    if _made_by({DTYPE}, dtype).args[0] != "O8" or shape != () or not isinstance(values, list):
        raise ValueError("it holds no object")
    return values[0]


def _made_by(names: set[str], value) -> Foreign:
    if not (isinstance(value, Foreign) and value.name in names and value.args):
        raise ValueError("a value is of another kind")
    return value


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
    whole = {
        name: said[name] for name in ("original_length", "sample_rate", "channels", "chunk_length")
    }
    for name, value in whole.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is no positive number")
    if codes_CKF.ndim != 3 or codes_CKF.dtype.kind != "u" or codes_CKF.dtype.itemsize > 2:
        raise ValueError("its codes are not numbers of 16 bits [C, K, F]")
    if len(codes_CKF) % whole["channels"]:
        raise ValueError(f"it has codes of {len(codes_CKF)} channels, not {whole['channels']}")
    if type(said["padding"]) is not bool:
        raise ValueError("padding is neither true nor false")
    decibels = np.array(decibels) if type(decibels) in (int, float) else _array(decibels)
    if decibels.dtype.kind not in "fi":
        raise ValueError("input_db is no number")
    return DacFile(
        codes_CKF.astype(np.int32),
        decibels.astype(np.float32).reshape(-1),
        whole["original_length"],
        whole["sample_rate"],
        whole["channels"],
        whole["chunk_length"],
        said["padding"],
        version,
    )


def _array(value) -> np.ndarray:
    """The numbers that stand for an array or a scalar."""
    if _made_by(ARRAYS | SCALARS, value).name in ARRAYS:
        _, shape, dtype, is_fortran, data = value.state
    else:
        (dtype, data), shape, is_fortran = value.args, (), False
    dtype = _dtype(dtype)
    if not isinstance(data, bytes) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("an array is not of plain numbers")
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array {shape} of {len(data)} bytes")
    return np.ndarray(shape, dtype, data, order="F" if is_fortran else "C")


def _dtype(value) -> np.dtype:
    """Of numbers alone: objects, records and dates are refused."""
    kind, order = _made_by({DTYPE}, value).args[0], value.state[1]
    if kind not in ("u1", "u2", "i4", "i8", "f4", "f8") or order not in ("<", ">", "|"):
        raise ValueError("an array of something else than numbers")
    return np.dtype(order + kind)
