"""`rvq-jax …`: one dataclass per command; tyro turns its fields into help and flags."""

import contextlib
import json
import signal
import sys
import threading
from importlib import metadata

from rvq_jax import cache
from rvq_jax.cli import terminal
from rvq_jax.cli.commands import COMMANDS, load
from rvq_jax.cli.terminal import nearest, parse
from rvq_jax.errors import LINE, Interrupted, LeftOut, Preempted, UserError, clipped, printable
from rvq_jax.screen import Screen

NO_CACHE = "--no-cache"
RETRY = 75  # EX_TEMPFAIL of sysexits.h: not done, and worth trying again
INTERRUPTED = 128 + signal.SIGINT
__all__ = ["COMMANDS", "load", "main"]


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns 0 if it did what was asked, 2 for a mistake, said in one line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    terminal.hold_streams()
    stderr = sys.stderr
    with contextlib.redirect_stderr(Screen(lambda: stderr)):
        code = _run(arguments)
        # Now, as at the end of the process nobody would be told.
        problem = terminal.flush()
        if problem and not code:
            code = 2
            if not isinstance(problem, BrokenPipeError):
                _say(f"cannot write standard output: {problem.strerror or problem}")
        if code == 2:
            _leave()
    return code


def _run(arguments: list[str]) -> int:
    try:
        _command(arguments)
        return 0
    except UserError as error:
        for line in error.lines if isinstance(error, LeftOut) and len(error.lines) > 3 else ():
            _say(line)
        _say(f"{error}")
    except SystemExit as stop:  # of help that was asked for, of SIGTERM
        return int(stop.code or 0)
    except Preempted as preempted:
        _say(f"{preempted}")
        return INTERRUPTED if isinstance(preempted, Interrupted) else RETRY
    except KeyboardInterrupt:
        _say("interrupted; run the same command again")
        return INTERRUPTED
    except BrokenPipeError:
        pass  # Nobody reads on, as in `rvq-jax … | head`: nothing to say to anybody.
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _say(f"{where}{error.strerror or error}; look at this file, or the room on its disk")
    except RecursionError:
        _say("what was given is nested too deeply; give something simpler")
    except (MemoryError, RuntimeError) as error:  # JAX's is a RuntimeError
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in f"{error}":
            raise
        _say("out of memory; give it less at a time, or more memory")
    return 2


def _command(arguments: list[str]) -> None:
    keep = NO_CACHE not in arguments
    arguments = [word for word in arguments if word != NO_CACHE]
    if not arguments or arguments[0] in ("-h", "--help"):
        terminal.show(_overview())
        return
    if arguments[0] == "--version":
        terminal.show(f"rvq-jax {metadata.version('rvq_jax')}")
        return
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    name, rest = " ".join(arguments[:words]), arguments[words:]
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}; {nearest(name, COMMANDS)}")
    helped = rest and not rest[0].startswith("-") and {"-h", "--help"} & {*rest}
    if name in ("train", "plan", "sweep") and helped:
        from rvq_jax.cli.train import load_config

        default = load_config(rest[0])
        parse(type(default), ["--help"], f"{name} {rest[0]}", default)
    command = parse(load(name), rest, name)
    hosts = getattr(command, "hosts", None)
    # A plan reads what the compiler says; many hosts must do the same, each with a disk of its own.
    if keep and name != "plan" and (hosts is None or hosts.coordinator is None):
        cache.keep_programs()
    with _ended_by_sigterm():
        result = command.run()
    if command.json and result is not None:
        terminal.show(json.dumps(result))


def _leave() -> None:
    """Ends a process of many at once; where nothing has imported JAX there is one."""
    if "jax" in sys.modules:
        from rvq_jax.train.hosts import leave

        leave(2)


def _say(line: str) -> None:
    print(f"rvq-jax: {clipped(printable(line), LINE)}", file=sys.stderr)


@contextlib.contextmanager
def _ended_by_sigterm():
    """Inside, SIGTERM ends the process as an exception does, which takes temporary files away."""

    def end(*_):
        _say("ended by SIGTERM; run the same command again")
        raise SystemExit(128 + signal.SIGTERM)

    # Only where the process is ours, and nobody else has asked for the signal.
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: rvq-jax COMMAND [--help] …, or rvq-jax --version",
            "",
            *lines,
            "",
            "rvq-jax COMMAND --help teaches more.",
            f"Compiled programs are kept for the next command in {cache.place() or 'no folder'}:",
            f"{NO_CACHE} or {cache.VARIABLE}=0 keeps none, {cache.VARIABLE}=FOLDER has its own.",
        ]
    )
