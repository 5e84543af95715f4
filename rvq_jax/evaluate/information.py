"""How much codes tell of each other: what an interleaving pattern can gain or lose."""

from collections.abc import Sequence

import numpy as np

from rvq_jax.typing import Array


def between_levels(codes: Sequence[Array], size: int) -> np.ndarray:
    """Mutual information in bits between levels of the same frame, `[K, K]`; entropies on the
    diagonal. Records are `[K, F]`."""
    every = np.concatenate([np.asarray(x) for x in codes], axis=1)
    levels = every.shape[0]
    table = np.zeros((levels, levels))
    for i in range(levels):
        for j in range(i, levels):
            table[i, j] = table[j, i] = mutual_information(every[i], every[j], size)
    return table


def between_lags(codes: Sequence[Array], size: int, lags: int = 8) -> np.ndarray:
    """Mutual information in bits of each level with itself 1 … `lags` frames later, `[K, lags]`."""
    levels = codes[0].shape[0]
    table = np.zeros((levels, lags))
    for lag in range(1, lags + 1):
        long = [np.asarray(x) for x in codes if x.shape[1] > lag]
        if long:
            early = np.concatenate([x[:, :-lag] for x in long], axis=1)
            late = np.concatenate([x[:, lag:] for x in long], axis=1)
            for k in range(levels):
                table[k, lag - 1] = mutual_information(early[k], late[k], size)
    return table


def mutual_information(a_M: Array, b_M: Array, size: int, shuffles: int = 4) -> float:
    """Mutual information in bits of two code sequences, at least 0.

    The plug-in estimate of N² cells from M pairs is far too high when M is not much larger than
    N²; what it says of the same codes in shuffled pairs, which share nothing, is subtracted. Equal
    sequences are an exception: their information is their entropy and needs no correction.
    """
    if np.array_equal(a_M, b_M):
        return _entropy(np.bincount(a_M, minlength=size))
    rng = np.random.default_rng(0)
    bias = np.mean([_plug_in(a_M, rng.permutation(b_M), size) for _ in range(shuffles)])
    return float(max(0.0, _plug_in(a_M, b_M, size) - bias))


def _plug_in(a_M: Array, b_M: Array, size: int) -> float:
    joint = np.bincount(a_M.astype(np.int64) * size + b_M, minlength=size * size)
    joint = joint.reshape(size, size)
    return _entropy(joint.sum(1)) + _entropy(joint.sum(0)) - _entropy(joint.ravel())


def _entropy(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())
