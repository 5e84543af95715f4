"""What callers can get wrong, said in one line. Values are looked at outside of jit only."""

import jax
import jax.numpy as jnp
import numpy as np

from rvq_jax.typing import Array


def latents(latents_BFD: Array, dim: int) -> None:
    """Raises ValueError unless `[B, F, dim]`."""
    if latents_BFD.ndim != 3 or latents_BFD.shape[2] != dim:
        raise ValueError(f"latents must be [B, F, {dim}], got {list(latents_BFD.shape)}")


def vectors(vectors_MD: Array, dim: int) -> None:
    """Raises ValueError unless `[M, dim]` and finite."""
    if vectors_MD.ndim != 2 or vectors_MD.shape[1] != dim:
        raise ValueError(f"vectors must be [M, {dim}], got {list(vectors_MD.shape)}")
    finite(vectors_MD, "vectors")


def mask(mask_BF: Array | None, latents_BFD: Array) -> None:
    """Raises ValueError unless None or `[B, F]` as the latents are."""
    if mask_BF is not None and mask_BF.shape != latents_BFD.shape[:2]:
        raise ValueError(
            f"mask must be [B, F] = {list(latents_BFD.shape[:2])}, got {list(mask_BF.shape)}"
        )


def codes(codes_BKF: Array, levels: int, sizes: int | Array) -> None:
    """Raises ValueError unless `[B, 1..levels, F]` integers in [0, sizes), one size or [K]."""
    if codes_BKF.ndim != 3 or not jnp.issubdtype(codes_BKF.dtype, jnp.integer):
        raise ValueError(
            f"codes must be integers [B, K, F], got {codes_BKF.dtype} {list(codes_BKF.shape)}"
        )
    given = codes_BKF.shape[1]
    if not 1 <= given <= levels:
        raise ValueError(f"levels must be in 1..{levels}, got {given}")
    if _concrete(codes_BKF, sizes):
        codes_BKF = np.asarray(codes_BKF)
        limit_K = np.broadcast_to(np.asarray(sizes), (levels,))[:given]
        outside = (codes_BKF < 0) | (codes_BKF >= limit_K[None, :, None])
        if outside.any():
            level = int(outside.any(axis=(0, 2)).argmax())
            worst = codes_BKF[:, level][outside[:, level]][0]
            raise ValueError(
                f"codes of level {level + 1} must be in 0..{limit_K[level] - 1}, got {worst}"
            )


def finite(array: Array, name: str) -> None:
    """Raises ValueError for NaN or infinity."""
    if _concrete(array) and not np.isfinite(np.asarray(array)).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")


def _concrete(*arrays) -> bool:
    return not any(isinstance(x, jax.core.Tracer) for x in arrays)
