"""How a process of a run finds the others, before any of them asks for devices."""

import socket
import time
from dataclasses import dataclass

from rvq_jax import screen
from rvq_jax.errors import UserError


@dataclass(frozen=True)
class Hosts:
    """How a process of a run finds the others."""

    coordinator: str | None = None
    """HOST:PORT of the first process; or auto, as Cloud TPU, Slurm, Open MPI and Kubernetes say
    it. None: there is one process."""
    processes: int | None = None
    """How many there are. None: the cluster says."""
    process: int | None = None
    """Which of them this is, from 0 on. None: the cluster says."""
    wait: int = 300
    """Seconds to wait for the others to come."""
    heartbeat: int = 60
    """Seconds without a sign of life after which a process is dead, and the others end too."""


def join(hosts: Hosts) -> None:
    """Connects this process to the others of a run; call it before anything asks for devices.

    Raises UserError if the cluster says nothing of itself, or the first process does not answer.
    """
    if hosts.coordinator is None:
        return
    known = {}
    if hosts.coordinator != "auto":
        _check(hosts)
        known = {"coordinator_address": hosts.coordinator, "num_processes": hosts.processes}
        known |= {"process_id": hosts.process, "cluster_detection_method": "deactivate"}
        if hosts.process:
            _answers(hosts.coordinator, hosts.wait)
    import jax

    # The runtime aborts when the time is up, and says nothing before.
    many = f"{hosts.processes} processes" if hosts.processes else "the other processes"
    print(f"rvq-jax: waiting up to {hosts.wait} s for {many}", file=screen.STDERR, flush=True)
    try:
        jax.distributed.initialize(
            **known,
            initialization_timeout=hosts.wait,
            heartbeat_timeout_seconds=hosts.heartbeat,
            shutdown_timeout_seconds=hosts.heartbeat,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"cannot join the other processes ({error}); "
            "give --hosts.coordinator HOST:PORT, --hosts.processes and --hosts.process"
        ) from error


def _check(hosts: Hosts) -> None:
    host, _, port = hosts.coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--hosts.coordinator is {hosts.coordinator!r}; it must be HOST:PORT")
    if None in (hosts.process, hosts.processes) or not 0 <= hosts.process < hosts.processes:
        raise UserError(
            f"--hosts.process is {hosts.process} of --hosts.processes {hosts.processes}; "
            "number the processes from 0 on"
        )


def _answers(coordinator: str, wait: float) -> None:
    """Waits until the first process listens: the runtime itself would abort without a word."""
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + wait
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=min(wait, 5.0)).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"no process answers at {coordinator} in {wait} s ({error.strerror or error}); "
                    "start process 0 there, or change --hosts.coordinator"
                ) from error
            time.sleep(0.2)
