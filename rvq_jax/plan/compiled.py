"""One program compiled for a topology: does it fit, what does it cost."""

import contextlib
import re
import sys
import time
from typing import NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache

from rvq_jax.errors import UserError
from rvq_jax.plan import chips, hlo, kernels
from rvq_jax.plan.chips import Chip, GiB
from rvq_jax.plan.collectives import Collective, collectives, seconds
from rvq_jax.plan.flops import flops
from rvq_jax.plan.traffic import moved

UNITS = {"B": 1, "K": 2**10, "M": 2**20, "G": GiB, "T": 2**40}
AMOUNT = r"([\d.]+)([BKMGT])"


class Compiled(NamedTuple):
    """What XLA made of a program, for one chip of those it runs on."""

    memory: dict[str, float]  # bytes: arguments, activations, code, total
    fits: bool
    limit: float | None  # bytes there are
    compile_seconds: float
    cost: "Cost | None"  # None where it did not fit: XLA then shows no program


class Cost(NamedTuple):
    """What one call costs a chip, loops counted out."""

    flops: float
    moved: float  # bytes between chip and memory
    collectives: list[Collective]
    uncounted: int  # loops whose length is only known when they run
    unknown: tuple[str, ...] = ()  # calls of what may multiply matrices and is in no count


class Roofline(NamedTuple):
    """Seconds that each part takes at the chip's full speed; the longest bounds the whole.

    That is if all of them overlap and each reaches what the chip can do: no program is faster, and
    real ones are slower. None where the chip's figures are not known.
    """

    compute: float | None
    memory: float | None
    communication: float | None

    @property
    def seconds(self) -> float | None:
        return None if self.compute is None else max(self)

    @property
    def bound(self) -> str | None:
        return None if self.compute is None else self._fields[self.index(max(self))]

    @property
    def communication_share(self) -> float | None:
        """Of the time if exchanges overlap with nothing."""
        if self.compute is None:
            return None
        return self.communication / (self.communication + max(self.compute, self.memory))


def compile_for(
    chip: Chip, lowered, label: str, loops: int = 1, level: str | None = None
) -> Compiled:
    """Compiles a lowered program; one line on standard error says so.

    Args:
      chip: figures of the chip to compile for.
      lowered: the program, as `lower` of a function under `jax.jit` gives it.
      label: what is compiled, for standard error.
      loops: how often loops run whose length the program does not tell.
      level: how much XLA optimizes, from O0 to O3; None for what JAX is set to.

    Returns:
      Memory, time to compile and cost of the program on one chip, and whether it fits.

    Raises:
      JaxRuntimeError: when it cannot be compiled for another reason than memory.
      UserError: when what XLA says of it cannot be read.
    """
    print(f"compiling {label} …", end="", file=sys.stderr, flush=True)
    began = time.perf_counter()
    try:
        with _anew(level):
            done = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        took = time.perf_counter() - began
        print(f" {took:.0f} s, does not fit", file=sys.stderr)
        return Compiled(*_refused(str(error), chip, error), took, None)
    took = time.perf_counter() - began
    print(f" {took:.0f} s", file=sys.stderr)
    found = done.memory_analysis()
    memory = {
        "arguments": found.argument_size_in_bytes,
        "outputs": found.output_size_in_bytes - found.alias_size_in_bytes,
        "activations": found.temp_size_in_bytes,
        "code": found.generated_code_size_in_bytes,
    }
    memory["total"] = sum(memory.values())
    fits = chip.memory is None or memory["total"] <= chip.memory
    try:
        found = cost(done.as_text(), loops)
    except ValueError as error:
        raise UserError(
            f"{label} compiles, but XLA's text of it cannot be read: {error}; plan knows that of "
            f"JAX 0.10 to 0.12, this is {jax.__version__}"
        ) from error
    return Compiled(memory, fits, chip.memory, took, found)


@contextlib.contextmanager
def _anew(level: str | None):
    """Compiling to so much effort, past the persistent cache of compiled programs: of one that
    comes from there XLA says less, and one for chips that are not here cannot be read at all."""
    effort, cached = jax.config.jax_optimization_level, jax.config.jax_enable_compilation_cache
    jax.config.update("jax_optimization_level", level or effort)
    jax.config.update("jax_enable_compilation_cache", False)
    # Whether there is a cache is otherwise asked once in a process.
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_optimization_level", effort)
        jax.config.update("jax_enable_compilation_cache", cached)
        compilation_cache.reset_cache()


def _refused(message: str, chip: Chip, error) -> tuple[dict, bool, float | None]:
    """What XLA says of a program that does not fit; raises what it said of anything else."""
    if "RESOURCE_EXHAUSTED" not in message:
        raise error
    said = [float(x) * UNITS[unit] for x, unit in re.findall(rf"\(?{AMOUNT}\)?", message)]
    over = [x for x in said if chip.memory is None or x > chip.memory * 1.0001]
    return {"total": max(over, default=0.0)}, False, chip.memory


def cost(text: str, loops: int = 1) -> Cost:
    """The cost of a program from `compiled.as_text()`."""
    module = hlo.parse(text)
    times, loops = hlo.runs(module, loops)
    named = {
        kernels.uncounted(module.computations[name], instruction)
        for name in times
        for instruction in module.computations[name].values()
    }
    return Cost(
        flops(module, times),
        moved(module, times),
        collectives(module, times),
        loops,
        tuple(sorted(named - {None})),
    )


def roofline(chip: Chip, cost: Cost, mesh=None) -> Roofline:
    """The least seconds of a cost; mesh: of the chips that exchange."""
    if chip.flops is None:
        return Roofline(None, None, None)
    talk = 0.0
    if mesh is not None and cost.collectives:
        talk = seconds(cost.collectives, chips.coordinates(mesh), chip.links)
    return Roofline(cost.flops / chip.flops, cost.moved / chip.bandwidth, talk)
