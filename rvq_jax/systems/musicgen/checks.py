"""What callers of MusicGen can get wrong, said in one line."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from rvq_jax.lm.model import LMConfig
from rvq_jax.quantize import checks
from rvq_jax.tracing import concrete, typed
from rvq_jax.typing import Array, Audio, Codes, Key


def key(key: Key, rows: int) -> Key:
    """A typed key, or one for each row; ValueError for another number of them."""
    key = typed(key)
    if key.ndim and key.shape != (rows,):
        raise ValueError(f"keys must be one, or {rows}, one for each row; got {list(key.shape)}")
    return key


def seconds(value: float | None, name: str) -> None:
    """Raises ValueError unless None or a number of seconds above 0."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be seconds above 0, got {value}")


def frames(value: float | Sequence[float], frame_rate: float) -> np.ndarray:
    """Frames of so many seconds, at least one; raises ValueError unless they are positive."""
    given = np.asarray(value, float)
    if not (np.isfinite(given) & (given > 0)).all():
        raise ValueError(f"seconds must be positive, got {value}")
    return np.maximum(1, np.round(given * frame_rate)).astype(np.int32)


def guidance_scales(config: LMConfig, guidance_scale: float | None, text_guidance_scale) -> None:
    """Raises ValueError for a weight that is not finite, or the text's own without a melody."""
    weights = {"guidance_scale": guidance_scale, "text_guidance_scale": text_guidance_scale}
    for name, weight in weights.items():
        if weight is not None and concrete(weight) and not math.isfinite(weight):
            raise ValueError(f"{name} must be finite, got {weight}")
    if text_guidance_scale is not None and config.melody_bins is None:
        raise ValueError("text_guidance_scale weighs the text over a melody: this model has none")


def melody(melody: Audio, rows: int) -> None:
    """Raises ValueError unless finite audio `[B, S, C]` of one row or of all."""
    checks.array(melody, "melody")
    if melody.ndim != 3 or 0 in melody.shape or melody.shape[0] not in (1, rows):
        raise ValueError(f"melody must be audio [{rows}, S, C], got {list(melody.shape)}")
    if not jnp.issubdtype(melody.dtype, jnp.floating):
        raise ValueError(f"melody must be float in [-1, 1], got {melody.dtype}")
    checks.finite(melody, "melody")


def prompt(prompt: np.ndarray, rows: int, channels: int) -> None:
    """Raises ValueError unless codes or audio of one row or of all."""
    if prompt.ndim != 3 or prompt.shape[0] not in (1, rows):
        raise ValueError(
            f"prompt must be codes [{rows}, K, F] or audio [{rows}, S, C], got {list(prompt.shape)}"
        )
    if np.issubdtype(prompt.dtype, np.floating):
        if prompt.shape[2] != channels or prompt.shape[1] == 0:
            want = f"[{rows}, S, {channels}]"
            raise ValueError(f"prompt of audio must be {want}, got {list(prompt.shape)}")
    elif not np.issubdtype(prompt.dtype, np.integer):
        raise ValueError(f"prompt must be codes or audio, got {prompt.dtype}")


def codes(config: LMConfig, codes: Codes, least: int = 0, mask: Array | None = None) -> None:
    """Checks codes of a prompt or to be scored.

    Args:
      config: of the token model.
      codes: `[B, K, F]`.
      least: the least that a code may be, -1 where it is to be sampled.
      mask: `[B, F]`, True where codes count; all by default.

    Raises:
      ValueError: unless integers in [least, N), where the mask is True.
    """
    checks.array(codes, "codes")
    shape = list(codes.shape)
    if not jnp.issubdtype(codes.dtype, jnp.integer) or len(shape) != 3 or shape[1] != config.levels:
        raise ValueError(
            f"codes must be integers [B, {config.levels}, F], got {codes.dtype} {shape}"
        )
    if mask is not None:
        checks.array(mask, "mask")
        if mask.shape != (shape[0], shape[2]):
            raise ValueError(f"mask must be {[shape[0], shape[2]]}, got {list(mask.shape)}")
    if not concrete(codes, mask):
        return
    values, size = np.asarray(codes), config.codebook_size
    outside = (values < least) | (values >= size)
    if mask is not None:
        outside &= np.asarray(mask, bool)[:, None]
    if outside.any():
        raise ValueError(f"codes must be in {least}..{size - 1}, got {values[outside][0]}")
