"""What keeps a run from harm: one run to a folder, the data it began with, losses that leap."""

import contextlib
import errno
import fcntl
import os
import socket
import stat
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
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(path, "r+b", buffering=0, opener=_itself))
            said = file.read(200) or b""
            # Nothing is cut before it is known to be a lock.
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or not _is_lock(said):
                raise UserError(f"{path} is not the lock of a run; choose another --out")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another run is at work in {folder} ({said.decode(errors='replace').strip()}); "
                "wait for it to end, or choose another --out"
            ) from error
        except OSError as error:
            why = "it is a link" if error.errno == errno.ELOOP else error.strerror or error
            raise UserError(f"cannot write {path}: {why}; choose another --out") from error
        with contextlib.suppress(OSError):  # words for others, which a full disk has no room for
            file.truncate(0)
            file.seek(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


def _itself(path: str, flags: int) -> int:
    """Opens a file, made if it is not there; never what a link points to, and no pipe is waited
    for."""
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _is_lock(said: bytes) -> bool:
    """Whether a file that begins so is what `alone` writes; zeros are left by a power cut."""
    return not said.strip(b"\0") or said.startswith(b"process ")


def check_dataset(before: dict, now: dict, folder: Path) -> None:
    """Raises UserError with the difference if the data are not those that a run began with; what is
    held out only where it was before."""
    if not {"heldout"} <= before.keys() & now.keys():
        before, now = ({n: x[n] for n in x if n != "heldout"} for x in (before, now))
    if before != now:
        raise UserError(
            f"the data of {folder} changed ({'; '.join(configs.differences(before, now)[:3])}); "
            "give it the data it began with, or choose another --out"
        )


def spiked(losses: Sequence[float], loss: float, factor: float | None) -> bool:
    """Whether a loss is above `factor` times the median of those before; never for None or 0."""
    enough = len(losses) >= FEWEST
    return bool(factor) and enough and loss > factor * statistics.median(losses)
