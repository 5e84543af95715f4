"""Codecs that code segments apart from each other: EnCodec at 48 kHz, one second at a time.

Segments overlap a little, and are faded into each other when decoded. Each keeps its own loudness.
"""

import functools
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from rvq_jax.codec import autoencoder
from rvq_jax.codec.edges import Edges
from rvq_jax.quantize import State
from rvq_jax.tracing import concrete, portable
from rvq_jax.typing import Array, Audio, Codes

TOGETHER = 8  # segments of an item in one program, so that memory does not depend on the length


def sizes(config) -> tuple[int, int]:
    """Samples of a segment, and from the beginning of one to that of the next."""
    samples = int(config.segment * config.rate)
    return samples, max(1, int((1.0 - config.overlap) * samples))


def frames_of(config, samples: int) -> list[int]:
    """Frames of each of a codec's segments of so many samples: one, if it has none."""
    if not config.segment:
        return [-(-samples // config.hop)]
    size, stride = sizes(config)
    return [-(-min(size, samples - start) // config.hop) for start in range(0, samples, stride)]


def count(config, samples: int) -> int:
    """Segments of so many samples; 1 for a codec that does not code them apart."""
    return len(frames_of(config, samples))


@functools.lru_cache(maxsize=1024)
def places(config, samples: int, longer: int) -> np.ndarray:
    """Where the frames of so many samples lie in a longer row: a segment may end early in it."""
    counts, room = frames_of(config, samples), frames_of(config, longer)
    begins = np.cumsum([0, *room])
    found = np.concatenate([begins[i] + np.arange(count) for i, count in enumerate(counts)])
    found.setflags(write=False)  # all callers share it
    return found


def encode_all(
    config, params, quantizer: State, audio: Audio, lengths: Array, levels: int | None
) -> tuple[Codes, Array]:
    """All codes `[B, K, F]` and scales `[B, segments]`; arguments as of `encode`."""
    xp = np if concrete(audio, lengths) else jnp

    def run(audio, params, quantizer, lengths):
        parts = encode(config, params, quantizer, audio, lengths, levels)
        codes, scales = zip(*parts, strict=True)
        return xp.concatenate(codes, axis=2), xp.concatenate(scales, axis=1)

    args = audio, params, quantizer, lengths
    return run(*args) if xp is np else portable(run, "BSC", ("BKF", "BF"))(*args)


def decode_all(
    config,
    params,
    quantizer: State,
    codes: Codes,
    scales: Array | None,
    lengths: Array,
    samples: int,
) -> Audio:
    """All audio `[B, S, C]`, of S samples or more; arguments as of `decode`."""
    xp = np if concrete(codes, scales, lengths) else jnp

    def run(codes, params, quantizer, scales, lengths):
        parts = decode(config, params, quantizer, codes, scales, lengths, samples)
        return xp.concatenate(list(parts), axis=1)

    args = codes, params, quantizer, scales, lengths
    return run(*args) if xp is np else portable(run, "BKF", "BSC")(*args)


def encode(
    config, params, quantizer: State, audio: Audio, lengths: Array, levels: int | None
) -> Iterator[tuple[Codes, Array]]:
    """Encodes audio segment by segment, some segments of each item at a time.

    Each segment is divided by its loudness before it is encoded, where `config.normalize` says so.

    Args:
      config: sizes of a codec with `segment`, the seconds that are coded apart from each other.
      params: parameters of the config's autoencoder.
      quantizer: state of the quantizer.
      audio: `[B, S, C]` at the config's rate.
      lengths: `[B]` samples of each item; the rest of its row is padding.
      levels: number of first levels to encode; None for all.

    Returns:
      An iterator over groups of up to `TOGETHER` segments, in order: codes `[B, K, F]` of the
      frames of one segment after the other, 0 after an item's end; and scales `[B, segments]`, the
      loudness that each segment was divided by (1 if it was not).
    """
    size, stride = sizes(config)
    starts = range(0, audio.shape[1], stride)
    counts = frames_of(config, audio.shape[1])
    batch = audio.shape[0]
    together = min(TOGETHER, len(starts))
    xp = np if concrete(audio, lengths) else jnp
    for i in range(0, len(starts), together):
        group = starts[i : i + together]
        # A short last group is padded, so that all are one program.
        own = [audio[:, start : start + size] for start in group]
        own += [audio[:, :0]] * (together - len(group))
        parts = xp.stack([_padded(xp, part, size) for part in own], axis=1)
        begins = np.array([*group, *[audio.shape[1]] * (together - len(group))], np.int32)
        ends = xp.clip(xp.asarray(lengths)[:, None] - begins[None], 0, size)
        parts, edges = parts.reshape(-1, size, audio.shape[2]), _edges(ends)
        scales = xp.ones(ends.shape, np.float32)
        if config.normalize:
            scales = xp.asarray(autoencoder.loudness(parts, edges)).reshape(ends.shape)
            scales = xp.where(ends > 0, scales, np.float32(1))
        parts = parts / scales.reshape(-1, 1, 1)
        codes = autoencoder.encode(config, params, quantizer, parts, levels, edges)
        codes = xp.asarray(codes).reshape(batch, together, codes.shape[1], -1)
        # Frames after an item's end are 0.
        inside_BGF = np.arange(codes.shape[3])[None, None] < -(-ends[..., None] // config.hop)
        codes = xp.where(inside_BGF[:, :, None], codes, 0)
        kept = [codes[:, j, :, : counts[i + j]] for j in range(len(group))]
        yield xp.concatenate(kept, axis=2), scales[:, : len(group)]


def decode(
    config,
    params,
    quantizer: State,
    codes: Codes,
    scales: Array | None,
    lengths: Array,
    samples: int,
) -> Iterator[Audio]:
    """Decodes what `encode` gave, segment by segment, fading overlapping segments into each other.

    Args:
      config: sizes of the codec, as in `encode`.
      params: parameters of the config's autoencoder.
      quantizer: state of the quantizer.
      codes: `[B, K, F]`, F frames of all segments, one after the other.
      scales: `[B, segments]`, by which the audio of each segment is multiplied; None for 1.
      lengths: `[B]` samples of each item.
      samples: S, samples of the rows that were encoded.

    Returns:
      An iterator over pieces of audio `[B, ·, C]`, in order: of each segment the part before the
      next one begins, of the last one all its frames. Together they have at least S samples.
    """
    stride = sizes(config)[1]
    counts = frames_of(config, samples)
    batch, levels, _ = codes.shape
    together = min(TOGETHER, len(counts))
    begins = np.cumsum([0, *counts])
    longest = counts[0] * config.hop
    xp = np if concrete(codes, scales, lengths) else jnp
    codes, lengths = xp.asarray(codes, np.int32), xp.asarray(lengths)
    scales = xp.ones((batch, len(counts)), np.float32) if scales is None else xp.asarray(scales)
    # A triangle over an item's own first segment, which is short if that is all there is.
    own_B1 = xp.clip(-(-lengths[:, None] // config.hop), 1, counts[0]) * config.hop
    ramp_BS = (np.arange(longest)[None] + 1) / (own_B1 + 1)
    weight_BS = (0.5 - xp.abs(ramp_BS - 0.5)).astype(np.float32)
    # What the segments so far add up to beyond the next one's start, and their weights.
    audio_over = xp.zeros((batch, 0, config.channels), np.float32)
    weight_over = xp.zeros((batch, 0, 1), np.float32)
    for i in range(0, len(counts), together):
        group = range(i, min(i + together, len(counts)))
        rest = [0] * (together - len(group))  # so that all groups are one program
        own = [codes[:, :, begins[j] : begins[j + 1]] for j in group]
        own += [codes[:, :, :0] for _ in rest]
        parts = xp.stack([_padded(xp, x.swapaxes(1, 2), counts[0]) for x in own], axis=1)
        starts = np.array([*group, *rest], np.int32) * stride
        most = np.array([*(counts[j] for j in group), *rest], np.int32)
        ends = xp.clip(-(-(lengths[:, None] - starts[None]) // config.hop), 0, most[None])
        parts = parts.reshape(-1, counts[0], levels).swapaxes(1, 2)
        audio = autoencoder.decode(config, params, quantizer, parts, _edges(ends))
        audio = xp.asarray(audio).reshape(batch, together, longest, -1)
        for j in group:
            length = counts[j] * config.hop
            inside_BS = np.arange(length)[None] < ends[:, j - i, None] * config.hop
            weight_BS1 = (inside_BS * weight_BS[:, :length])[..., None]
            part_BSC = xp.where(weight_BS1 > 0, audio[:, j - i, :length], 0) * weight_BS1
            audio_BSC = _added(xp, scales[:, j, None, None] * part_BSC, audio_over)
            weight_BS1 = _added(xp, weight_BS1, weight_over)
            ready = length if j == len(counts) - 1 else stride
            yield audio_BSC[:, :ready] / xp.maximum(weight_BS1[:, :ready], 1e-12)
            audio_over, weight_over = audio_BSC[:, stride:], weight_BS1[:, stride:]


def _padded(xp, x: Array, size: int) -> Array:
    """`[B, size, …]` of fewer steps, zeros after them."""
    return xp.pad(x, ((0, 0), (0, size - x.shape[1]), (0, 0)))


def _added(xp, x: Array, over: Array) -> Array:
    return x + _padded(xp, over[:, : x.shape[1]], x.shape[1])


def _edges(ends: Array) -> Edges:
    ends = ends.reshape(-1)
    return Edges(np.zeros(ends.shape, np.int32), ends)
