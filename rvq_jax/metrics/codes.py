"""How codes are used."""

from collections.abc import Sequence

import numpy as np

from rvq_jax.typing import Array

ENOUGH = 10  # frames for each of N codes, for an entropy to be told


def code_counts(
    codes: Array | Sequence[Array], size: int, mask: Array | Sequence[Array] | None = None
) -> np.ndarray:
    """How often each code occurs, `[K, N]`, in codes `[..., K, F]` or records of `[K, F]`.

    mask: bool `[..., F]`, or one `[F]` per record; true where frames count. Raises ValueError if
    a code that counts is not in [0, N).
    """
    every = joined(codes, mask)
    check_range(every, size)
    return np.stack([np.bincount(row, minlength=size) for row in every])


def check_range(codes: np.ndarray, size: int) -> None:
    """Raises ValueError unless codes are in [0, N)."""
    if codes.size and not 0 <= codes.min() <= codes.max() < size:
        raise ValueError(f"codes must be in [0, {size}), got {codes.min()}..{codes.max()}")


def code_use(
    codes: Array | Sequence[Array], size: int, mask: Array | Sequence[Array] | None = None
) -> list[dict]:
    """How each level uses its codes, as `count_use` says it. As `code_counts`."""
    return count_use(code_counts(codes, size, mask))


def count_use(counts_KN: Array) -> list[dict]:
    """How each level uses its codes, from how often each occurs `[K, N]`: counts of files add up.

    Per level: `use`, the share of its N codes that occur; `entropy_bits`, of how often each does;
    `perplexity`, 2 to that power, the effective number of codes; `efficiency`, that entropy over
    the log2 N bits that a code takes, None for fewer than 10 N frames, from which the entropy comes
    out too low; `frames`, that were counted.
    """
    rows = []
    for counts in np.asarray(counts_KN):
        frames, size = int(counts.sum()), len(counts)
        share = counts[counts > 0] / max(1, frames)
        entropy = float(-(share * np.log2(share)).sum()) + 0.0  # never -0.0
        rows.append(
            {
                "use": float((counts > 0).mean()),
                "entropy_bits": entropy,
                "perplexity": 2.0**entropy,
                "efficiency": entropy / float(np.log2(size)) if frames >= ENOUGH * size else None,
                "frames": frames,
            }
        )
    return rows


def joined(
    codes: Array | Sequence[Array], mask: Array | Sequence[Array] | None = None
) -> np.ndarray:
    """All frames that count, one record after another, `[K, M]`; arguments of `code_counts`."""
    if hasattr(codes, "ndim"):
        codes = np.asarray(codes).reshape(-1, *codes.shape[-2:])
        mask = None if mask is None else np.asarray(mask).reshape(-1, codes.shape[-1])
    records = [np.asarray(record) for record in codes]
    if mask is not None:
        records = [x[:, np.asarray(m, bool)] for x, m in zip(records, mask, strict=True)]
    return np.concatenate(records, axis=1)
