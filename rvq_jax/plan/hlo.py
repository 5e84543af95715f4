"""Reading the text of a compiled program: its instructions, and how often each one runs."""

import functools
import re
from collections import Counter, defaultdict
from typing import NamedTuple

# Bytes of an element; types XLA adds later are told from the digits in their name.
SIZES = {"pred": 1, "token": 0, "opaque": 0, "c64": 8, "c128": 16, "s4": 0.5, "u4": 0.5}
LEAF = re.compile(r"([a-z][a-z0-9]*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
# Tables of source places before the program, and rows of theirs.
TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")
ROW = re.compile(r'^\d+ ["{]')
HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
END = re.compile(r'^\}(, execution_thread="[^"]*")?$')
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
START = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
NAME = re.compile(r"%([\w.\-]+)")
OPCODE = re.compile(r"^[a-z][a-z0-9\-]*$")
PARENTHESIS = re.compile(r"[()]")
CALLEES = re.compile(
    r"(calls|body|condition|to_apply|branch_computations|true_computation|false_computation|"
    r"called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
# A reduction's little sum is part of the reduction, not a computation that runs by itself.
CALLERS = ("fusion", "while", "call", "conditional", "async-start", "custom-call")

COPIES = ("copy", "bitcast", "convert", "copy-done", "copy-start")


class Leaf(NamedTuple):
    """An array: its type, its sizes, and the memory it lies in (0 is the chip's HBM)."""

    dtype: str
    shape: tuple[int, ...]
    space: int

    @property
    def bytes(self) -> float:
        count = 1
        for size in self.shape:
            count *= size
        return count * element_bytes(self.dtype)


class Instruction(NamedTuple):
    """One line: what it makes, how, and of what."""

    name: str
    leaves: tuple[Leaf, ...]  # of its result, tuples flattened
    opcode: str
    operands: tuple[str, ...]
    text: str  # between its parentheses
    attributes: str
    root: bool

    def attribute(self, name: str) -> str | None:
        """The value of an attribute that is a word, or stands in braces."""
        found = re.search(rf"\b{name}=(\{{[^}}]*\}}|[^\s,]+)", self.attributes)
        return found[1] if found else None

    def callees(self) -> list[tuple[str, str]]:
        """(kind, name) of the computations that it runs."""
        if self.opcode not in CALLERS:
            return []
        return [
            (kind, name)
            for kind, names in CALLEES.findall(self.attributes)
            for name in re.findall(r"[\w.\-]+", names)
        ]


Computation = dict[str, Instruction]  # by name, in order


class Module(NamedTuple):
    """A compiled program."""

    computations: dict[str, Computation]
    entry: str
    spread: int  # partitions


@functools.cache
def element_bytes(dtype: str) -> float:
    """Bytes of an element of a type, by XLA's name for it."""
    if dtype in SIZES:
        return SIZES[dtype]
    bits = re.match(r"[a-z]+(\d+)", dtype)
    return int(bits[1]) / 8 if bits else 0


def parse(text: str) -> Module:
    """A module from `compiled.as_text()`.

    Every line is read or refused, and so is a computation that is called and not there: what is
    lost without a word would count as nothing.

    Raises:
      ValueError: a line or a call that is not understood, or no program.
    """
    computations: dict[str, Computation] = {}
    entry, here, spread = "", None, 1
    for number, line, bare in _lines(text):
        if here is None and (head := HEAD.match(bare)):
            if head[2] in computations:
                raise ValueError(f"line {number}: a second computation {head[2]}")
            here = computations[head[2]] = {}
            entry = head[2] if head[1] else entry
        elif here is None:
            if line.startswith("HloModule"):
                found = re.search(r"num_partitions=(\d+)", bare)
                spread = int(found[1]) if found else 1
            elif line.strip() and line not in TABLES and not ROW.match(line):
                raise ValueError(f"line {number} is not understood: {line[:80]!r}")
        elif END.match(line):
            here = None
        elif line.strip():
            instruction = _instruction(number, line, bare)
            if instruction.name in here:
                raise ValueError(f"line {number}: a second instruction {instruction.name}")
            here[instruction.name] = instruction
    if here is not None:
        raise ValueError("the text ends inside of a computation")
    if not entry:
        raise ValueError("this is not the text of a compiled program")
    for computation in computations.values():
        for instruction in computation.values():
            for _, name in instruction.callees():
                if name not in computations:
                    raise ValueError(f"{instruction.name} calls {name}, which is not there")
    return Module(computations, entry, spread)


def _lines(text: str):
    """(number, line, the same with all quotations blank); a line whose braces stay open goes on
    on the next, as those of kernels do, but for the one that opens a computation."""
    began, kept, blank = 0, "", ""
    for number, line in enumerate(text.splitlines(), 1):
        bare = QUOTED.sub(lambda x: '"' + "_" * len(x[1]) + '"', line) if '"' in line else line
        began = began if kept else number
        kept, blank = (kept + line, blank + bare) if kept else (line, bare)
        opened = blank.count("{") - blank.count("}")
        if opened > 0 and not HEAD.match(blank):
            if began < number and START.match(line):
                raise ValueError(f"line {began} has braces that do not close: {kept[:80]!r}")
            continue
        yield began, kept, blank
        kept = blank = ""
    if kept:
        raise ValueError(f"line {began} has braces that do not close: {kept[:80]!r}")


def _instruction(number: int, line: str, bare: str) -> Instruction:
    try:
        start = START.match(bare)
        begin = start.end()
        end = _closing(bare, begin) if bare[begin] == "(" else bare.index(" ", begin)
        open_at = bare.index("(", end)
        close = _closing(bare, open_at)
        opcode, inside = bare[end:open_at].strip(), line[open_at + 1 : close - 1]
        if not OPCODE.match(opcode):
            raise ValueError
    except (AttributeError, IndexError, ValueError) as error:
        raise ValueError(f"line {number} is not understood: {line.strip()[:80]!r}") from error
    return Instruction(
        start[2],
        leaves(line[begin:end]),
        opcode,
        tuple(NAME.findall(inside)),
        inside,
        line[close:],
        bool(start[1]),
    )


def _closing(text: str, start: int) -> int:
    """The place after the parenthesis that closes the one at `start`."""
    depth = 0
    for found in PARENTHESIS.finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return found.end()
    raise ValueError(f"unbalanced: {text[:80]}")


def leaves(kind: str) -> tuple[Leaf, ...]:
    """The arrays of a type as XLA writes it."""
    found = []
    for dtype, shape, layout in LEAF.findall(kind):
        sizes = tuple(int(size.lstrip("<=")) for size in shape.split(",") if size)
        space = re.search(r"S\((\d+)\)", layout)
        found.append(Leaf(dtype, sizes, int(space[1]) if space else 0))
    return tuple(found)


class Run(NamedTuple):
    """How often a computation runs in one call of the program."""

    times: float
    fused: bool  # inside of one instruction: its arrays are in no memory of their own


def runs(module: Module, unknown: int = 1) -> tuple[dict[str, Run], int]:
    """How often each computation runs, loops counted out, and how many loops could not be.

    Those run `unknown` times: until a condition that the text does not settle.
    """
    order, seen = [], set()

    def visit(name):
        if name in seen:
            return
        seen.add(name)
        for instruction in module.computations[name].values():
            for _, callee in instruction.callees():
                visit(callee)
        order.append(name)

    visit(module.entry)
    times: Counter = Counter({module.entry: 1})
    fused = defaultdict(bool)
    lost = 0
    for name in reversed(order):
        for instruction in module.computations[name].values():
            factor = 1
            if instruction.opcode == "while":
                factor = trips(module, module.computations[name], instruction)
                lost += factor is None
                factor = unknown if factor is None else factor
            if instruction.opcode == "conditional":
                # Each of its branches as often, as far as the text tells.
                factor = 1 / sum(kind != "calls" for kind, _ in instruction.callees())
            for _, callee in instruction.callees():
                times[callee] += times[name] * factor
                fused[callee] |= fused[name] or instruction.opcode == "fusion"
    return {name: Run(times[name], fused[name]) for name in order}, lost


def trips(module: Module, around: Computation, loop: Instruction) -> int | None:
    """How often the body of a while runs: as XLA notes it, or read off its condition.

    None if neither tells: conditions other than a counter below a constant are not read.
    """
    noted = re.search(r'"known_trip_count":\s*\{"n":\s*"(\d+)"', loop.attributes)
    if noted:
        return int(noted[1])
    called = dict(loop.callees())
    condition = module.computations.get(called.get("condition", ""), {})
    body = module.computations.get(called.get("body", ""), {})
    compare, operands = _seen_through(module, condition, _root(condition))
    if compare is None or compare.opcode != "compare":
        return None
    direction = compare.attribute("direction")
    begins = around.get(loop.operands[0])

    def value(at: Instruction | None, depth: int = 0) -> tuple[int | None, int | None]:
        """A constant, or what a counter starts from; and the counter's place in what is carried."""
        if at is None or depth > 4:
            return None, None
        if at.opcode == "get-tuple-element" and begins is not None:
            place = int(at.attribute("index"))
            if begins.opcode != "tuple" or place >= len(begins.operands):
                return None, place
            return _constant(around, around.get(begins.operands[place])), place
        if at.opcode in COPIES:
            return value(condition.get(at.operands[0]), depth + 1)
        return _constant(condition, at), None

    (a, place), (b, _) = map(value, operands)
    if a is None or b is None or place is None or direction not in ("LT", "NE", "LE"):
        return None
    turns = max(0, b - a + (direction == "LE"))
    return -(-turns // _stride(module, body, place))


def _stride(module: Module, body: Computation, place: int) -> int:
    """What a turn adds to the counter: 1, or more where XLA made one turn of several."""
    root = _root(body)
    if root is None or root.opcode != "tuple" or place >= len(root.operands):
        return 1
    add, operands = _seen_through(module, body, body.get(root.operands[place]))
    if add is None or add.opcode != "add":
        return 1
    added = [_constant(body, at) for at in operands]
    return max([1, *(one for one in added if one is not None)])


def _root(computation: Computation) -> Instruction | None:
    return next((x for x in computation.values() if x.root), None)


def _seen_through(
    module: Module, around: Computation, at: Instruction | None
) -> tuple[Instruction | None, list[Instruction | None]]:
    """What an instruction does in the end and to what: a fusion is what its root is."""
    if at is None:
        return None, []
    if at.opcode != "fusion":
        return at, [around.get(name) for name in at.operands]
    inner = module.computations.get(dict(at.callees()).get("calls", ""), {})
    root = _root(inner)
    operands = [inner.get(name) for name in root.operands] if root else []
    return root, [
        around.get(at.operands[int(x.text)]) if x is not None and x.opcode == "parameter" else x
        for x in operands
    ]


def _constant(around: Computation, at: Instruction | None) -> int | None:
    """The integer that an instruction stands for, seen through copies."""
    for _ in range(8):
        if at is None:
            return None
        if at.opcode == "constant":
            return int(at.text) if re.fullmatch(r"-?\d+", at.text) else None
        if at.opcode not in COPIES:
            return None
        at = around.get(at.operands[0])
    return None
