"""Sampled codes → audio: at once where they are few, in windows or as a stream where not."""

import functools
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from rvq_jax.codec import autoencoder, stream, windows
from rvq_jax.codec.edges import Edges
from rvq_jax.patterns import BUCKET
from rvq_jax.quantize import State
from rvq_jax.systems.codec import Codec, Coded
from rvq_jax.systems.decoding import channels
from rvq_jax.typing import Array, Audio, Codes

LONG = 10.0  # seconds of audio that are decoded at once where it may be long


def decode(codec: Codec, codes: Codes, lengths: np.ndarray, ways: int = 1) -> Audio:
    """Audio of all codes.

    Args:
      codec: of the codes of each channel that is coded apart.
      codes: `[B, K, F]`.
      lengths: `[B]` frames of each row; what comes after is silent.
      ways: channels that are coded apart, their levels in turn (see `channels`).

    Returns:
      Audio `[B, S, C]`, as long as the longest row.
    """
    long = round(LONG * codec.config.frame_rate)
    frames = int(lengths.max())
    if codec.config.segment or frames > long:
        return np.concatenate(list(decode_pieces(codec, [codes], lengths, long, ways)), axis=1)
    config, params, quantizer = codec.prepared
    # Near lengths share a program.
    padded = np.pad(codes[:, :, :frames], [(0, 0), (0, 0), (0, -frames % BUCKET)])
    audio = _decode(config, params, quantizer, padded, jnp.asarray(lengths), ways)
    ends = lengths * config.hop
    return _silenced(np.asarray(audio)[:, : ends.max()], ends)


def decode_pieces(
    codec: Codec, pieces: Iterable[Codes], lengths: np.ndarray, frames: int, ways: int = 1
) -> Iterator[Audio]:
    """Audio of codes that come in pieces, as soon as it is known.

    Args:
      codec: as of `decode`.
      pieces: codes `[B, K, f]` in turn.
      lengths: `[B]` frames of each row.
      frames: frames that are decoded at once.
      ways: channels that are coded apart.

    Yields:
      Audio `[B, s, C]` in turn. A codec that codes segments apart takes a single piece.
    """
    ends = lengths * codec.config.hop
    if codec.config.segment:
        parts = (Coded(codes, None, int(ends.max()), ends) for codes in pieces)
        blocks = map(codec.decode, parts)
    else:
        apart = (channels.split_levels(codes, ways) for codes in pieces)
        blocks = _apart(codec, apart, np.repeat(lengths, ways), frames)
    for audio in blocks:
        audio = channels.join_channels(np.asarray(audio), ways)
        if audio.shape[1]:
            yield _silenced(audio, ends)
            ends = ends - audio.shape[1]


def _apart(
    codec: Codec, pieces: Iterable[Codes], lengths: np.ndarray, frames: int
) -> Iterator[Audio]:
    """Audio of the channels that are coded apart, by the codec's stream or in windows."""
    if not codec.config.causal:
        total = int(lengths.max())
        yield from windows.decode_pieces(*codec.prepared, pieces, total, lengths, frames)
        return
    # What a causal codec makes of a row does not depend on what comes after it.
    decoder = stream.DecodeStream(*codec.prepared, len(lengths), frames)
    yield from map(decoder.push, pieces)
    yield decoder.close()


@functools.partial(jax.jit, static_argnames=("config", "ways"))
def _decode(config, params, quantizer: State, codes: Codes, lengths: Array, ways: int) -> Audio:
    ends = jnp.repeat(lengths, ways)
    apart, edges = channels.split_levels(codes, ways), Edges(jnp.zeros_like(ends), ends)
    return channels.join_channels(autoencoder.decode(config, params, quantizer, apart, edges), ways)


def _silenced(audio: np.ndarray, ends: np.ndarray) -> Audio:
    """Rows of `[B, S, C]` without what comes after their ends."""
    inside_BS = np.arange(audio.shape[1])[None] < ends[:, None]
    return np.where(inside_BS[..., None], audio, 0.0)
