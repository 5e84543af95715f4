"""Codecs that code segments apart from each other: EnCodec at 48 kHz, one second at a time.

Segments overlap a little, and are faded into each other when decoded. Each keeps its own loudness.
"""

from collections.abc import Iterator

import numpy as np

from rvq_jax.codec import autoencoder
from rvq_jax.codec.edges import Edges
from rvq_jax.quantize import State
from rvq_jax.typing import Array, Audio, Codes

TOGETHER = 8  # segments of an item in one program, so that memory does not depend on the length


def sizes(config) -> tuple[int, int]:
    """Samples of a segment, and from the beginning of one to that of the next."""
    samples = int(config.segment * config.rate)
    return samples, max(1, int((1.0 - config.overlap) * samples))


def frames_of(config, samples: int) -> list[int]:
    """Frames of each segment of so many samples."""
    size, stride = sizes(config)
    return [-(-min(size, samples - start) // config.hop) for start in range(0, samples, stride)]


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
    for i in range(0, len(starts), together):
        group = starts[i : i + together]
        parts = np.zeros((batch, together, size, audio.shape[2]), np.float32)
        ends = np.zeros((batch, together), np.int32)
        for j, start in enumerate(group):
            part = audio[:, start : start + size]
            parts[:, j, : part.shape[1]] = part
            ends[:, j] = np.clip(np.asarray(lengths) - start, 0, size)
        parts, edges = parts.reshape(-1, size, audio.shape[2]), _edges(ends)
        scales = np.ones(ends.shape, np.float32)
        if config.normalize:
            scales = np.asarray(autoencoder.loudness(parts, edges)).reshape(ends.shape)
            scales = np.where(ends > 0, scales, np.float32(1))
        parts = parts / scales.reshape(-1, 1, 1)
        codes = autoencoder.encode(config, params, quantizer, parts, levels, edges)
        codes = np.asarray(codes).reshape(batch, together, codes.shape[1], -1)
        # Frames after an item's end are 0.
        inside_BGF = np.arange(codes.shape[3]) < -(-ends[..., None] // config.hop)
        codes = np.where(inside_BGF[:, :, None], codes, 0)
        kept = [codes[:, j, :, : counts[i + j]] for j in range(len(group))]
        yield np.concatenate(kept, axis=2), scales[:, : len(group)]


def decode(
    config,
    params,
    quantizer: State,
    codes: Codes,
    scales: Array,
    lengths: Array,
    samples: int,
) -> Iterator[Audio]:
    """Decodes what `encode` gave, segment by segment, fading overlapping segments into each other.

    Args:
      config: sizes of the codec, as in `encode`.
      params: parameters of the config's autoencoder.
      quantizer: state of the quantizer.
      codes: `[B, K, F]`, F frames of all segments, one after the other.
      scales: `[B, segments]`, by which the audio of each segment is multiplied.
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
    # A triangle over an item's own first segment, which is short if that is all there is.
    own_B1 = np.clip(-(-np.asarray(lengths)[:, None] // config.hop), 1, counts[0]) * config.hop
    ramp_BS = (np.arange(longest)[None] + 1) / (own_B1 + 1)
    weight_BS = (0.5 - np.abs(ramp_BS - 0.5)).astype(np.float32)
    # What the segments so far add up to beyond the next one's start, and their weights.
    audio_over = np.zeros((batch, 0, config.channels), np.float32)
    weight_over = np.zeros((batch, 0, 1), np.float32)
    for i in range(0, len(counts), together):
        group = range(i, min(i + together, len(counts)))
        parts = np.zeros((batch, together, levels, counts[0]), np.int32)
        ends = np.zeros((batch, together), np.int32)
        for j in group:
            parts[:, j - i, :, : counts[j]] = codes[:, :, begins[j] : begins[j + 1]]
            own = np.asarray(lengths) - j * stride
            ends[:, j - i] = np.clip(-(-own // config.hop), 0, counts[j])
        audio = autoencoder.decode(
            config, params, quantizer, parts.reshape(-1, levels, counts[0]), _edges(ends)
        )
        audio = np.asarray(audio).reshape(batch, together, longest, -1)
        for j in group:
            length = counts[j] * config.hop
            inside_BS = np.arange(length) < ends[:, j - i, None] * config.hop
            weight_BS1 = (inside_BS * weight_BS[:, :length])[..., None]
            part_BSC = np.where(weight_BS1 > 0, audio[:, j - i, :length], 0) * weight_BS1
            audio_BSC = _added(scales[:, j, None, None] * part_BSC, audio_over)
            weight_BS1 = _added(weight_BS1, weight_over)
            ready = length if j == len(counts) - 1 else stride
            yield audio_BSC[:, :ready] / np.maximum(weight_BS1[:, :ready], 1e-12)
            audio_over, weight_over = audio_BSC[:, stride:], weight_BS1[:, stride:]


def _added(x: np.ndarray, over: np.ndarray) -> np.ndarray:
    reach = min(x.shape[1], over.shape[1])
    x[:, :reach] += over[:, :reach]
    return x


def _edges(ends: np.ndarray) -> Edges:
    ends = ends.reshape(-1)
    return Edges(np.zeros_like(ends), ends)
