"""Mutants that know a format: opcodes of pickles, fields of JSON, headers of arrays in .npz."""

import ast
import functools
import io
import json
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable

import numpy as np

NUMBERS = [-1, 0, 1, 2, 3, 7, 2**16, 2**31 - 1, 2**31, 2**40, 2**62, 2**63, -(2**63), 2**2000]
NUMBERS += [1e308, -0.5, float("inf"), float("nan")]
NAMES = ["", "x" * 2000, "é\x1b[2J\n", "../../x", "<script>|`", "\udc80", ".conv" * 500]
JSON = [None, True, [], {}, [[]], [[[]] * 9] * 9, *NUMBERS, *NAMES[:5], NAMES[6]]


def pick(rng: np.random.Generator, values):
    return values[int(rng.integers(len(values)))]


def shared(levels: int) -> bytes:
    """Opcodes of a tuple of itself twice, so many times over: 2^levels to whoever walks it."""
    return b")q\xf0" + b"h\xf0h\xf0\x86q\xf0" * levels


def value(rng: np.random.Generator) -> bytes:
    """Opcodes that push something: plain, nested deep, shared, huge, a name, a call."""
    match int(rng.integers(12)):
        case 0:
            return b")" + b"\x85" * int(
                rng.choice([2, 60, 2_000, 120_000], p=[0.5, 0.3, 0.19, 0.01])
            )
        case 1:
            return shared(int(rng.choice([3, 40, 200])))
        case 2:
            return b"]q\xf1h\xf1a"  # a list in itself
        case 3:
            number = pick(rng, [n for n in NUMBERS if isinstance(n, int)])
            data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8b" + struct.pack("<i", len(data)) + data
        case 4:
            return b"G" + struct.pack(">d", float(pick(rng, [0.5, -1.0, np.inf, np.nan, 1e300])))
        case 5:
            data = pick(rng, NAMES[:5] + NAMES[6:]).encode()
            return b"X" + struct.pack("<I", len(data)) + data
        case 6:
            return pick(rng, [b"N", b"\x88", b"\x89", b")", b"]", b"}", b"\x8f", b"(K\x01K\x02t"])
        case 7:
            return pick(rng, [b"ctorch\nFloatStorage\n", b"cnumpy\ndtype\n", b"cos\nsystem\n"])
        case 8:
            return shared(40) + b"X\x01\x00\x00\x00x\x93"  # a name out of no text
        case 9:
            return b"ctorch._utils\n_rebuild_tensor_v2\n" + value(rng) + b"\x85R"
        case 10:
            return b"K" + bytes([int(rng.integers(256))])
        case _:
            return b"h" + bytes([int(rng.integers(40))])


def pickle(data: bytes, rng: np.random.Generator) -> bytes:
    """A pickle of which one to three opcodes are others, gone, doubled, moved or preceded."""
    try:
        begins = [place for _, _, place in pickletools.genops(data)]
    except ValueError:
        return data
    end = begins[-1] + 1
    parts = [data[a:b] for a, b in zip(begins, [*begins[1:], end], strict=True)]
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(parts)))
        match int(rng.integers(6)):
            case 0 | 1:
                parts[at] = value(rng)
            case 2:
                parts.insert(at, value(rng))
            case 3:
                parts[at] = b"" if len(parts) > 1 else parts[at]
            case 4:
                parts[at] = parts[at] * int(rng.choice([2, 50]))
            case 5:
                other = int(rng.integers(len(parts)))
                parts[at], parts[other] = parts[other], parts[at]
    return b"".join(parts) + data[end:]


def tree(found, rng: np.random.Generator):
    """A value of JSON with one part of it another, gone, or under another name."""
    if isinstance(found, dict) and found and rng.integers(4):
        name = pick(rng, list(found))
        found = dict(found)
        match int(rng.integers(4)):
            case 0:
                del found[name]
            case 1:
                found[pick(rng, NAMES[:5] + NAMES[6:])] = found.pop(name)
            case _:
                found[name] = tree(found[name], rng)
        return found
    if isinstance(found, list) and found and rng.integers(3):
        at = int(rng.integers(len(found)))
        return [*found[:at], tree(found[at], rng), *found[at + 1 :]]
    return pick(rng, JSON)


def text(found, rng: np.random.Generator) -> bytes:
    """JSON of a mutant of a value; sometimes nested deep, or of a number without an end."""
    match int(rng.integers(20)):
        case 0:
            return b"[" * int(rng.choice([100, 5_000, 200_000]))
        case 1:
            return json.dumps(found).replace("1", "1" * 5_000, 1).encode()
    return json.dumps(tree(found, rng)).encode()


def npy(data: bytes, rng: np.random.Generator) -> bytes:
    """An .npy whose header says another shape, type or order, or whose numbers are others."""
    length = int.from_bytes(data[8:10], "little")
    said, numbers = ast.literal_eval(data[10 : 10 + length].decode()), data[10 + length :]
    match int(rng.integers(6)):
        case 0:
            said["shape"] = pick(
                rng,
                [(), (0,), (1,), (-1,), (2**31,), (2**62, 4), (2**63,), (1,) * 40, (1.0,), (True,)],
            )
        case 1:
            said["shape"] = tuple(int(n) + int(rng.integers(-1, 2)) for n in said["shape"])
        case 2:
            kinds = ["|O", "<f8", ">f4", "<i2", "<u8", "<U0", "<U9", "<U99999999", "|V4", "<M8[s]"]
            kinds += ["|S4", "<c8", "<f2", "|b1", "(2,)<f4", "<f16", [("a", "<f4")], "\x00", "<U1"]
            said["descr"] = pick(rng, kinds)
        case 3:
            numbers = numbers[: int(rng.integers(len(numbers) + 1))] + bytes(int(rng.integers(9)))
        case 4:
            size = int(rng.choice([1, 2, 4, 8]))
            word = pick(rng, [b"\xff" * 8, b"\0" * 8, struct.pack("<d", np.inf), b"\0\xd8\0\0" * 2])
            numbers = word[:size] * (len(numbers) // size)
        case 5:
            name = pick(rng, list(said))
            said[pick(rng, ["x", name + "\0"])] = said.pop(name)
    header = repr(said)
    if not rng.integers(10):
        header = pick(rng, ["(" * 9_000, "\\d", "{" + "'shape': (1,), " * 600 + "}", header * 2])
    header = header.encode("utf-8", "surrogateescape") + b"\n"
    return data[:8] + struct.pack("<H", len(header) % 65536) + header + numbers


def archive(data: bytes, rng: np.random.Generator, change: Callable) -> bytes:
    """A zip of which `change` made one record another, or that lacks one or has one more."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        records = {name: file.read(name) for name in file.namelist()}
        packed = {entry.filename: entry.compress_type for entry in file.infolist()}
    # The first twice as often: a pickle, or codes.
    name = pick(rng, [next(iter(records)), *records])
    method = packed[name]
    match int(rng.integers(12)):
        case 0:
            del records[name]
        case 1:
            records[pick(rng, ["x.npy", "../x", "archive/data/9", "codes.npy"])] = records[name]
        case 2:
            method = pick(rng, [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
        case _:
            records[name] = change(name, records[name], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for each, content in records.items():
            kind = method if each == name else packed.get(each, zipfile.ZIP_STORED)
            file.writestr(each, content, kind)
    return out.getvalue()


def npz(data: bytes, rng: np.random.Generator) -> bytes:
    """An .npz with one array other; one in two hundred with zeros that deflate a thousandfold."""
    if not rng.integers(200):
        name = pick(rng, ["codes.npy", "lengths.npy", "a.npy"])
        return bomb(data, name, pick(rng, [8, 64]))
    return archive(data, rng, lambda name, content, rng: npy(content, rng))


@functools.cache
def bomb(data: bytes, name: str, mebibytes: int) -> bytes:
    """An .npz with one more array, of so many zeros."""
    out, head = io.BytesIO(data), io.BytesIO()
    said = {"descr": "|u1", "fortran_order": False, "shape": (2, mebibytes << 19)}
    np.lib.format.write_array_header_1_0(head, said)
    with warnings.catch_warnings(), zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as file:
        warnings.simplefilter("ignore")  # Of a name that is there: it counts instead.
        with file.open(name, "w") as record:
            record.write(head.getvalue())
            for _ in range(mebibytes):
                record.write(bytes(1 << 20))
    return out.getvalue()
