"""Entropy coding, one byte stream per level: any prefix of the levels decodes without the rest.

Asymmetric numeral systems (Duda 2013, arXiv:1311.2540) over bits with chances from `contexts`, all
levels in lockstep. A level that this does not make smaller is packed instead, and so is one that it
makes smaller than `is_legal` allows: what a file takes to decode is bounded by its bytes.
"""

from collections.abc import Sequence

import numpy as np

from rvq_jax.rvqfile import bits
from rvq_jax.rvqfile.contexts import ONE, walk

WORD = 16  # bits that a state gives away, or takes, at once
LEAST = 1 << WORD  # of a state, which stays below 2^32
# Bits of codes that any plane may hold, and that a byte may: a bit takes a step of the walk.
ALWAYS, PER_BYTE = 18_000, 1024
HEAD, NARROWEST = 8, 8  # bytes of a plane's place in a head; bits that a code counts for at least


def is_legal(length: int, size: int, frames: int) -> bool:
    """Whether a plane of `length` bytes may hold `frames` codes of `size`.

    Constant codes become a few bytes, however many they are, and a file could ask for hours of work
    with a hundred. A plane holds 18,000 bits of codes (1,800 frames of 1024 codes), or 1,024 for
    each of its bytes, those of its place in the segment's head counted; a code has 8 at least.
    """
    return frames * max(NARROWEST, bits.width(size)) <= max(ALWAYS, PER_BYTE * (length + HEAD))


def encode(codes_KF: np.ndarray, sizes: Sequence[int]) -> list[bytes]:
    """K planes, of codes `[K, F]` in [0, sizes[k]); none is longer than the packed codes."""
    widths = [bits.width(size) for size in sizes]
    packed = [bits.pack(codes_F, width) for codes_F, width in zip(codes_KF, widths, strict=True)]
    bit_TWK = _delayed(codes_KF)[:, None] >> np.arange(max(widths))[:, None] & 1
    chance_TWK = np.zeros(bit_TWK.shape, np.int64)

    def choose(chance_K, step, shift):
        chance_TWK[step, shift] = chance_K
        return bit_TWK[step, shift]

    walk(sizes, codes_KF.shape[1], choose)
    # In the order of the walk: from the most significant bit down.
    in_order = [x[:, ::-1].reshape(-1, len(sizes)) for x in (bit_TWK, chance_TWK)]
    return [
        coded
        if len(coded) < len(plain) and is_legal(len(coded), size, codes_KF.shape[1])
        else plain
        for plain, coded, size in zip(packed, _streams(*in_order), sizes, strict=True)
    ]


def decode(planes: Sequence[bytes], sizes: Sequence[int], frames: int) -> np.ndarray:
    """Codes `[K, F]` int32 of the planes of the first K levels; ValueError if they are damaged."""
    levels = len(planes)
    codes_KF = np.zeros((levels, frames), np.int32)
    streams = [LEAST.to_bytes(4, "little")] * levels  # of a packed level: it says nothing
    is_coded_K = np.zeros(levels, bool)
    for k, (plane, size) in enumerate(zip(planes, sizes, strict=True)):
        width = bits.width(size)
        is_coded_K[k] = len(plane) < bits.length(frames, width)
        if is_coded_K[k]:
            streams[k] = plane
        else:
            codes_KF[k] = bits.unpack(plane, width, frames)
        if (codes_KF[k] >= size).any():
            raise ValueError("a code beyond its size")
    if not is_coded_K.any():
        return codes_KF
    if any(len(stream) < 4 or len(stream) % 2 for stream in streams):
        raise ValueError("no whole words")
    lengths = np.array([len(stream) // 2 for stream in streams])
    words = np.frombuffer(b"".join(streams), "<u2").astype(np.int64)
    end_K = np.cumsum(lengths)
    at_K = end_K - lengths + 2
    state_K = words[at_K - 2] | words[at_K - 1] << WORD
    packed_TK = _delayed(codes_KF)

    def choose(chance_K, step, shift):
        nonlocal state_K, at_K
        chance_K = chance_K * is_coded_K
        low_K = state_K & (ONE - 1)
        bit_K = low_K < chance_K
        share_K = np.where(bit_K, chance_K, ONE - chance_K)
        state_K = share_K * (state_K >> WORD) + low_K - np.where(bit_K, 0, chance_K)
        takes_K = state_K < LEAST
        word_K = words[np.minimum(at_K, len(words) - 1)]
        state_K = np.where(takes_K, state_K << WORD | word_K, state_K)
        at_K = at_K + takes_K
        return bit_K | packed_TK[step] >> shift & 1

    codes_KF = walk(sizes, frames, choose)
    if (state_K != LEAST).any() or (at_K != end_K).any():
        raise ValueError("a stream that does not end where it should")
    return codes_KF


def _streams(bit_MK: np.ndarray, chance_MK: np.ndarray) -> list[bytes]:
    """The K streams of M bits each: the last state, then words in the order they are taken."""
    share_MK = np.where(bit_MK, chance_MK, ONE - chance_MK)
    start_MK = np.where(bit_MK, 0, chance_MK)
    limit_MK = share_MK << WORD
    word_MK = np.zeros(bit_MK.shape, "<u2")
    gives_MK = np.zeros(bit_MK.shape, bool)
    state_K = np.full(bit_MK.shape[1], LEAST, np.int64)
    # What is put on last is taken off first.
    for m in range(len(bit_MK) - 1, -1, -1):
        gives_K = state_K >= limit_MK[m]
        gives_MK[m], word_MK[m] = gives_K, state_K & (LEAST - 1)
        high_K, low_K = np.divmod(np.where(gives_K, state_K >> WORD, state_K), share_MK[m])
        state_K = (high_K << WORD) + low_K + start_MK[m]
    return [
        int(state).to_bytes(4, "little") + word_M[gives_M].tobytes()
        for state, word_M, gives_M in zip(state_K, word_MK.T, gives_MK.T, strict=True)
    ]


def _delayed(codes_KF: np.ndarray) -> np.ndarray:
    """Codes `[T, K]` int64 in the order of the walk: level k is k steps late; zeros around."""
    levels, frames = codes_KF.shape
    codes_TK = np.zeros((frames + levels - 1, levels), np.int64)
    for k in range(levels):
        codes_TK[k : k + frames, k] = codes_KF[k]
    return codes_TK
