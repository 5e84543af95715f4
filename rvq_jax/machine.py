"""What a number was measured on: commit, machine, versions, memory."""

import os
import platform
import resource
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import jax


def commit() -> str:
    """The commit of this source, with "+" if it was changed; "unknown" outside git."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        changed = "+" if head and git("status", "--porcelain", "--untracked-files=no") else ""
    except OSError:
        return "unknown"
    return head + changed if head else "unknown"


def machine() -> dict:
    """Processor, cores this process may use, memory in GB, and the accelerator if there is one."""
    device = jax.devices()[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory_gb": round(memory, 1),
        "accelerator": None if device.platform == "cpu" else device.device_kind,
    }


def versions() -> dict:
    """Versions of Python, JAX and this package."""
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "rvq_jax": metadata.version("rvq_jax"),
    }


def provenance(began: float) -> dict:
    """What every experiment states of itself; `began` by `time.perf_counter`."""
    return {
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "wall_seconds": round(time.perf_counter() - began, 1),
    }


def sentence(stated: dict) -> str:
    """`provenance` in a line, for the foot of a table."""
    where = stated["machine"]
    return (
        f"commit {stated['commit']}; JAX {stated['versions']['jax']}; {where['cores']} cores of "
        f"{where['cpu']}; {stated['wall_seconds']:.0f} s."
    )


def devices_used(devices) -> str:
    """Names of some devices, such as "4 NVIDIA H100"."""
    kinds = [device.device_kind for device in devices]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))


def device_memory_gb(devices) -> float:
    """Most memory that any of this process's devices has used so far, in GB; of the process itself
    where devices do not say, as the CPU does not."""
    said = [
        device.memory_stats() for device in devices if device.process_index == jax.process_index()
    ]
    peaks = [stats["peak_bytes_in_use"] for stats in said if stats and "peak_bytes_in_use" in stats]
    return max(peaks) / 1e9 if peaks else peak_memory_gb()


def peak_memory_gb() -> float:
    """Largest resident size of this process so far, in GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
