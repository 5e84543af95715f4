"""Pickles read as data: the opcodes are followed here, so nothing is ever imported or called."""

import dataclasses
import pickletools
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import BinaryIO

from rvq_jax.errors import shown

VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# Opcodes that push what stands behind them in the file.
LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
# Bounds the seconds and the memory: a state dict of ten thousand tensors has 350,000, and
# an opcode of one byte makes a set of 216.
MOST_OPCODES = 1 << 19
# Below 2^61 - 1 numbers are their own hash; above, a file could choose a million with the same.
LARGEST_KEY = 1 << 60


@dataclasses.dataclass(eq=False, repr=False)
class Foreign:
    """What stands for a class, a function, an object or a call: its name and what it was given."""

    name: str
    args: tuple = ()
    state: object = None
    items: list = dataclasses.field(default_factory=list)


def load(
    stream: BinaryIO,
    call: Callable[[str, tuple], object] = Foreign,
    persistent: Callable[[object], object] | None = None,
):
    """The value of the pickle (protocol 2 to 5) at a stream's position, which moves behind it.

    `call(name, args)` gives what an object or a call of that name becomes, `persistent(id)` what
    stands outside the pickle. Whatever nests in the value or is shared in it, reading takes time
    and memory by the pickle's bytes; what comes of it must be checked before it is hashed,
    compared, copied or formatted. Raises one of `errors.READING`. The stream should be one of
    bytes in memory, where a length that promises more than there is costs nothing.
    """
    with warnings.catch_warnings():
        # Where a name is damaged, pickletools may warn of odd escapes in it.
        warnings.simplefilter("ignore")
        return _load(stream, call, persistent)


def _load(stream: BinaryIO, call: Callable, persistent: Callable | None):
    stack, marks, memo = [], [], {}

    def above_mark() -> list:
        start = marks.pop()
        if start > len(stack):
            raise ValueError("a mark above the stack")
        values = stack[start:]
        del stack[start:]
        return values

    for count, (opcode, arg, _) in enumerate(pickletools.genops(stream)):
        name = opcode.name
        if count == MOST_OPCODES:
            raise ValueError(f"a pickle of more than {MOST_OPCODES} opcodes")
        if name in LITERALS:
            stack.append(arg)
        elif name in VALUES:
            stack.append(VALUES[name])
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name in TUPLES:
            values = [stack.pop() for _ in range(TUPLES[name])]
            stack.append(tuple(reversed(values)))
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(above_mark()))
        elif name == "FROZENSET":
            stack.append(frozenset(_flat(above_mark())))
        elif name in ("APPENDS", "ADDITEMS"):
            values = above_mark()
            _extend(stack[-1], values)
        elif name == "APPEND":
            value = stack.pop()
            _extend(stack[-1], [value])
        elif name == "SETITEMS":
            values = above_mark()
            _update(stack[-1], zip(values[::2], values[1::2], strict=True))
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _update(stack[-1], [(key, value)])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[arg] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[arg])
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            above_mark()
        elif name == "GLOBAL":
            stack.append(_name(*arg.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_name(module, attribute))
        elif name in ("REDUCE", "NEWOBJ"):
            args, function = stack.pop(), stack.pop()
            if not (isinstance(function, Foreign) and isinstance(args, tuple)):
                raise ValueError("a call of what is no function")
            stack.append(call(function.name, args))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Foreign):
                stack[-1].state = state
            # A state dict is an OrderedDict with attributes of no interest.
            elif not isinstance(stack[-1], OrderedDict):
                raise ValueError(f"a state for a {type(stack[-1]).__name__}")
        elif name == "BINPERSID" and persistent is not None:
            stack.append(persistent(stack.pop()))
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"pickle opcode {name} is not read")
    return stack.pop()


def _name(module, attribute) -> Foreign:
    """One that messages can hold in their line."""
    if not all(isinstance(part, str) and part.isprintable() for part in (module, attribute)):
        raise ValueError(f"the name {shown((module, attribute))}")
    return Foreign(f"{module}.{attribute}")


def _extend(target, values: list) -> None:
    if isinstance(target, Foreign):
        target.items.extend(values)
    elif isinstance(target, set):
        target.update(_flat(values))
    elif isinstance(target, list):
        target.extend(values)
    else:
        raise ValueError(f"items for a {type(target).__name__}")


def _update(target, pairs) -> None:
    if isinstance(target, Foreign):
        target.items.extend(pairs)
    elif isinstance(target, dict):
        pairs = list(pairs)
        _flat(key for key, _ in pairs)
        target.update(pairs)
    else:
        raise ValueError(f"keys for a {type(target).__name__}")


def _flat(values) -> list:
    """Values to be hashed: tuples in tuples, deep enough, would overflow Python's own stack."""
    values = list(values)
    for value in values:
        if not isinstance(value, str | bytes | int | float | None):
            raise ValueError(f"a {type(value).__name__} as a key")
        if isinstance(value, int) and not -LARGEST_KEY < value < LARGEST_KEY:
            raise ValueError(f"{shown(value)} as a key")
    return values
