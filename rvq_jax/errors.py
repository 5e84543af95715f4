"""Errors meant for people: one line, what was wrong, where, and what to do."""

import contextlib
import itertools
import lzma
import reprlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

LINE = 290  # characters of a message, whatever a file put into it
# All that reading a file of any kind, whole or damaged, can raise: each reader turns them into one
# line through `reading`. RuntimeError has RecursionError and what C++ libraries throw.
READING = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(RuntimeError, MemoryError, SyntaxError, AssertionError, SystemError),
    *(struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tokenize.TokenError),
    BufferError,
)


class UserError(Exception):
    """A mistake in what the user gave (a file, a field, a folder), said in one line.

    The command line prints it without a traceback and exits with code 2. What a file put into the
    message cannot break the line, reach the terminal as a control code or make it long.
    """

    def __init__(self, message: str):
        super().__init__(clipped(printable(clipped(f"{message}", 10 * LINE)), LINE))


class Preempted(Exception):
    """The machine was asked for (SIGTERM): the run is saved, and goes on when started again."""


class Interrupted(Preempted):
    """Someone pressed Ctrl-C: the run is saved, and goes on when started again."""


class LeftOut(UserError):
    """Of many things some could not be used, and the others are done: exit code 2, after the work.

    The line has as many as fit; `lines` has all, each with its reason.
    """

    def __init__(self, left: list[tuple[str, str]], total: int, outcome: str, what: str = "files"):
        """left: names and reasons; outcome: what became of the others of this total; what: all are
        called."""
        self.lines = [f"left out: {printable(name)} ({printable(why)})" for name, why in left]
        head = f"{len(left)} of {total} {what} are left out, {outcome}: "
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


class _Short(reprlib.Repr):
    """As reprlib, but nothing is asked for its own repr, which may take for ever."""

    def __init__(self, limit: int):
        super().__init__()  # Which takes no sizes before Python 3.12.
        self.maxlevel, self.maxstring = 2, limit
        self.maxtuple = self.maxlist = 3

    def repr_int(self, value, level):
        if value.bit_length() > 256:
            return f"a whole number of {value.bit_length()} bits"
        return repr(value)

    def repr_set(self, value, level):
        # reprlib's own sorts all of it.
        inner = [self.repr1(x, level - 1) for x in itertools.islice(value, self.maxlist)]
        return "{" + ", ".join(inner + ["…"] * (len(value) > self.maxlist)) + "}"

    repr_frozenset = repr_set

    def repr_dict(self, value, level):
        if level <= 0:
            return "{…}"
        inner = [
            f"{self.repr1(key, level - 1)}: {self.repr1(item, level - 1)}"
            for key, item in itertools.islice(value.items(), self.maxlist)
        ]
        return "{" + ", ".join(inner + ["…"] * (len(value) > self.maxlist)) + "}"

    def repr_instance(self, value, level):
        if isinstance(value, float | complex | bool | None):
            return repr(value)
        if isinstance(value, bytes | bytearray):
            return repr(bytes(value[: self.maxstring]))
        return f"<{type(value).__name__}>"


def shown(value, limit: int = 60) -> str:
    """A value out of a file as words for a message, in bounded time however it is nested."""
    short = _Short(limit)
    if isinstance(value, str):
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
        reason = clipped(printable(reason[: 10 * LINE]) or type(error).__name__, 120)
        raise UserError(f"{path} cannot be read as {what} ({reason}); {remedy}") from None
