"""What every benchmark shares: the device, timing, the machine's own limit, one JSON line."""

import argparse
import json
import time
from pathlib import Path


def arguments(description: str, *own: argparse.ArgumentParser) -> argparse.Namespace:
    """--device and --save, and a benchmark's own; the platform is chosen before JAX starts."""
    parser = argparse.ArgumentParser(description=description.strip().splitlines()[0], parents=own)
    parser.add_argument("--device", default="cpu", choices=["cpu", "gpu", "tpu"])
    parser.add_argument("--save", type=Path, help="also append the line to this file")
    parsed = parser.parse_args()
    import jax

    jax.config.update("jax_platforms", {"gpu": "cuda"}.get(parsed.device, parsed.device))
    return parsed


def seconds(function, *inputs, repeats: int = 7) -> tuple[float, float]:
    """Best time of a jitted function over `repeats` calls, and the time of its first."""
    import jax

    began = time.perf_counter()
    jax.block_until_ready(function(*inputs))
    first = time.perf_counter() - began
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function(*inputs))
        times.append(time.perf_counter() - began)
    return min(times), first


def least(functions: dict, repeats: int) -> dict[str, float]:
    """The least time of each, taking turns after one call each."""
    times = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            if turn:
                times[name].append(time.perf_counter() - began)
    return {name: min(found) for name, found in times.items()}


def matmul_rate(size: int = 2048) -> float:
    """This device's float32 matrix rate in FLOP/s, highest precision, square matrices."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones((size, size))
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST))
    best, _ = seconds(product, x, x)
    return 2 * size**3 / best


def rounded(values: dict) -> dict:
    """Figures to four digits, all else as it is."""
    return {
        key: float(f"{value:.4g}") if isinstance(value, float) else value
        for key, value in values.items()
    }


def emit(parsed: argparse.Namespace, name: str, values: dict) -> None:
    """Prints one JSON line: the figures, the machine, the commit."""
    from rvq_jax import machine

    line = json.dumps(
        {
            "benchmark": name,
            **rounded(values),
            "device": parsed.device,
            "machine": machine.machine(),
            "versions": machine.versions(),
            "commit": machine.commit(),
        }
    )
    print(line)
    if parsed.save:
        with parsed.save.open("a") as file:
            file.write(line + "\n")
