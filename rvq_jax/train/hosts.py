"""Many processes as one run: what each reads, and how they agree.

JAX's own runtime does the work: it connects processes, ends all of them when one dies, and warns
all of them of a preemption.
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rvq_jax import progress, screen
from rvq_jax.axes import RULES
from rvq_jax.errors import Interrupted, Preempted

AT_INTERRUPT = b"\nrvq-jax: saving after this update; Ctrl-C again ends it at once\n"


def first() -> bool:
    """Whether this process is the one that writes logs and models."""
    return jax.process_index() == 0


def warn(line: str) -> None:
    """A line for whoever watches a run, above its progress bar; the first process says it."""
    if first():
        progress.say(line)


def rows(mesh: Mesh, batch: int) -> np.ndarray:
    """Which rows `[b]` of a batch this process feeds: those its devices hold."""
    placed = NamedSharding(mesh, PartitionSpec(RULES["batch"]))
    held = placed.addressable_devices_indices_map((batch,)).values()
    return np.unique(np.concatenate([np.arange(batch)[index] for index in held]))


def fetch(tree):
    """Arrays as numpy, whole, also those whose parts lie in other processes; all call it."""
    return multihost_utils.process_allgather(tree, tiled=True)


def broadcast(value):
    """What the first process says, of JSON values, in all of them; all call it."""
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value if first() else None).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    text = np.resize(text, size)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(text)).tobytes())


def together(name: str) -> None:
    """Waits for all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def leave(code: int) -> None:
    """Ends a process of many at once: its others would be waited for, who wait for it. Nothing
    where there is one."""
    if jax.distributed.is_initialized():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(*screen.LOST):
                stream.flush()
        os._exit(code)


@contextlib.contextmanager
def preemption() -> Iterator[Callable[[int], type[Preempted] | None]]:
    """Inside, SIGTERM does not end the process, nor does the first Ctrl-C where there is one; the
    function yielded says, of the n-th time that all processes ask, what to raise once all is saved
    if one of them was sent it, and the same to all."""
    if jax.process_count() > 1:
        asked_all = multihost_utils.reached_preemption_sync_point
        yield lambda n: Preempted if asked_all(n) else None
        return
    asked, before = [], {}

    def ask(number, _) -> None:
        asked.append(Interrupted if number == signal.SIGINT else Preempted)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, before[number])
            # Not by the stream, which may be in the middle of a line.
            with contextlib.suppress(OSError):
                os.write(2, AT_INTERRUPT)

    taken = [signal.SIGTERM]
    # Else someone has asked for it, or for nothing at all, as of a process in the background.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        taken.append(signal.SIGINT)
    try:
        for number in taken:
            before[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread, where signals do not come
        yield lambda n: None
        return
    try:
        yield lambda n: asked[-1] if asked else None
    finally:
        for number, handler in before.items():
            # None: not of Python, which cannot put it back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
