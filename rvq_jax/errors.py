"""Errors meant for people: one line, what was wrong, where, and what to do."""

import contextlib
import reprlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

LINE = 290  # characters of a message, whatever a file put into it
# All that reading a file of any kind, whole or damaged, can raise: each reader turns them into one
# line through `reading`. RuntimeError has RecursionError and what C++ libraries throw.
READING = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(RuntimeError, MemoryError, SyntaxError, AssertionError),
    *(struct.error, zlib.error, zipfile.BadZipFile),
)


class UserError(Exception):
    """A mistake in what the user gave (a file, a field, a folder), said in one line.

    The command line prints it without a traceback and exits with code 2. What a file put into the
    message cannot break the line, reach the terminal as a control code or make it long.
    """

    def __init__(self, message: str):
        super().__init__(clipped(printable(message), LINE))


class LeftOut(UserError):
    """Of many files some could not be used, and the others are done: exit code 2, after the work.

    The line has as many as fit; `lines` has all, each with its reason.
    """

    def __init__(self, left: list[tuple[str, str]], total: int, outcome: str):
        """left: names and reasons; outcome: what became of the other files of this total."""
        self.lines = [f"left out: {printable(name)} ({printable(why)})" for name, why in left]
        head = f"{len(left)} of {total} files are left out, {outcome}: "
        room = (LINE - len(head)) // min(len(left), 3) - 2
        parts = [clipped(line.removeprefix("left out: "), room) for line in self.lines[:3]]
        super().__init__(head + "; ".join(parts) + "; …" * (len(left) > 3))


def reason_of(error: UserError, path: str | Path) -> str:
    """What an error says of a file, without its path: that is named beside."""
    return f"{error}".replace(printable(f"{path}"), "", 1).strip(" :")


def printable(text: str) -> str:
    """Text as one line in which every character can be seen: others become escapes, as in repr."""
    text = " ".join(f"{text}".splitlines())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def clipped(text: str, limit: int) -> str:
    """Text of at most so many characters: the middle goes, as both ends say what to do."""
    if len(text) <= limit:
        return text
    first = 2 * limit // 3
    return f"{text[:first]} … {text[first - limit + 3 :]}"


def shown(value, limit: int = 60) -> str:
    """A value out of a file as words for a message, in bounded time however it is nested."""
    short = reprlib.Repr(maxlevel=2, maxtuple=3, maxlist=3, maxdict=3, maxset=3, maxstring=limit)
    if type(value) not in (str, bytes, int, float, bool, list, tuple, dict, type(None)):
        # Whose repr could walk all that it holds.
        return f"a {type(value).__name__}"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, str | bytes):
        value = value[: limit + 1]
    return clipped(printable(short.repr(value)), limit)


@contextlib.contextmanager
def reading(path: str | Path, what: str, remedy: str = "get it again") -> Iterator[None]:
    """Turns whatever reading a file raises into a UserError that names it.

    Args:
      path: the file.
      what: what it should be, 'a file of torch.save'.
      remedy: what a person can do about it.
    """
    try:
        yield
    except READING as error:
        # Without its traceback: that holds all that was read, and a chain of a thousand frames.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else f"{error}"
        reason = clipped(printable(reason) or type(error).__name__, 120)
        raise UserError(f"{path} cannot be read as {what} ({reason}); {remedy}") from None
