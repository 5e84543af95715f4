"""Standard error, where progress and warnings go: whatever became of it, the work goes on."""

import sys
from collections.abc import Callable
from typing import TextIO

# A full disk, a pipe that nobody reads, a file that is closed, letters that it has not; None.
LOST = (OSError, ValueError, AttributeError)


class Screen:
    """A stream, as a function gives it at each call, that loses what it cannot write."""

    def __init__(self, stream: Callable[[], TextIO | None]):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes what can be written."""
        try:
            return self._stream().write(text)
        except LOST:
            return 0

    def flush(self) -> None:
        """Flushes what can be flushed."""
        try:
            self._stream().flush()
        except LOST:
            pass

    def __getattr__(self, name: str):
        return getattr(self._stream(), name)


STDERR = Screen(lambda: sys.stderr)
