"""How likely each bit of each code is, given the codes before it.

Contexts are mixed as in PAQ (Mahoney 2005, "Adaptive weighing of context models for lossless data
compression"): each keeps a probability for every node of the tree of codes, their logits are added
with weights, and both learn from the bit that came. Integers alone, so that every machine that
decodes finds what the one that encoded found.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from rvq_jax.rvqfile import bits

ONE = 1 << 16  # a certain chance, and a weight of one
UNIT, LARGEST = 256, 2047  # a logit of one, and the largest
FINE, COUNT = 22, 10  # bits of a cell: of its probability, and of the number of bits it saw
MOST = 255  # a cell counts no further, so that it forgets
WEIGHTS = (ONE // 2, ONE // 5, ONE // 5, ONE // 5)
SETS = 16  # of weights, by how many bits two of the cells saw: they deserve unlike trust
FAST, SLOW, HALF = 80, 6, 128  # rates of the weights, at first and at last; steps to the half
LOG_LARGEST = 16  # of a table: bounds the memory, whatever the sizes and the frames

Choose = Callable[[np.ndarray, int, int], np.ndarray]


def walk(sizes: Sequence[int], frames: int, choose: Choose) -> np.ndarray:
    """Codes `[K, F]` int32 of the bits that `choose(chance_K, step, shift)` gives, `[K]` of 0 or 1.

    At step t level k is at frame t - k, so that the frame before and the level below in the same
    frame are known; what a level learns never depends on higher levels. A code's bits come from the
    most significant down, at `shift`. chance_K is that of a one in 1/65536; where it is 0 the bit
    must be 0: a one would lead out of [0, N), or the level is at no frame.
    """
    levels = len(sizes)
    chances, logits = _curves()
    shares = ONE // (np.arange(MOST + 1, dtype=np.int64) + 2)
    begin_CK, mask_CK, cells = _tables(sizes, frames)
    weights = np.repeat(np.array(WEIGHTS, np.int64)[:, None], levels * SETS, axis=1)
    set_K = np.arange(levels) * SETS
    slot_CK = np.zeros((len(WEIGHTS), levels), np.int64)
    seen_CK = np.zeros((2, levels), np.int64)  # 1 + the code before, 1 + the code below; 0: none
    codes_KT = np.zeros((levels, frames + levels - 1), np.int32)
    for step in range(frames + levels - 1):
        active = slice(max(0, step - frames + 1), min(levels, step + 1))
        limit_K = np.zeros(levels, np.int64)
        limit_K[active] = sizes[active]
        hash_CK = (seen_CK * 0x9E3779B1 & 0xFFFFFFFF) >> 7
        before_K = seen_CK[0] - 1
        code_K = np.zeros(levels, np.int64)
        rate = max(SLOW, FAST * HALF // (HALF + step))
        for shift in range(bits.width(max(sizes)) - 1, -1, -1):
            # The least code with this bit: it names the node, whatever the depth of the tree.
            node_K = code_K | (1 << shift)
            can_K = node_K < limit_K
            agrees_K = (before_K ^ code_K) >> (shift + 1) == 0
            slot_CK[0] = node_K
            slot_CK[1:3] = hash_CK + node_K * 0x2F35
            slot_CK[3] = 4 * shift + agrees_K * (2 + (before_K >> shift & 1))
            place_CK = (slot_CK & mask_CK) + begin_CK
            cell_CK = cells[place_CK].astype(np.int64)
            fine_CK, count_CK = cell_CK >> COUNT, cell_CK & ((1 << COUNT) - 1)
            logit_CK = logits[fine_CK >> (FINE - 12)]
            trust_CK = np.minimum(count_CK[1:3] >> 2, 3)
            which_K = set_K + trust_CK[0] * 4 + trust_CK[1]
            weight_CK = weights[:, which_K]
            mixed_K = (weight_CK * logit_CK).sum(0) >> 16
            chance_K = chances[np.minimum(np.maximum(mixed_K, -LARGEST), LARGEST) + LARGEST]
            bit_K = choose(chance_K * can_K, step, shift)
            error_K = (bit_K * ONE - chance_K) * (can_K * rate)
            weights[:, which_K] = weight_CK + ((logit_CK * error_K + (1 << 17)) >> 18)
            fine_CK += ((bit_K << FINE) - fine_CK) * (shares[count_CK] * can_K) >> 16
            cells[place_CK] = (fine_CK << COUNT) | np.minimum(count_CK + can_K, MOST)
            code_K |= bit_K << shift
        codes_KT[active, step] = code_K[active]
        seen_CK[0, active] = code_K[active] + 1
        seen_CK[1, 1:] = seen_CK[0, :-1]
    return np.stack([codes_KT[k, k : k + frames] for k in range(levels)])


def _tables(sizes: Sequence[int], frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first cell and the mask of every table `[C, K]`, and all cells, of no opinion.

    The contexts: the node alone; with the code before; with the code below (both hashed, with
    places for four times the bits to come); whether the bits agree with the code before.
    """
    logs = []
    for size in sizes:
        hashed = max(7, (4 * frames * bits.width(size)).bit_length())
        logs.append([bits.width(size), hashed, hashed, 7])
    table_CK = 1 << np.minimum(np.array(logs, np.int64), LOG_LARGEST).T
    begin_CK = np.cumsum(table_CK).reshape(table_CK.shape) - table_CK
    cells = np.full(table_CK.sum(), 1 << (FINE + COUNT - 1), np.uint32)
    return begin_CK, table_CK - 1, cells


@functools.cache
def _curves() -> tuple[np.ndarray, np.ndarray]:
    """Chances of all logits, and logits of 4096 chances, from the series of e in integers."""
    one = 1 << 64
    root, term, n = 0, one, 0
    while term:
        root, n = root + term, n + 1
        term //= UNIT * n
    powers = [one]
    for _ in range(LARGEST):
        powers.append(powers[-1] * root >> 64)
    rising = [ONE * power // (power + one) for power in powers]
    chances = np.array([ONE - chance for chance in rising[:0:-1]] + rising, np.int64)
    upper = np.searchsorted(rising, np.arange(ONE // 2 + 8, ONE, 16), side="right") - 1
    return chances, np.concatenate([-upper[::-1], upper]).astype(np.int64)
