"""Bytes that a compiled program moves between a chip and its memory, loops counted out.

Every instruction reads its operands and writes its result; what is fused into one stays on the
chip, and so does an array that the compiler placed there. A slice reads what it takes, and an
update in place writes what it changes, not the whole array.
"""

import re

from rvq_jax.plan import kernels
from rvq_jax.plan.collectives import KINDS
from rvq_jax.plan.hlo import Computation, Instruction, Leaf, Module, Run

FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call"}
FREE |= {"conditional", "after-all", "partition-id", "replica-id", "async-start", "async-update"}
FREE |= {"add-dependency", "opt-barrier", "get-dimension-size", "domain"}
# Calls that only tell the compiler something.
NOTES = {'"AllocateBuffer"', '"ConcatBitcast"', '"AssumeGatherIndicesInBound"', '"Sharding"'}
SLICES = {"dynamic-slice", "slice", "gather"}
SEEN_THROUGH = {"bitcast", "copy", "convert", "reshape", "transpose"}


def moved(module: Module, times: dict[str, Run]) -> float:
    """Bytes of one call on one chip."""
    return sum(
        run.times * of_instruction(module, module.computations[name], instruction)
        for name, run in times.items()
        if not run.fused
        for instruction in module.computations[name].values()
    )


def of_instruction(module: Module, around: Computation, instruction: Instruction) -> float:
    """Bytes of one run of an instruction that is not fused into another."""
    opcode = instruction.opcode
    if opcode in FREE or opcode.endswith("-done"):
        return 0.0
    if opcode == "custom-call" and instruction.attribute("custom_call_target") in NOTES:
        return 0.0
    operands = [_leaves(around, name) for name in instruction.operands]
    if opcode in SLICES:
        return _here(instruction.leaves) + _within(operands[0], instruction.leaves)
    if opcode == "dynamic-update-slice":
        return 2 * _within(operands[0], operands[1])
    if opcode == "scatter":
        updates = operands[len(operands) // 2 + 1 :]
        return sum(_here(x) + _within(operands[0], x) for x in updates) + _here(operands[-2])
    if opcode == "custom-call" and (kernel := kernels.of_call(around, instruction)):
        times = kernel.again or (1.0,) * len(operands)
        read = (n * _here(leaves) for n, leaves in zip(times, operands, strict=True))
        return _here(instruction.leaves) + sum(read)
    if opcode == "copy-start":
        return _here(instruction.leaves[:1]) + _here(operands[0])
    if opcode == "slice-start":
        taken = instruction.leaves[1:2]
        return _here(taken) + _within(operands[0], taken)
    if opcode == "fusion":
        return _fusion(module, instruction, operands)
    if opcode.endswith("-start"):  # of a collective: its result repeats its operands
        return 2 * sum(map(_here, operands))
    return _here(instruction.leaves) + sum(map(_here, operands))


def _fusion(module: Module, instruction: Instruction, operands: list) -> float:
    inner = module.computations[dict(instruction.callees())["calls"]]
    through = _passed_through(inner, instruction)
    read = sum(
        min(_here(leaves), _read(module, inner, number) * bool(_here(leaves)))
        for number, leaves in enumerate(operands)
        if number not in through.values()
    )
    written = 0.0
    root = next(x for x in inner.values() if x.root)
    parts = [inner[name] for name in root.operands] if root.opcode == "tuple" else [root]
    for place, (part, leaf) in enumerate(zip(parts, instruction.leaves, strict=False)):
        if place in through:
            continue
        changed = _changed(module, inner, part)
        written += _here((leaf,)) if changed is None else changed * (leaf.space == 0)
    return read + written


def _passed_through(inner: Computation, instruction: Instruction) -> dict[int, int]:
    """Results that are operands, of a fusion that computes while an exchange goes on: its buffers,
    which are counted where it begins."""
    if not any(x.opcode in KINDS for x in inner.values()):
        return {}
    pairs = re.findall(r"\{(\d*)\}: \((\d+), ", instruction.attributes)
    return {int(result or 0): int(operand) for result, operand in pairs}


def _read(module: Module, inner: Computation, number: int) -> float:
    """Bytes of a parameter that a fused computation reads."""
    name = next(x.name for x in inner.values() if x.opcode == "parameter" and x.text == str(number))
    return _used(module, inner, name)


def _used(module: Module, inner: Computation, name: str) -> float:
    whole = float(sum(leaf.bytes for leaf in inner[name].leaves))
    total = 0.0
    for user in inner.values():
        if name not in user.operands:
            continue
        first = user.operands[0] == name
        if user.opcode in SLICES and first:
            total += sum(leaf.bytes for leaf in user.leaves)
        elif user.opcode == "dynamic-update-slice" and first:
            continue
        elif user.opcode == "bitcast":
            total += _used(module, inner, user.name)
        elif user.opcode == "fusion":
            nested = module.computations[dict(user.callees())["calls"]]
            places = [i for i, operand in enumerate(user.operands) if operand == name]
            total += sum(_read(module, nested, place) for place in places)
        else:
            return whole
        if total >= whole:
            return whole
    return total


def _changed(module: Module, inner: Computation, part: Instruction) -> float | None:
    """Bytes that an update in place writes; None for a result that is written whole."""
    for _ in range(6):
        if part.opcode == "dynamic-update-slice":
            return float(sum(leaf.bytes for leaf in inner[part.operands[1]].leaves))
        if part.opcode == "fusion":
            inner = module.computations[dict(part.callees())["calls"]]
            part = next(x for x in inner.values() if x.root)
        elif part.opcode in SEEN_THROUGH and part.operands:
            part = inner[part.operands[0]]
        else:
            return None
    return None


def _leaves(around: Computation, name: str) -> tuple[Leaf, ...]:
    return around[name].leaves if name in around else ()


def _here(leaves) -> float:
    """Bytes of the arrays that lie in the chip's memory."""
    return float(sum(leaf.bytes for leaf in leaves if leaf.space == 0))


def _within(whole, part) -> float:
    """Bytes of a part of arrays that lie in the chip's memory."""
    return float(sum(leaf.bytes for leaf in part)) if _here(whole) else 0.0
