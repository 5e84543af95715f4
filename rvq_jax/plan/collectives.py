"""What chips send each other in a compiled program, and how long that takes at least.

The model is a ring: in a group of n a chip sends (n - 1) / n of the bytes of an all-gather's
result, of a reduce-scatter's or all-to-all's operand, and twice that of an all-reduce's; a permute
sends its operand once. A ring runs both ways along each dimension of the torus that the group
spans, so a group along one of two dimensions has half of the chip's links.
"""

import re
from typing import NamedTuple

import numpy as np

from rvq_jax.plan.hlo import Computation, Instruction, Module, Run

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)


class Collective(NamedTuple):
    """An exchange between chips, as often as it runs."""

    kind: str
    times: float
    bytes: float  # that one chip sends in one run
    members: tuple[int, ...]  # a group that takes part, as places in the mesh
    shapes: tuple[tuple[int, ...], ...]
    source: str  # the operation of the model that it comes from


def collectives(module: Module, times: dict[str, Run]) -> list[Collective]:
    """All exchanges of a program; one chip alone has none.

    TPU compilers spread one over several fusions that compute meanwhile: it has one channel.
    """
    found, channels = [], set()
    for name, run in times.items():
        around = module.computations[name]
        for instruction in around.values():
            kind = instruction.opcode.removesuffix("-start")
            channel = instruction.attribute("channel_id")
            if kind not in KINDS or (run.fused and channel in channels):
                continue
            channels.add(channel)
            members = group(instruction, module.spread)
            if len(members) > 1:
                kind = "reduce-scatter" if _keeps_a_slice(around, instruction) else kind
                sent = _sent(kind, around, instruction, len(members))
                source = re.search(r'op_name="([^"]*)"', instruction.attributes)
                shapes = tuple(x.shape for x in instruction.leaves)
                found.append(
                    Collective(kind, run.times, sent, members, shapes, source[1] if source else "")
                )
    return found


def seconds(found: list[Collective], coordinates: list[tuple[int, ...]], bandwidth: float) -> float:
    """Seconds of all of them, one after another, at `bandwidth` bytes per second out of a chip.

    coordinates: of the mesh's chips on their torus, in the order of the mesh.
    """
    return sum(x.times * x.bytes / (bandwidth * links(x.members, coordinates)) for x in found)


def links(members: tuple[int, ...], coordinates: list[tuple[int, ...]]) -> float:
    """The share of a chip's links that rings through these members use."""
    places = np.asarray(coordinates)
    dimensions = max(1, int((places.max(0) > places.min(0)).sum()))
    spanned = places[list(members)]
    return max(1, int((spanned.max(0) > spanned.min(0)).sum())) / dimensions


def group(instruction: Instruction, count: int) -> tuple[int, ...]:
    """The first of the groups that exchange; in a permute a pair of different chips."""
    text = instruction.attributes
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", text):
        pairs = [tuple(map(int, x)) for x in re.findall(r"\{(\d+),(\d+)", pairs[1] + "}")]
        return next((pair for pair in pairs if pair[0] != pair[1]), ())
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return tuple(map(int, found[1].split(",")))
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        shape, sizes = (tuple(map(int, found[i].split(","))) for i in (1, 2))
        turn = tuple(map(int, found[3].split(","))) if found[3] else range(len(sizes))
        ids = np.arange(np.prod(sizes)).reshape(sizes).transpose(turn).reshape(shape)
        return tuple(ids[0].tolist())
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\](?:,[^{]*)? \{([^}]*)\}", text):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
        ids = np.arange(np.prod(list(sizes.values()))).reshape(list(sizes.values()))
        # 'axis':(m)k is k ways of an axis, below m others.
        named = re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", found[2])
        members = np.zeros(1, int)
        for name, above, ways in named:
            axis = list(sizes).index(name)
            line = np.moveaxis(ids, axis, 0).reshape(sizes[name], -1)[:, 0]
            if ways:
                line = line.reshape(int(above), int(ways), -1)[0, :, 0]
            members = (members[:, None] + line[None]).ravel()
        return tuple(members.tolist())
    return tuple(range(count))  # no groups named: all take part


def _sent(kind: str, around: Computation, instruction: Instruction, ways: int) -> float:
    taken = sum(
        leaf.bytes
        for name in instruction.operands
        if name in around
        for leaf in around[name].leaves
    )
    if kind == "collective-permute":
        return float(taken)
    share = (ways - 1) / ways
    return taken * share * {"all-gather": ways, "all-reduce": 2}.get(kind, 1)


def _keeps_a_slice(around: Computation, instruction: Instruction) -> bool:
    """TPU compilers write a reduce-scatter as an all-reduce fused with a slice of its result."""
    if instruction.opcode != "all-reduce" or any(x.opcode == "while" for x in around.values()):
        return False
    users = [x for x in around.values() if instruction.name in x.operands]
    return len(users) == 1 and users[0].opcode == "dynamic-slice" and users[0].root
