"""Figures of TPU chips, and the devices of a topology that need not be there."""

import importlib.util
import os
import re
from typing import NamedTuple

import jax

from rvq_jax.errors import UserError

GiB = 2**30


class Chip(NamedTuple):
    """What one chip can do; None where it is not known."""

    memory: float | None  # bytes of HBM that a program may use
    flops: float | None  # bfloat16 FLOP/s
    bandwidth: float | None  # bytes per second between HBM and chip
    links: float | None  # bytes per second that it sends to other chips, all links together
    cores: str | None = None  # chip_config_name of the topology: one device per chip


# Memory is what XLA says is available when a program does not fit; the documentation has the
# nominal size. Links are half of the "bidirectional" bandwidth there: what one chip sends.
CHIPS = {
    # https://cloud.google.com/tpu/docs/v4: 275 TFLOPs, 32 GiB, 1200 GBps. The page has no figure
    # for links: six of 45 GB/s each way by https://jax-ml.github.io/scaling-book/tpus. A chip is
    # one device of two cores ("megacore"), as Cloud TPU starts it.
    "v4": Chip(30.75 * GiB, 275e12, 1200e9, 270e9, "megacore"),
    # https://cloud.google.com/tpu/docs/v5e: 197 TFLOPs, 16 GB, 819 GBps, ICI 400 GBps both ways.
    "v5e": Chip(15.75 * GiB, 197e12, 819e9, 200e9),
    # https://cloud.google.com/tpu/docs/v5p: 459 TFLOPs, 95 GB, 2765 GBps, ICI 1200 GBps both ways.
    "v5p": Chip(95.73 * GiB, 459e12, 2765e9, 600e9),
    # https://cloud.google.com/tpu/docs/v6e: 918 TFLOPs, 32 GB, 1638 GBps, ICI 800 GBps both ways.
    "v6e": Chip(31.24 * GiB, 918e12, 1638e9, 400e9),
    # This machine's processor, as many simulated devices as are asked for.
    "cpu": Chip(None, None, None, None),
}
EXAMPLES = "v4:4x4x4, v5e:16x16, v5p:4x4x4, v6e:8x8, cpu:8"
# libtpu asks its host for these, at length, where they are not set.
TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}


def split(topology: str) -> tuple[str, tuple[int, ...]]:
    """The chip and the sizes of a topology such as v5e:16x16; raises UserError, with those known,
    for another."""
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", topology)
    if not found or found[1] not in CHIPS:
        raise UserError(f"unknown topology {topology!r}: known are {EXAMPLES}, and other sizes")
    return found[1], tuple(map(int, found[2].split("x")))


def devices(topology: str) -> list:
    """Devices of a topology, to compile for and not to run on; of `cpu:n` they are real.

    Raises UserError for an unknown topology, if libtpu is missing, or if JAX has started with
    another number of CPU devices.
    """
    name, sizes = split(topology)
    _use_cpu(sizes[0] if name == "cpu" else None)
    if name == "cpu":
        here = jax.devices("cpu")
        if len(sizes) > 1 or len(here) < sizes[0]:
            raise UserError(f"{topology}: this process has {len(here)} CPU devices, as cpu:n")
        return here[: sizes[0]]
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("compiling for TPUs needs libtpu (no TPU): pip install 'rvq_jax[tpu-plan]'")
    for variable, value in TPU_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies

    try:
        cores = CHIPS[name].cores
        options = {"chip_config_name": cores} if cores else {}
        found = topologies.get_topology_desc(topology, "tpu", **options)
    except Exception as error:
        why = str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ")
        raise UserError(f"unknown topology {topology!r}: {why}; known are {EXAMPLES}") from error
    return list(found.devices)


def coordinates(mesh) -> list[tuple[int, ...]]:
    """Places of a mesh's devices on their torus; simulated ones stand in a line."""
    flat = mesh.devices.ravel()
    return [tuple(getattr(device, "coords", (place,))) for place, device in enumerate(flat)]


def _use_cpu(count: int | None) -> None:
    """The CPU as this process's own device, `count` of them, where JAX has not started yet."""
    try:
        if "JAX_PLATFORMS" not in os.environ:
            jax.config.update("jax_platforms", "cpu")
        if count is not None and count > jax.config.jax_num_cpu_devices:
            jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        pass  # it has
