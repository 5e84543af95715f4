"""Causal codecs block by block: every layer keeps the last inputs that it will see again.

`encode_step` and `decode_step` are pure, one program for all blocks of a size. `EncodeStream` and
`DecodeStream` wrap them for input that arrives in pieces of any length. A codec whose convolutions
mirror their beginning (EnCodec at 24 kHz) looks ahead at the start: it waits for `first_frames`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rvq_jax import quantize
from rvq_jax.codec import autoencoder
from rvq_jax.codec.edges import Edges
from rvq_jax.codec.passes import Stream, through
from rvq_jax.quantize import State
from rvq_jax.quantize.quantizer import check_codes
from rvq_jax.tracing import check_concrete
from rvq_jax.typing import Array, Audio, Codes


@functools.partial(jax.jit, static_argnames=("config", "levels"), donate_argnames="states")
def encode_step(
    config,
    params,
    quantizer: State,
    states: tuple | None,
    audio: Audio,
    levels: int | None = None,
    edges: Edges | None = None,
) -> tuple[Codes, tuple]:
    """Encodes the next block of a stream of audio.

    Args:
      config: sizes of a causal codec.
      params: parameters of the config's autoencoder.
      quantizer: state of the quantizer.
      states: of the encoder's layers, as the call before gave them; for the first block as `begin`
        gives them, which is None for a codec that mirrors its beginning. They are donated: do not
        use them after the call.
      audio: `[B, F · hop, C]`, the next samples; a first block has at least `first_frames` frames.
      levels: number of first levels to encode, K of the result; None for all.
      edges: where each item ends in this block, in samples; None if none does.

    Returns:
      Codes `[B, K, F]`, and the states for the block after.

    Raises:
      ValueError: when `levels` is less than 1 or more than the quantizer has.
    """
    run = Stream(states, edges)
    latents = through(nnx.merge(autoencoder.graph(config), params).encoder, audio, run)
    return quantize.encode(quantizer, latents, levels), run.next


@functools.partial(jax.jit, static_argnames="config", donate_argnames="states")
def decode_step(
    config,
    params,
    quantizer: State,
    states: tuple | None,
    codes: Codes,
    edges: Edges | None = None,
) -> tuple[Audio, tuple]:
    """Decodes the next block of a stream of codes.

    Args:
      config: sizes of a causal codec.
      params: parameters of the config's autoencoder.
      quantizer: state of the quantizer that made the codes.
      states: of the decoder's layers, as the call before gave them; for the first block as `begin`
        gives them, which is None for a codec that mirrors its beginning. They are donated: do not
        use them after the call.
      codes: `[B, K, F]`, the next frames, of all levels or of the first ones; a first block has at
        least `first_frames` frames.
      edges: where each item ends in this block, in frames; None if none does.

    Returns:
      Audio `[B, F · hop, C]`, and the states for the block after.

    Raises:
      ValueError: when the codes have more levels than the quantizer.
    """
    run = Stream(states, edges)
    latents = autoencoder.latents_of_codes(quantizer, codes)
    return through(nnx.merge(autoencoder.graph(config), params).decoder, latents, run), run.next


def begin(config, batch: int) -> tuple[tuple | None, tuple | None]:
    """States of encoder and decoder before the first block, None if that must be mirrored."""
    if first_frames(config) > 1:
        return None, None

    def halves():
        model = config.build(nnx.Rngs(0))
        runs = Stream(None), Stream(None)
        through(model.encoder, jnp.zeros((batch, config.hop, config.channels)), runs[0])
        through(model.decoder, jnp.zeros((batch, 1, config.dim)), runs[1])
        return runs[0].next, runs[1].next

    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(halves))


def first_frames(config) -> int:
    """Frames that the first block must have: more than 1 if convolutions mirror their beginning."""
    if not config.mirrors:
        return 1
    return max(reach.start for reach in autoencoder.reaches(config).values())


class EncodeStream:
    """Codes of audio that arrives in pieces of any length, `frames` frames at a time.

    Codes come as soon as their frames are complete, the first ones with frame `first_frames`.
    """

    def __init__(self, config, params, quantizer: State, levels=None, batch=1, frames=1):
        self._run = functools.partial(encode_step, config, params, quantizer, levels=levels)
        first = max(frames, first_frames(config)) * config.hop
        self._blocks = _Blocks(begin(config, batch)[0], first, frames * config.hop)
        self._empty = np.zeros((batch, levels or config.levels, 0), np.int32)
        self._hop = config.hop

    def push(self, audio: Audio) -> Codes:
        """Codes `[B, K, F]` of the frames that `[B, S, C]` completes, F ≥ 0."""
        check_concrete("a stream", audio)
        codes = self._blocks.push(audio, self._run)
        return np.concatenate([self._empty, *codes], axis=2)

    def close(self) -> Codes:
        """Codes `[B, K, F]` of what is left; a part full frame is padded as the whole would be."""

        def last(states, x, end_B):
            return self._run(states, x, edges=Edges(np.zeros_like(end_B), end_B))

        rest, codes = self._blocks.close(last)
        return self._empty if codes is None else codes[:, :, : -(-rest // self._hop)]


class DecodeStream:
    """Audio of codes that arrive in pieces of any length, `frames` frames at a time."""

    def __init__(self, config, params, quantizer: State, batch=1, frames=1):
        self._run = functools.partial(decode_step, config, params, quantizer)
        self._quantizer = quantizer
        self._blocks = _Blocks(begin(config, batch)[1], max(frames, first_frames(config)), frames)
        self._empty = np.zeros((batch, 0, config.channels), np.float32)
        self._hop = config.hop

    def push(self, codes: Codes) -> Audio:
        """Audio `[B, S, C]` of the frames that `[B, K, F]` completes, S ≥ 0.

        Raises ValueError for codes outside of [0, N), or more levels than the quantizer has.
        """
        check_concrete("a stream", codes)
        if 0 not in np.shape(codes):
            check_codes(self._quantizer, codes)

        def run(states, x):
            return self._run(states, x.swapaxes(1, 2))

        audio = self._blocks.push(np.asarray(codes).swapaxes(1, 2), run)
        return np.concatenate([self._empty, *audio], axis=1)

    def close(self) -> Audio:
        """Audio `[B, S, C]` of what is left."""

        def last(states, x, end_B):
            edges = Edges(np.zeros_like(end_B), end_B)
            return self._run(states, x.swapaxes(1, 2), edges=edges)

        rest, audio = self._blocks.close(last)
        return self._empty if audio is None else audio[:, : rest * self._hop]


class _Blocks:
    """Pieces `[B, S, …]` of any length, run as one first block and then blocks of one size."""

    def __init__(self, states: tuple | None, first: int, size: int):
        self.states, self.next, self.size = states, first, size
        self.held = None

    def push(self, piece: Array, run) -> list[Array]:
        piece = np.asarray(piece)
        held = piece if self.held is None else np.concatenate([self.held, piece], axis=1)
        done = []
        while held.shape[1] >= self.next:
            block, held = held[:, : self.next], held[:, self.next :]
            out, self.states = run(self.states, block)
            done.append(out)
            self.next = self.size
        self.held = held
        return done

    def close(self, run) -> tuple[int, Array | None]:
        held, self.held = self.held, None
        rest = 0 if held is None else held.shape[1]
        if rest == 0:
            return 0, None
        block = np.pad(held, [(0, 0), (0, self.next - rest), (0, 0)])
        out, self.states = run(self.states, block, np.full(len(held), rest, np.int32))
        return rest, out


def encode(
    config, params, quantizer: State, audio: Audio, lengths: Array, levels: int | None, frames: int
):
    """Encodes long audio with a causal codec, block by block.

    Args:
      config: sizes of a causal codec.
      params: parameters of the config's autoencoder.
      quantizer: state of the quantizer.
      audio: `[B, S, C]` at the config's rate.
      lengths: `[B]` samples of each item; codes after its end mean nothing.
      levels: number of first levels to encode; None for all.
      frames: frames of a block; raised to `first_frames` where it is less.

    Returns:
      An iterator over codes `[B, K, frames]` of the blocks in order; the last may have fewer.
    """
    frames, states = max(frames, first_frames(config)), begin(config, audio.shape[0])[0]
    size, total = frames * config.hop, -(-audio.shape[1] // config.hop)
    for first in range(0, total, frames):
        block, edges = _block(audio, lengths, first * config.hop, size)
        codes, states = encode_step(config, params, quantizer, states, block, levels, edges)
        yield codes[:, :, : total - first]


def decode(config, params, quantizer: State, codes: Codes, lengths: Array, frames: int):
    """Decodes the codes of long audio with a causal codec, block by block.

    Args:
      config: sizes of a causal codec.
      params: parameters of the config's autoencoder.
      quantizer: state of the quantizer that made the codes.
      codes: `[B, K, F]`, of all levels or of the first ones.
      lengths: `[B]` frames of each item.
      frames: frames of a block; raised to `first_frames` where it is less.

    Returns:
      An iterator over audio `[B, frames · hop, C]` of the blocks in order; the last may be shorter.
    """
    frames, states = max(frames, first_frames(config)), begin(config, codes.shape[0])[1]
    for first in range(0, codes.shape[2], frames):
        block, edges = _block(codes.swapaxes(1, 2), lengths, first, frames)
        audio, states = decode_step(config, params, quantizer, states, block.swapaxes(1, 2), edges)
        yield audio[:, : (codes.shape[2] - first) * config.hop]


def _block(x: Array, lengths: Array, first: int, size: int) -> tuple[np.ndarray, Edges]:
    part = np.asarray(x[:, first : first + size])
    block = np.pad(part, [(0, 0), (0, size - part.shape[1]), (0, 0)])
    end_B = np.clip(np.asarray(lengths, np.int32) - first, 0, size).astype(np.int32)
    return block, Edges(np.zeros_like(end_B), end_B)
