"""What is typed and what is said: flags to dataclasses, mistakes to one line."""

import contextlib
import dataclasses
import difflib
import io
import os
import re
import shlex
import shutil
import sys
import typing

from rvq_jax import limits
from rvq_jax.config import parts
from rvq_jax.errors import READING, UserError, printable

NARROW = 40  # letters of a line, below which help is not laid out


def parse(cls, arguments: list[str], name: str, default=None):
    """A command's dataclass from its arguments; `overrides`, if it has them, take what is left.

    Args:
      cls: the dataclass.
      arguments: words.
      name: of the command.
      default: one of the class that has what is not said; None for the class's own.
    """
    import tyro

    box = io.StringIO()
    passes_on = any(item.name == "overrides" for item in dataclasses.fields(cls))
    try:
        with contextlib.redirect_stderr(box):
            parsed, unknown = tyro.cli(
                cls,
                args=arguments,
                default=tyro.MISSING_NONPROP if default is None else default,
                prog=f"rvq-jax {name}",
                return_unknown_args=True,
                # Of a part that may be absent the flags are those of the config at hand.
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        # A flag mistyped can leave its value where a folder should be: tell of the flag first.
        words = [word.split("=")[0] for word in arguments if word.startswith("--")]
        known = {flag.replace("_", "-") for flag in flags(cls)}
        known |= {flag.replace("--", "--no-", 1) for flag in known}
        strange = [word for word in words if word.replace("_", "-") not in known]
        if strange and not passes_on:
            raise _unknown(strange[0], cls) from None
        raise UserError(f"{name}: {_unboxed(box.getvalue())}") from None
    except READING as error:  # of a dataclass, for values that do not go together
        raise UserError(f"{name}: {error}") from None
    limits.check(parsed, name, lambda path: _flag(cls, path))
    if passes_on:
        return dataclasses.replace(parsed, overrides=tuple(unknown))
    for word in unknown:
        raise _unknown(word.split("=")[0], cls)
    return parsed


def _unknown(flag: str, cls) -> UserError:
    return UserError(f"unknown field {flag!r}; {nearest(flag, flags(cls))}")


def _unboxed(box: str) -> str:
    """What tyro says in a box of many lines, as one: the part above its help."""
    lines = [line.strip("│╭╮╰╯─ ") for line in box.splitlines()]
    text = " ".join(line for line in lines if line.strip("- "))
    return re.split(r" (?:Argument helptext|For full helptext|Unrecognized options)", text)[0]


def flags(cls, prefix: str = "--") -> list[str]:
    """Every flag of a dataclass, nested fields joined by dots, as tyro spells them."""
    found = []
    for name, (inner, spelled) in _spelled(cls).items():
        if dataclasses.is_dataclass(inner):
            # A name of "" stands for no prefix.
            found += flags(inner, prefix + (f"{spelled}." if spelled else ""))
        else:
            # A word that Python keeps to itself has an underscore behind it: `continue_`.
            found.append(prefix + name.rstrip("_").replace("_", "-"))
    return found


def _flag(cls, path: tuple[str, ...]) -> str:
    """The flag of a field, from the names that lead to it."""
    words = []
    for name in path[:-1]:
        cls, spelled = _spelled(cls)[name]
        words += [spelled] if spelled else []
    return "--" + ".".join([*words, path[-1].rstrip("_").replace("_", "-")])


def _spelled(cls) -> dict:
    """The type of each field of a dataclass, and its name on the command line."""
    found = {}
    types = typing.get_type_hints(cls, include_extras=True)
    for item in dataclasses.fields(cls):
        inner, named = types[item.name], item.name
        if typing.get_origin(inner) is typing.Annotated:
            inner, *marks = typing.get_args(inner)
            names = [mark.name for mark in marks if getattr(mark, "name", None) is not None]
            named = names[0] if names else named
        # Of a part that may be absent, the part.
        part = next((kind for kind in parts(inner) if dataclasses.is_dataclass(kind)), inner)
        found[item.name] = part, named.replace("_", "-")
    return found


def nearest(word: str, known) -> str:
    """A known word to suggest in place of an unknown one, or all of them."""
    near = difflib.get_close_matches(word.replace("_", "-"), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def say(quiet: bool, line: str, file=None) -> None:
    """Prints a line, or lines, to standard output unless that is taken.

    What files and folders put into it cannot reach the terminal as a control code.
    """
    if not quiet:
        show("\n".join(map(printable, line.split("\n"))), file)


def show(text: str, file=None) -> None:
    """Prints text; raises UserError if standard output takes none, BrokenPipeError if nobody reads
    on."""
    try:
        print(text, file=file, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"cannot write standard output: {error.strerror or error}") from error


def command_line() -> str:
    """What was typed, to be run again."""
    return shlex.join(["rvq-jax", *sys.argv[1:]])


def hold_streams() -> None:
    """Makes standard streams safe to use: all are open, letters that they lack become escapes, and
    none is so narrow that no word fits."""
    if shutil.get_terminal_size().columns < NARROW:
        os.environ["COLUMNS"] = str(NARROW)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Else the next file that is opened would get what libraries write to this number.
            os.open(os.devnull, os.O_RDWR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def flush() -> OSError | None:
    """Writes what standard output still holds; returns why it could not be written."""
    try:
        if hasattr(sys.stdout, "flush"):  # it is None where the shell closed it
            sys.stdout.flush()
    except OSError as error:
        # The interpreter would try again at its end, and complain.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None
