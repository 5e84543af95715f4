"""What callers of codecs can get wrong, in one line. Values are looked at outside of jit only."""

import math
import operator

import jax.numpy as jnp
import numpy as np

from rvq_jax.codec import segments
from rvq_jax.quantize import checks
from rvq_jax.tracing import check_concrete, concrete
from rvq_jax.typing import Array, Audio, Codes


def audio(audio: Audio, channels: int) -> None:
    """Raises ValueError unless a finite float array `[B, S, channels]` that is not empty."""
    checks.array(audio, "audio")
    if audio.ndim != 3 or audio.shape[2] != channels:
        raise ValueError(f"audio must be [B, S, {channels}], got {audio.shape}")
    if audio.shape[1] == 0:
        raise ValueError("audio must have at least one sample")
    if audio.shape[0] == 0:
        raise ValueError("audio must have at least one item")
    if not jnp.issubdtype(audio.dtype, jnp.floating):
        raise ValueError(f"audio must be float in [-1, 1], got {audio.dtype}")
    if concrete(audio) and not np.isfinite(np.asarray(audio)).all():
        raise ValueError("audio must be finite, it has a NaN or infinite sample")


def lengths(lengths: Array | None, batch: int, samples: int) -> Array:
    """Samples `[B]` int32 of each item, all by default; ValueError outside of 1..samples."""
    if lengths is None:
        return np.full(batch, samples, np.int32)
    if not concrete(lengths):
        if lengths.shape != (batch,):
            raise ValueError(f"lengths must be {batch} numbers, got {list(lengths.shape)}")
        return jnp.clip(lengths, 1, samples).astype(jnp.int32)
    given = np.asarray(lengths)
    whole = given.shape == (batch,) and np.issubdtype(given.dtype, np.integer)
    if not whole or given.min() < 1 or given.max() > samples:
        raise ValueError(f"lengths must be {batch} whole numbers in 1..{samples}, got {lengths}")
    return given.astype(np.int32)


def samples(config, codes: Codes, samples: int) -> int:
    """How many samples codes are of; ValueError where the codes have not enough frames for it."""
    try:
        samples = operator.index(samples)
    except TypeError:
        raise ValueError(f"samples must be a whole number, got {samples!r}") from None
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    frames = codes.shape[2]
    need = sum(segments.frames_of(config, samples))
    if frames < need:
        raise ValueError(f"{samples} samples need {need} frames of codes, got {frames}")
    return samples


def scales(scales: Array | None, batch: int, segments: int) -> None:
    """Raises ValueError unless None, or `[B, segments]` numbers that are finite, none negative."""
    if scales is None:
        return
    checks.array(scales, "scales")
    if scales.shape != (batch, segments):
        raise ValueError(f"scales must be {[batch, segments]}, got {list(scales.shape)}")
    if concrete(scales):
        values = np.asarray(scales)
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError("scales must be finite and not negative")


def chunk(chunk: float | None, *arrays) -> None:
    """Raises ValueError unless None, or seconds above 0 for arrays that are not traced."""
    if chunk is None:
        return
    check_concrete("a chunk", arrays)
    if not (math.isfinite(chunk) and chunk > 0):
        raise ValueError(f"chunk must be seconds above 0, got {chunk}")


def levels(levels: int | None, total: int) -> None:
    """Raises ValueError unless None, or a whole number in 1..total."""
    if levels is None:
        return
    if not isinstance(levels, int | np.integer) or not 1 <= levels <= total:
        raise ValueError(f"levels must be in 1..{total}, got {levels}")
