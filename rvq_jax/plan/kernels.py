"""What kernels written by hand cost, of which XLA sees a call and no products.

By what a kernel itself says it costs, or by a formula of its shapes and blocks: of JAX's splash
attention, which leaves out the blocks that a causal mask hides whole.
"""

import math
import re
from typing import NamedTuple

from rvq_jax.plan.hlo import Computation, Instruction

# Products of matrices for every block of scores: forwards the scores and the values; backwards
# the scores again, the gradient of the weights, and that of queries, or of keys and values, or of
# all (one kernel whose first result are the queries').
PRODUCTS = {"fwd": 2, "dq": 3, "dkv": 4, "all": 5}


class KernelCost(NamedTuple):
    """One run of a kernel, on one chip."""

    flops: float
    again: tuple[float, ...]  # how often it reads each operand; () where that is not known


# Calls that multiply no matrices.
QUIET = {"AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound", "Sharding", "TopK"}
QUIET |= {"PadToStatic", "SliceToDynamic", "annotate_device_placement", "MoveToHost"}
QUIET |= {"MoveToDevice", "AsyncCollectiveStart", "AsyncCollectiveDone"}
QUIET |= {"GatherScatterIndicesBitpacked"}


def of_call(around: Computation, instruction: Instruction) -> KernelCost | None:
    """The cost of an instruction that calls a kernel.

    Args:
      around: the computation that it stands in.
      instruction: of a compiled program.

    Returns:
      Its cost; None of what is no kernel, or of one that is not known (see `uncounted`).
    """
    if instruction.attribute("custom_call_target") != '"tpu_custom_call"':
        return None
    operands = [around[name].leaves[0] for name in instruction.operands]
    operands = [(leaf.dtype.startswith(("f", "bf")), leaf.shape) for leaf in operands]
    said = instruction.attributes
    path = re.search(r'op_name="([^"]*)"', said)
    names = f"{path[1] if path else ''}/{instruction.name}"
    results = [leaf.shape for leaf in instruction.leaves]
    return estimated(said) or splash(names, said, operands, results)


def uncounted(around: Computation, instruction: Instruction) -> str | None:
    """The name of what an instruction calls, if that may multiply matrices and is not known."""
    if instruction.opcode != "custom-call":
        return None
    target = (instruction.attribute("custom_call_target") or "").strip('"')
    if target in QUIET or of_call(around, instruction) is not None:
        return None
    return target if target != "tpu_custom_call" else instruction.name.rsplit(".", 1)[0]


def estimated(text: str) -> KernelCost | None:
    """What a kernel says of itself in its call; None if it says nothing."""
    found = re.search(r'"?cost_estimate"?\W*\{[^}]*?"?flops"?\W+(\d+)', text)
    return KernelCost(float(found[1]), ()) if found else None


def splash(name: str, notes: str, operands: list[tuple], results: list[tuple]) -> KernelCost | None:
    """The cost of a kernel of splash attention.

    Args:
      name: of the kernel, or the path of names that ends in it.
      notes: what the kernel notes of itself: sizes of its blocks.
      operands: (is it of floats, shape) of its operands: queries, keys and values before others.
      results: shapes of its results.

    Returns:
      Its cost; None for another kernel, or for one with a mask that is not causal.
    """
    kind = re.search(r"splash_m[hq]a_(fwd|dq|dkv)_", name)
    blocks = {way: re.search(rf"block_{way}(?:_dq|_dkv)?\W+(\d+)", notes) for way in ("q", "kv")}
    floats = [place for place, (real, _) in enumerate(operands) if real]
    if not kind or not all(blocks.values()) or len(floats) < 3:
        return None
    queries, keys = (operands[place][1] for place in floats[:2])
    q, kv = (int(found[1]) for found in blocks.values())
    steps, seen = queries[-2], keys[-2]
    # A whole mask has no table of blocks before the queries.
    causal = floats[0] > 0
    if causal and steps != seen:
        return None
    shown = [-(-min((i + 1) * q, seen) // kv) if causal else seen // kv for i in range(steps // q)]
    made = "all" if kind[1] == "dkv" and len(results) == 3 else kind[1]
    scores = math.prod(queries[:-2]) * sum(shown) * q * kv
    again = [1.0] * len(operands)
    # The outer loop of blocks keeps its operands; those of the inner one come again.
    inner = floats[1:3] if kind[1] != "dkv" else [floats[0], *floats[3:]]
    for place in inner:
        again[place] = sum(shown) * (kv / seen if kind[1] != "dkv" else q / steps)
    return KernelCost(2.0 * PRODUCTS[made] * scores * queries[-1], tuple(again))
