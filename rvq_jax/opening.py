"""Files opened for reading: only what is a file, and not without end."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

MOST = 256 << 20  # bytes of a text file


def opened(path: str | Path) -> BinaryIO:
    """A file open for reading; raises OSError for what is none: a pipe would be waited for, a
    device read without end."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("it is no file")
    return file


def read_bytes(path: str | Path, most: int = MOST) -> bytes:
    """A whole file; raises OSError as `opened`, and for a longer one."""
    with opened(path) as file:
        # What is asked for takes memory at once, whether it is there or not.
        data = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)
    if len(data) > most:
        raise OSError(f"it is longer than {most} bytes")
    return data
