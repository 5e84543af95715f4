"""Codes sampled for a request: prompts, rows of different lengths, windows, pieces as they come.

Host-side numpy around the programs of `rvq_jax.systems.decoding.programs`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from rvq_jax import patterns
from rvq_jax.lm.conditions import Conditions
from rvq_jax.lm.model import LMConfig
from rvq_jax.lm.sampling import Sampling
from rvq_jax.patterns import Pattern
from rvq_jax.systems.decoding import programs
from rvq_jax.systems.decoding.devices import Rows
from rvq_jax.typing import Codes, Key


@dataclass(frozen=True)
class SamplingSettings:
    """How codes are sampled."""

    guidance_scale: float = 3.0  # weight of classifier-free guidance, 1 for none
    text_guidance_scale: float | None = None  # double guidance: the text's own, over the melody's
    temperature: float = 1.0  # 0 takes the likeliest code
    top_k: int | None = 250  # likeliest codes to sample from; None for all
    top_p: float | None = None  # of these the fewest of this probability; None for all
    sequential_guidance: bool = (
        False  # guided and unguided one after another: less memory, more time
    )
    repetition: float | None = None  # see `rvq_jax.lm.sampling.Sampling`; of heads without a depth

    def __post_init__(self):
        for name in ("temperature", "top_k", "top_p", "repetition"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if not math.isfinite(self.temperature):
            raise ValueError(f"temperature must be finite, got {self.temperature}")
        if self.top_k is not None and self.top_k != int(min(self.top_k, 2**31 - 1)):
            raise ValueError(f"top_k must be a whole number below 2³¹, got {self.top_k}")
        if self.top_p is not None and self.top_p > 1:
            raise ValueError(f"top_p must be in 0..1, got {self.top_p}")

    @property
    def options(self) -> dict:
        """As the programs take them."""
        guidance = None if self.guidance_scale == 1.0 else float(self.guidance_scale)
        if self.text_guidance_scale is not None:
            guidance = float(self.guidance_scale), float(self.text_guidance_scale)
        limits = int(self.top_k or 0), float(self.top_p or 0)
        sampling = Sampling(float(self.temperature), *limits, self.repetition)
        return {
            "guidance": guidance,
            "sampling": sampling,
            "sequential_guidance": self.sequential_guidance,
        }


class GenerationRequest(NamedTuple):
    """What is to be generated."""

    forced: np.ndarray  # [B, K, F] int32, -1 where a code is to be sampled
    lengths: np.ndarray  # [B], frames of each row
    window: int  # frames sampled at once; F or less
    stride: int  # frames that every further window adds


class Window(NamedTuple):
    """One window of a request as the programs take it."""

    pattern: Pattern
    forced: np.ndarray  # [B, K, F'] with frames up to a bucket
    lengths: np.ndarray  # [B], within the window
    prefill_steps: int  # first steps that are forced in every row


def window_of(pattern_name: str, forced: Codes, lengths: np.ndarray) -> Window:
    """A window of codes `[B, K, F]`, padded so that windows near in length share programs."""
    _, levels, frames = forced.shape
    pattern = patterns.padded_pattern(pattern_name, levels, frames, pad_frames=True)
    forced = np.pad(
        forced, [(0, 0), (0, 0), (0, pattern.frames - frames)], constant_values=-1
    ).astype(np.int32)
    frame_at = pattern.frame_at[None]
    valid = (frame_at >= 0) & (frame_at < lengths[:, None, None])
    drawn_T = (valid & (np.asarray(pattern.interleave(forced, fill=-1)) < 0)).any((0, 1))
    first = int(np.argmax(drawn_T)) if drawn_T.any() else pattern.steps
    return Window(pattern, forced, lengths, first // patterns.BUCKET * patterns.BUCKET)


def groups(pattern_name: str, levels: int, lengths: np.ndarray) -> list[np.ndarray]:
    """Rows that can be sampled together.

    All, if the steps of a shorter row are the first ones of a longer row. Not so in patterns that
    finish one level before the next begins: there all steps depend on the length.
    """
    whole = patterns.named(pattern_name, levels, int(lengths.max())).step_of
    for frames in np.unique(lengths):
        if not np.array_equal(
            whole[:, :frames], patterns.named(pattern_name, levels, frames).step_of
        ):
            return [np.flatnonzero(lengths == frames) for frames in np.unique(lengths)]
    return [np.arange(len(lengths))]


def sample_all(
    config: LMConfig,
    params: nnx.State,
    pattern_name: str,
    request: GenerationRequest,
    conditions_at: Callable[[int], Conditions],
    keys: Key,
    settings: SamplingSettings,
) -> Codes:
    """All codes `[B, K, F]` of a request, rows that cannot be sampled together one after another.

    Args:
      config: of the token model.
      params: its parameters, with lists of layers.
      pattern_name: of its pattern.
      request: what is to be generated.
      conditions_at: from the frame that a window begins at to its conditions.
      keys: `[B]`, one of each row.
      settings: how codes are sampled.

    Returns:
      Codes; after the end of its row a code means nothing.
    """
    codes = np.zeros_like(request.forced)
    for rows in groups(pattern_name, config.levels, request.lengths):
        lengths = request.lengths[rows]
        part = request._replace(forced=request.forced[rows, :, : lengths.max()], lengths=lengths)

        def at(begin: int, rows=rows) -> Conditions:
            return jax.tree.map(lambda x: x[rows], conditions_at(begin))

        found = list(sample(config, params, pattern_name, part, at, keys[rows], settings))
        codes[rows, :, : lengths.max()] = np.concatenate(found, axis=2)
    return codes


def sample(
    config: LMConfig,
    params: nnx.State,
    pattern_name: str,
    request: GenerationRequest,
    conditions_at: Callable[[int], Conditions],
    keys: Key,
    settings: SamplingSettings,
    chunk: int | None = None,
) -> Iterator[Codes]:
    """Samples codes, a window at a time or in smaller pieces.

    The first window samples its frames; each further one begins `stride` frames later, keeps the
    codes that it shares with the one before and samples the rest, its keys folded from the frame
    it begins at.

    Args:
      config: of the token model.
      params: its parameters, with lists of layers.
      pattern_name: of its pattern.
      request: what is to be generated.
      conditions_at: from the frame that a window begins at to its conditions.
      keys: `[B]`, one of each row.
      settings: how codes are sampled.
      chunk: frames of a piece; None for whole windows.

    Yields:
      Codes `[B, K, f]` in turn; after the end of its row a code means nothing.

    Raises:
      ValueError: rows of different lengths, in a pattern that has another table for each.
    """
    if len(groups(pattern_name, config.levels, request.lengths)) > 1:
        raise ValueError(f"rows of different lengths cannot be sampled together by {pattern_name}")
    codes, total = request.forced.copy(), request.forced.shape[2]
    begin = done = 0
    while done < total:
        end = min(begin + request.window, total)
        lengths = np.clip(request.lengths - begin, 0, end - begin)
        window = window_of(pattern_name, codes[:, :, begin:end], lengths)
        row_keys = keys if begin == 0 else _folded(keys, begin)
        pieces = _pieces(config, params, window, conditions_at(begin), row_keys, settings, chunk)
        for first, piece in pieces:
            new = piece[:, :, max(done - begin - first, 0) : end - begin - first]
            if new.shape[2]:
                codes[:, :, done : done + new.shape[2]] = new
                done += new.shape[2]
                yield new
        begin += request.stride


def forwards(pattern_name: str, levels: int, frames: int, window: int, stride: int) -> int:
    """How many times a token model runs for a clip: once for each step that is sampled, and once
    for all that a further window reads of the one before.

    Args:
      pattern_name: of its pattern.
      levels: K.
      frames: of the clip.
      window: frames sampled at once.
      stride: frames that every further window adds.

    Returns:
      The number.
    """
    count = begin = done = 0
    while done < frames:
        end = min(begin + window, frames)
        forced = np.where(np.arange(begin, end) < done, 0, -1)
        forced = np.broadcast_to(forced, (1, levels, end - begin))
        read = window_of(pattern_name, forced, np.array([end - begin])).prefill_steps
        count += patterns.named(pattern_name, levels, end - begin).steps - read + (read > 0)
        done, begin = end, begin + stride
    return count


def _pieces(
    config,
    params,
    window: Window,
    conditions: Conditions,
    keys: Key,
    settings: SamplingSettings,
    chunk: int | None,
) -> Iterator[tuple[int, np.ndarray]]:
    """The first frame and the codes of each piece of a window."""
    pattern, forced, lengths, prefill_steps = window
    rows = Rows.of(params, len(forced))
    args = pattern, *rows.place((conditions, keys, forced, lengths))
    options = {"prefill_steps": prefill_steps, **settings.options}
    if chunk is None:
        with rows.running():
            decoded = programs.generate_codes(config, params, *args, **options)
        yield 0, np.asarray(decoded.codes)[: rows.count]
        return
    with rows.running():
        decoding, state = programs.prefill(config, params, *args, **options)
    for first in range(0, int(lengths.max()), chunk):
        last = min(first + chunk, int(lengths.max()))
        until = int(pattern.step_of[:, last - 1].max()) + 1
        with rows.running():
            state = programs.decode_until(config, params, decoding, state, until)
            codes = programs.gather_codes(pattern, decoding, state).codes
        yield first, np.asarray(codes)[: rows.count, :, first:last]


def _folded(keys: Key, begin: int) -> Key:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, begin)
