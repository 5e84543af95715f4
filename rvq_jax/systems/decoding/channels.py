"""Channels that a mono codec codes apart, their levels in turn: left, right, left, right, …"""

import numpy as np

from rvq_jax.systems.codec import Codec
from rvq_jax.typing import Array, Audio, Codes


def split_levels(codes: Codes, ways: int) -> Codes:
    """Codes of each channel apart, `[B · ways, K, F]`, of all together, `[B, K · ways, F]`."""
    rows, total, frames = codes.shape
    apart = codes.reshape(rows, total // ways, ways, frames).swapaxes(1, 2)
    return apart.reshape(rows * ways, total // ways, frames)


def join_channels(audio: Audio, ways: int) -> Audio:
    """Audio of all channels together, `[B, S, ways]`, of each apart, `[B · ways, S, 1]`."""
    if ways == 1:
        return audio
    return audio[..., 0].reshape(len(audio) // ways, ways, audio.shape[1]).swapaxes(1, 2)


def encode(
    codec: Codec, audio: Audio, ways: int, levels: int | None = None, lengths: Array | None = None
) -> np.ndarray:
    """Encodes every channel apart and puts their levels side by side, in turn.

    Args:
      codec: of one channel's worth of audio.
      audio: `[B, S, C · ways]`.
      ways: channels that are coded apart.
      levels: a prefix of the codec's levels; all by default.
      lengths: `[B]` samples of each item; all by default.

    Returns:
      Codes `[B, K · ways, F]`.
    """
    rows, samples, channels = audio.shape
    apart = np.asarray(audio).reshape(rows, samples, ways, channels // ways).swapaxes(1, 2)
    apart = apart.reshape(rows * ways, samples, channels // ways)
    lengths = None if lengths is None else np.repeat(lengths, ways)
    codes = np.asarray(codec.encode(apart, levels, lengths=lengths).codes)
    together = codes.reshape(rows, ways, *codes.shape[1:]).swapaxes(1, 2)
    return together.reshape(rows, -1, codes.shape[2])
