"""What keeps a run from harm: one run to a folder, the data it began with, losses that leap."""

import contextlib
import fcntl
import os
import socket
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from rvq_jax import config as configs
from rvq_jax.errors import UserError
from rvq_jax.train import hosts

WINDOW = 50  # losses that a spike is compared with
FEWEST = 10


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds a run's folder; raises UserError if another run does, or it cannot be written to.

    The lock goes with the process, however that ends.
    """
    if not hosts.first():
        yield
        return
    path = Path(folder) / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --out") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f"another run is at work in {folder} ({file.read().strip()}); "
                "wait for it to end, or choose another --out"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def check_dataset(before: dict, now: dict, folder: Path) -> None:
    """Raises UserError with the difference if the data are not those that a run began with."""
    if before != now:
        raise UserError(
            f"the data of {folder} changed ({'; '.join(configs.differences(before, now)[:3])}); "
            "give it the data it began with, or choose another --out"
        )


def spiked(losses: Sequence[float], loss: float, factor: float | None) -> bool:
    """Whether a loss is above `factor` times the median of those before; never for None or 0."""
    enough = len(losses) >= FEWEST
    return bool(factor) and enough and loss > factor * statistics.median(losses)
