"""What callers can get wrong, said in one line. Values are looked at outside of jit only."""

import jax
import jax.numpy as jnp
import numpy as np

from rvq_jax.tracing import concrete
from rvq_jax.typing import Array


def array(x: Array, name: str) -> None:
    """Raises ValueError for what is no array of JAX or numpy, as a list or another library's."""
    if not isinstance(x, jax.Array | np.ndarray):
        kind = f"{type(x).__module__}.{type(x).__name__}".removeprefix("builtins.")
        raise ValueError(f"{name} must be a JAX or numpy array, got {kind}: use numpy.asarray")


def latents(latents_BFD: Array, dim: int) -> None:
    """Raises ValueError unless a float array `[B, F, dim]` with at least one frame."""
    _floats(latents_BFD, "latents")
    if latents_BFD.ndim != 3 or latents_BFD.shape[2] != dim:
        raise ValueError(f"latents must be [B, F, {dim}], got {list(latents_BFD.shape)}")
    _some(latents_BFD, "latents")


def vectors(vectors_MD: Array, dim: int) -> None:
    """Raises ValueError unless a float array `[M, dim]`, finite and not empty."""
    _floats(vectors_MD, "vectors")
    if vectors_MD.ndim != 2 or vectors_MD.shape[1] != dim:
        raise ValueError(f"vectors must be [M, {dim}], got {list(vectors_MD.shape)}")
    _some(vectors_MD, "vectors")
    finite(vectors_MD, "vectors")


def mask(mask_BF: Array | None, latents_BFD: Array) -> None:
    """Raises ValueError unless None or an array `[B, F]` as the latents are."""
    if mask_BF is None:
        return
    array(mask_BF, "mask")
    if mask_BF.shape != latents_BFD.shape[:2]:
        raise ValueError(
            f"mask must be [B, F] = {list(latents_BFD.shape[:2])}, got {list(mask_BF.shape)}"
        )


def codes(codes_BKF: Array, levels: int, sizes: int | Array) -> None:
    """Raises ValueError unless `[B, 1..levels, F]` integers in [0, sizes), one size or [K]."""
    array(codes_BKF, "codes")
    if codes_BKF.ndim != 3 or not jnp.issubdtype(codes_BKF.dtype, jnp.integer):
        raise ValueError(
            f"codes must be integers [B, K, F], got {codes_BKF.dtype} {list(codes_BKF.shape)}"
        )
    given = codes_BKF.shape[1]
    if not 1 <= given <= levels:
        raise ValueError(f"levels must be in 1..{levels}, got {given}")
    _some(codes_BKF, "codes")
    if concrete(codes_BKF, sizes):
        codes_BKF = np.asarray(codes_BKF)
        limit_K = np.broadcast_to(np.asarray(sizes), (levels,))[:given]
        outside = (codes_BKF < 0) | (codes_BKF >= limit_K[None, :, None])
        if outside.any():
            level = int(outside.any(axis=(0, 2)).argmax())
            worst = codes_BKF[:, level][outside[:, level]][0]
            raise ValueError(
                f"codes of level {level + 1} must be in 0..{limit_K[level] - 1}, got {worst}"
            )


def finite(x: Array, name: str, where: Array | None = None) -> None:
    """Raises ValueError for NaN or infinity; where: the places that count, all by default."""
    if not concrete(x, where):
        return
    fine = np.isfinite(np.asarray(x))
    if where is not None:
        fine |= ~np.asarray(where, bool)[..., None]
    if not fine.all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")


def _floats(x: Array, name: str) -> None:
    array(x, name)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} must be float, got {x.dtype}")


def _some(x: Array, name: str) -> None:
    if x.size == 0:
        raise ValueError(f"{name} must not be empty, got {list(x.shape)}")
