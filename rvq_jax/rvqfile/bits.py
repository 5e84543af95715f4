"""Codes packed tight: `width` bits each, least significant bit first, as in EnCodec's files."""

import numpy as np

WIDEST = 32


def width(size: int) -> int:
    """Bits that hold every code of [0, size): the logarithm to base 2, rounded up."""
    return (size - 1).bit_length()


def length(count: int, width: int) -> int:
    """Bytes of `count` packed codes."""
    return -(-count * width // 8)


def pack(codes_M: np.ndarray, width: int) -> bytes:
    """`[M]` codes, each in [0, 2^width), as bytes; zeros fill the last one."""
    words_M = np.ascontiguousarray(codes_M, "<u4")
    bits = np.unpackbits(words_M.view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
    return np.packbits(bits[:, :width], bitorder="little").tobytes()


def unpack(data: bytes, width: int, count: int) -> np.ndarray:
    """`[count]` codes int32 from `length(count, width)` bytes; ValueError if there are fewer."""
    if len(data) < length(count, width):
        raise ValueError(f"{count} codes of {width} bits need more than {len(data)} bytes")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=count * width, bitorder="little")
    padded = np.zeros((count, WIDEST), np.uint8)
    padded[:, :width] = bits.reshape(count, width)
    return np.packbits(padded, axis=1, bitorder="little").view("<u4")[:, 0].astype(np.int32)
