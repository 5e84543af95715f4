"""Reading .npz files: what a header says is held against the bytes that are there first.

numpy makes an array as its header says, and unpacks whatever a few bytes unpack to.
"""

import contextlib
import math
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from rvq_jax import errors, opening

# Arrays may be so many times as large as the file, or have so many bytes in all: codes of silence
# are packed a thousandfold, and small.
TIMES, SMALL = 100, 16 << 20
KINDS = "biufU"  # of numpy's types: whole numbers and others, and text
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
SUFFIX = ".npy"
DIRECTORY = 16 << 20  # bytes of a zip's list of its records, which takes thirty times that to hold


class Header(NamedTuple):
    """What the file says of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Arrays(Mapping):
    """Arrays by name, each read when it is asked for; `headers` without reading them."""

    def __init__(self, file: BinaryIO):
        size = file.seek(0, 2)
        self._zip = open_zip(file)
        entries = self._zip.infolist()
        if any(entry.compress_type not in PACKED for entry in entries):
            raise ValueError("it is packed as numpy never does")
        if sum(entry.file_size for entry in entries) > max(SMALL, TIMES * size):
            raise ValueError(f"it unpacks to more than {TIMES} times its size")
        self._entries = {entry.filename.removesuffix(SUFFIX): entry for entry in entries}
        self.headers = {name: self._header(entry) for name, entry in self._entries.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        with self._zip.open(self._entries[name]) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def _header(self, entry: zipfile.ZipInfo) -> Header:
        # The file cannot be asked for its size, as it is inside another.
        with self._zip.open(entry) as stream:
            return read_header(stream, entry.file_size)


def read_header(stream: BinaryIO, size: int) -> Header:
    """What an .npy says of its array; ValueError unless it is what fills so many bytes."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of version {version}")
    read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
    shape, _, dtype = read(stream)
    if dtype.kind not in KINDS or dtype.subdtype is not None or not dtype.itemsize:
        raise ValueError(f"an array of {errors.shown(f'{dtype}')}")
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"an array {errors.shown(shape)}")
    if size != stream.tell() + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array {errors.shown(shape)} of {size} bytes")
    return Header(shape, dtype)


def read_array(path: str | Path) -> np.ndarray:
    """The array of an .npy; raises ValueError for one that lies, OSError for one not there."""
    with opening.opened(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        read_header(file, size)
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


class _Listing:
    """A file of which no more is read at once than a directory has; then of any size."""

    def __init__(self, file: BinaryIO):
        self._file, self.limit = file, DIRECTORY
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if self.limit is not None and size > self.limit:
            raise ValueError(f"a directory of {size} bytes")
        return self._file.read(size)


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """A zip in an open file, ValueError for one that lists more records than any model has."""
    listing = _Listing(file)
    opened = zipfile.ZipFile(listing)
    listing.limit = None
    return opened


@contextlib.contextmanager
def reading(path: str | Path, what: str, remedy: str) -> Iterator[Arrays]:
    """The arrays of a file, while it is open.

    Args:
      path: the file.
      what: what it should be, 'a code cache'.
      remedy: what a person can do about it.

    Raises:
      UserError: no such file, a damaged one, one whose headers do not fit its bytes, or whatever
        else (`errors.READING`) the block raises that uses the arrays.
    """
    # Opened here: numpy leaves a damaged file open.
    with errors.reading(path, what, remedy), opening.opened(path) as file:
        with warnings.catch_warnings():
            # Of odd escapes in a damaged header.
            warnings.simplefilter("ignore")
            yield Arrays(file)
