"""Long audio through centred codecs, window by window, equal to one pass over the whole.

Convolutions see a halo of neighbouring frames on both sides of a window and what they compute in it
is thrown away; recurrent layers carry their state from one window to the next. One program serves
every window of every length, so memory does not depend on the length, nor does compiling.
"""

import functools
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rvq_jax import quantize
from rvq_jax.codec import autoencoder
from rvq_jax.codec.edges import Edges
from rvq_jax.codec.passes import Whole
from rvq_jax.quantize import State
from rvq_jax.typing import Array, Audio, Codes


def encode(
    config, params, quantizer: State, audio: Audio, lengths: Array, levels: int | None, frames: int
) -> Iterator[Codes]:
    """Encodes long audio with a centred codec, window by window.

    The codes are those of one pass over the whole.

    Args:
      config: sizes of a codec that is not causal.
      params: parameters of the config's autoencoder.
      quantizer: state of the quantizer.
      audio: `[B, S, C]` at the config's rate.
      lengths: `[B]` samples of each item; codes after its end mean nothing.
      levels: number of first levels to encode; None for all.
      frames: frames of a window, without its halo.

    Returns:
      An iterator over codes `[B, K, frames]` of the windows in order; the last may have fewer.
    """
    halo = _halo(config, "encoder")
    hop, total = config.hop, -(-audio.shape[1] // config.hop)
    carry = None
    for first in range(0, total, frames):
        window = _cut(audio, (first - halo) * hop, (frames + 2 * halo) * hop)
        edges = _edges(lengths, (first - halo) * hop, window.shape[1])
        codes, carry = _encode(config, params, quantizer, window, edges, carry, levels, frames)
        yield codes[:, :, : total - first]


def decode(
    config, params, quantizer: State, codes: Codes, lengths: Array, frames: int
) -> Iterator[Audio]:
    """Decodes the codes of long audio with a centred codec, window by window.

    The audio is that of one pass over the whole.

    Args:
      config: sizes of a codec that is not causal.
      params: parameters of the config's autoencoder.
      quantizer: state of the quantizer that made the codes.
      codes: `[B, K, F]`, of all levels or of the first ones.
      lengths: `[B]` frames of each item.
      frames: frames of a window, without its halo.

    Returns:
      An iterator over audio `[B, frames · hop, C]` of the windows in order; the last may be
      shorter.
    """
    return decode_pieces(config, params, quantizer, [codes], codes.shape[2], lengths, frames)


def decode_pieces(
    config,
    params,
    quantizer: State,
    pieces: Iterable[Codes],
    total: int,
    lengths: Array,
    frames: int,
) -> Iterator[Audio]:
    """Decodes codes that arrive in pieces, window by window, as `decode` does with all of them.

    The audio of a window is given as soon as the frames of its halo have arrived.

    Args:
      config: sizes of a codec that is not causal.
      params: parameters of the config's autoencoder.
      quantizer: state of the quantizer that made the codes.
      pieces: codes `[B, K, ·]` in order, of any number of frames each.
      total: F, frames of all pieces together.
      lengths: `[B]` frames of each item.
      frames: frames of a window, without its halo.

    Returns:
      An iterator over audio `[B, frames · hop, C]` of the windows in order; the last may be
      shorter.
    """
    halo = _halo(config, "decoder")
    held_BFK, gone, first, carry = None, 0, 0, None
    for piece in pieces:
        piece_BFK = np.asarray(piece).swapaxes(1, 2)
        held_BFK = piece_BFK if held_BFK is None else np.concatenate([held_BFK, piece_BFK], axis=1)
        while first < total and gone + held_BFK.shape[1] >= min(first + frames + halo, total):
            window_BFK = _cut(held_BFK, first - halo - gone, frames + 2 * halo)
            edges = _edges(lengths, first - halo, window_BFK.shape[1])
            args = config, params, quantizer, window_BFK.swapaxes(1, 2), edges, carry
            audio, carry = _decode(*args, frames)
            yield audio[:, : (total - first) * config.hop]
            first += frames
            # Frames before the next window's halo are never read again.
            stale = max(0, first - halo - gone)
            held_BFK, gone = held_BFK[:, stale:], gone + stale


@functools.partial(jax.jit, static_argnames=("config", "levels", "frames"))
def _encode(config, params, quantizer, window, edges, carry, levels, frames):
    half = nnx.merge(autoencoder.graph(config), params).encoder
    reach = autoencoder.reaches(config)["encoder"]
    latents, carry = _through(half, window, edges, carry, frames, reach)
    return quantize.encode(quantizer, latents, levels), carry


@functools.partial(jax.jit, static_argnames=("config", "frames"))
def _decode(config, params, quantizer, window, edges, carry, frames):
    half = nnx.merge(autoencoder.graph(config), params).decoder
    latents = autoencoder.latents_of_codes(quantizer, window)
    return _through(half, latents, edges, carry, frames, autoencoder.reaches(config)["decoder"])


def _through(half, x, edges, carry, frames: int, reach: autoencoder.Reach):
    front, back, _ = reach
    run = Whole(edges)
    y = half.front(x, run)
    y, edges = y[:, front : y.shape[1] - front], run.edges.shift(front)
    if half.middle is not None:
        # What the next window starts from is the state where its own frames less a halo begin.
        y_first, carry = half.middle.step(y[:, :frames], carry, edges)
        y_rest, _ = half.middle.step(y[:, frames:], carry, edges.shift(frames))
        y = jnp.concatenate([y_first, y_rest], axis=1)
    z = half.back(y, Whole(edges))
    rate = z.shape[1] // y.shape[1]
    return z[:, back * rate : (back + frames) * rate], carry


def _halo(config, half: str) -> int:
    """Frames beside a window that are computed and thrown away."""
    return autoencoder.reaches(config)[half].front + autoencoder.reaches(config)[half].back


def _cut(x: Array, first: int, size: int) -> np.ndarray:
    """`size` steps of `[B, S, …]` from `first` on, zeros where there are none."""
    part = np.asarray(x[:, max(first, 0) : max(first + size, 0)])
    before = max(-first, 0)
    widths = [(0, 0), (before, size - before - part.shape[1]), (0, 0)]
    return np.pad(part, widths)


def _edges(lengths: Array, first: int, size: int) -> Edges:
    """Where items that begin at 0 lie in a window."""
    lengths = np.asarray(lengths, np.int32)
    whole = Edges(np.full_like(lengths, -first), lengths - first)
    return jax.tree.map(np.asarray, whole.within(size))
