"""How far long work is: bars on a terminal, lines elsewhere, and what the first step waits for."""

import contextlib
import sys
import threading
from collections.abc import Iterable, Iterator

from tqdm import tqdm

from rvq_jax import screen
from rvq_jax.errors import printable

EVERY = 30.0  # seconds between lines where nothing is repainted
PATIENCE = 2.0  # seconds of silence, after which a first step says that it is compiled
USUAL = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_begun: set[str] = set()  # lines that were said, or had no need to be


class Lines:
    """A stream for a bar where nothing can be repainted: what it paints, each on a line."""

    def __init__(self):
        self._last = ""

    def write(self, text: str) -> None:
        """Writes a line, if there is something in it that the line before had not."""
        text = text.strip()
        if text and text != self._last:
            screen.STDERR.write(f"{text}\n")
            self._last = text

    def flush(self) -> None:
        """Flushes standard error."""
        screen.STDERR.flush()


def bar(work: Iterable | None = None, **options) -> tqdm:
    """The progress of something, as tqdm shows it: repainted on a terminal, else a line now and
    then.

    Args:
      work: what is gone through; None where `update` counts.
      **options: of tqdm.

    Returns:
      An iterable over `work`, with tqdm's methods.
    """
    if repaints():
        return tqdm(work, file=screen.STDERR, **options)
    form = options.pop("bar_format", USUAL).replace("|{bar}|", "")
    options |= {"bar_format": form, "mininterval": EVERY, "maxinterval": EVERY}
    return tqdm(work, file=Lines(), **options)


def repaints() -> bool:
    """Whether standard error is a terminal, or a notebook, which says that it is none."""
    try:
        return screen.STDERR.isatty() or "ipykernel" in sys.modules
    except screen.LOST:
        return False


def say(line: str) -> None:
    """A line for whoever watches, above all bars; what files put into it cannot break it."""
    tqdm.write(f"rvq-jax: {printable(line)}", file=screen.STDERR)


@contextlib.contextmanager
def compiling(what: str, model: str) -> Iterator[None]:
    """Around what is compiled before it runs: if it takes long, a line says what is waited for.

    Once in a process, as what comes after finds the programs there.

    Args:
      what: is done, "the first update".
      model: in a line, with its number of parameters.
    """
    import jax

    line = f"compiling for {what} on {jax.devices()[0].device_kind}: {model}"
    if line in _begun:
        yield
        return
    _begun.add(line)
    timer = threading.Timer(PATIENCE, say, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
