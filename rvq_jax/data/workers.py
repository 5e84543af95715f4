"""Batches made by processes of their own, to the same bits whatever their number.

A process is asked for one batch after another by its place in the run, and writes it into memory
that is shared. It keeps no state and reads no JAX. It ends when nobody is left to ask it: its end
of a connection closes with the process that holds the other, however that ended.
"""

import contextlib
import mmap
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np

from rvq_jax.errors import UserError

DEPTH = 2  # batches that a process is asked for before the first is fetched
ALIGN = 64  # bytes of a cache line
# Not multiprocessing's own, which read the main module again: of a script that is all its work.
CHILD = "import sys; sys.path[:] = {path!r}; from rvq_jax.data import workers; workers.serve({fd})"
# Else glibc gives back the memory of every record, and gets it anew: a third of the time.
KEEP = {"MALLOC_MMAP_THRESHOLD_": f"{1 << 26}", "MALLOC_TRIM_THRESHOLD_": f"{1 << 28}"}
Slot = dict[str, np.ndarray]  # the arrays of a batch, in memory that is shared


class Worker(NamedTuple):
    """A process, the connection to it, and where it puts its batches."""

    process: subprocess.Popen
    asks: Connection
    slots: list[Slot]


class Workers:
    """An endless iterator over batches that processes make ahead of time."""

    def __init__(self, make: Callable[..., dict], count: int):
        """Takes what makes a batch; nothing is started before the first is asked for.

        Args:
          make: from the place of a batch in the run, and arrays to use for it or None, to the
            batch: the same one whenever it is asked for.
          count: processes.
        """
        self.make, self.count, self.at = make, count, 0
        self.asked: deque[tuple[Worker, int]] = deque()  # for the batches that come, in order
        self.end: Callable[[], None] | None = None

    def __iter__(self) -> "Workers":
        return self

    def __next__(self) -> dict:
        try:
            if self.end is None:
                # Made here, it shows what arrays all batches have.
                batch = self.make(self.at, None)
                workers = start(self.make, batch, self.count)
                self.end = weakref.finalize(self, end, workers)
                free = [(worker, slot) for slot in range(DEPTH) for worker in workers]
            else:
                free = [self.asked.popleft()]
                batch = fetch(*free[0])
            self.at += 1
            self._ask(free)
        except BaseException:
            self.close()  # who was asked for what is no longer known
            raise
        return batch

    def _ask(self, free: list[tuple[Worker, int]]) -> None:
        for worker, slot in free:
            with talking(worker):
                worker.asks.send_bytes(b"%d %d" % (self.at + len(self.asked), slot))
            self.asked.append((worker, slot))

    def get_state(self) -> dict:
        """How many batches were taken, in the words of grain's iterator."""
        return {"next_index": self.at}

    def set_state(self, state: dict) -> None:
        """Goes on after so many batches, whoever made them."""
        self.close()
        self.at = state["next_index"]

    def close(self) -> None:
        """Ends the processes; the next batch that is asked for starts others."""
        self.asked.clear()
        if self.end is not None:
            self.end()
            self.end = None


def start(make: Callable[..., dict], like: dict, count: int) -> list[Worker]:
    """Starts processes.

    Args:
      make: as of `Workers`; cloudpickle must be able to write it.
      like: a batch, whose arrays are as those of all.
      count: processes.

    Returns:
      The processes, which read what they need while others start.
    """
    import cloudpickle  # comes with grain

    spec = {name: (array.shape, array.dtype) for name, array in like.items()}
    workers = []
    for _ in range(count):
        here, there = multiprocessing.Pipe()
        with memory(DEPTH * sum(map(room, spec.values()))) as shared, there:
            command = CHILD.format(path=sys.path, fd=there.fileno())
            process = subprocess.Popen(
                [sys.executable, "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(there.fileno(), shared),
                env=KEEP | os.environ,
                start_new_session=True,  # Ctrl-C in a terminal is for the run alone
            )
            workers.append((Worker(process, here, slots(shared, spec)), shared))
    job = cloudpickle.dumps((make, spec))
    for worker, shared in workers:
        with talking(worker):
            worker.asks.send_bytes(b"%d" % shared)
            worker.asks.send_bytes(job)
    return [worker for worker, _ in workers]


def end(workers: list[Worker]) -> None:
    """Ends processes at once: they have nothing to lose."""
    for worker in workers:
        worker.process.kill()
        worker.asks.close()
    for worker in workers:
        worker.process.wait()


def fetch(worker: Worker, slot: int) -> dict:
    """The batch that a process was asked for first of all that it still owes."""
    with talking(worker):
        found = worker.asks.recv()
    if isinstance(found, BaseException):
        raise found
    # A copy: the process writes its next batch over this one while the device may still read it.
    return {name: array.copy() for name, array in worker.slots[slot].items()} | found


@contextlib.contextmanager
def talking(worker: Worker):
    """UserError for a process that has ended."""
    try:
        yield
    except (EOFError, OSError):
        code = worker.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise UserError(
            f"a process that makes batches ended ({how}); the same command goes on from the last "
            "checkpoint, and with fewer --workers where memory was short"
        ) from None


@contextlib.contextmanager
def memory(size: int):
    """A file without a name in memory, by its number."""
    if hasattr(os, "memfd_create"):  # Linux; not /dev/shm, of which containers have 64 MB
        number = os.memfd_create("batches")
        os.ftruncate(number, size)
        try:
            yield number
        finally:
            os.close(number)
    else:
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            yield file.fileno()


def room(array: tuple[tuple[int, ...], np.dtype]) -> int:
    """Bytes for an array of a shape and type."""
    shape, dtype = array
    return -(-max(1, int(np.prod(shape)) * dtype.itemsize) // ALIGN) * ALIGN


def slots(shared: int, spec: dict) -> list[Slot]:
    """The arrays of DEPTH batches in a file in memory, by names, shapes and types."""
    buffer, begin, found = mmap.mmap(shared, 0), 0, []
    for _ in range(DEPTH):
        slot = {}
        for name, (shape, dtype) in spec.items():
            slot[name] = np.ndarray(shape, dtype, buffer, begin)
            begin += room((shape, dtype))
        found.append(slot)
    return found


def serve(number: int) -> None:
    """What a process does: batches, as it is asked for them.

    Args:
      number: of the file of its connection.
    """
    # The run saves what it has done; it is who ends this process.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    # Nobody there any more.
    with contextlib.suppress(EOFError, OSError), Connection(number) as asks:
        shared, job = int(asks.recv_bytes()), asks.recv_bytes()
        make = None
        while True:
            at, slot = map(int, asks.recv_bytes().split())
            try:
                if make is None:
                    import cloudpickle

                    make, spec = cloudpickle.loads(job)
                    places = slots(shared, spec)
                batch = make(at, places[slot])
                if batch.keys() != spec.keys():
                    raise ValueError(f"a batch of {[*batch]}, where the first was of {[*spec]}")
                found = {n: x for n, x in batch.items() if x is not places[slot].get(n)}
            except Exception as error:
                error.add_note(f"in a process that makes batches:\n{traceback.format_exc()}")
                found = error
            asks.send(found)
