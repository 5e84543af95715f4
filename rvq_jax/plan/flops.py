"""FLOPs of a compiled program: products of matrices and convolutions, loops counted out."""

import re

import numpy as np

from rvq_jax.plan import kernels
from rvq_jax.plan.hlo import Computation, Instruction, Module, Run


def flops(module: Module, times: dict[str, Run]) -> float:
    """FLOPs of one call on one chip, a multiply-add as two; elementwise work is not counted."""
    return sum(
        run.times * of_instruction(module.computations[name], instruction)
        for name, run in times.items()
        for instruction in module.computations[name].values()
    )


def of_instruction(around: Computation, instruction: Instruction) -> float:
    """FLOPs of one run of an instruction by itself, without what it calls."""
    if instruction.opcode == "dot":
        return _dot(around, instruction)
    if instruction.opcode == "convolution":
        return _convolution(around, instruction)
    if instruction.opcode == "custom-call":
        found = kernels.of_call(around, instruction)
        return found.flops if found else 0.0
    return 0.0


def _dot(around: Computation, instruction: Instruction) -> float:
    left = around[instruction.operands[0]].leaves[0].shape
    axes = instruction.attribute("lhs_contracting_dims") or ""
    summed = [left[int(axis)] for axis in re.findall(r"\d+", axes)]
    return 2.0 * np.prod(instruction.leaves[0].shape, dtype=float) * np.prod(summed, dtype=float)


def _convolution(around: Computation, instruction: Instruction) -> float:
    """Only pairs of an input that is there and a weight: TPU compilers write batched products as
    convolutions over padding and holes."""
    left, right = (around[name].leaves[0].shape for name in instruction.operands[:2])
    out = instruction.leaves[0].shape
    labels = re.match(r"(\w+)_(\w+)->(\w+)", instruction.attribute("dim_labels"))
    lhs, rhs, result = labels.groups()
    window = instruction.attribute("window") or "{}"
    window = dict(re.findall(r"(\w+)=([\w\-]+)", window))
    total = 2.0 * out[result.index("b")] * out[result.index("f")] * right[rhs.index("i")]
    for axis in range(len(lhs) - 2):
        part = {name: value.split("x")[axis] for name, value in window.items()}
        total *= pairs(
            left[lhs.index(str(axis))],
            right[rhs.index(str(axis))],
            out[result.index(str(axis))],
            stride=int(part.get("stride", 1)),
            before=int(part.get("pad", "0_0").split("_")[0]),
            hole=int(part.get("lhs_dilate", 1)),
            spread=int(part.get("rhs_dilate", 1)),
        )
    return total


def pairs(size: int, window: int, out: int, *, stride, before, hole, spread) -> int:
    """Counts the multiplications of a convolution along one axis that meet an input.

    Pairs of an output and a weight that meet padding or a hole do not count.

    Args:
      size: number of inputs along the axis.
      window: number of weights along the axis.
      out: number of outputs along the axis.
      stride: places that the weights move from one output to the next.
      before: places of padding before the first input.
      hole: places from one input to the next; between them there is nothing (input dilation).
      spread: places from one weight to the next (kernel dilation).

    Returns:
      The number of pairs of an output and a weight.
    """
    at = np.arange(out)[:, None] * stride + np.arange(window) * spread - before
    return int(((at >= 0) & (at <= (size - 1) * hole) & (at % hole == 0)).sum())
