"""Codes drawn for a request: prompts, rows of different lengths, windows, pieces while they come.

Host-side numpy around the programs of `rvq_jax.systems.programs`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from rvq_jax import patterns
from rvq_jax.lm.conditions import Told
from rvq_jax.lm.model import LMConfig
from rvq_jax.lm.sampling import Sampling
from rvq_jax.patterns import Pattern
from rvq_jax.systems import programs
from rvq_jax.typing import Codes, Key


@dataclass(frozen=True)
class Settings:
    """How codes are drawn."""

    guidance: float = 3.0  # weight of classifier-free guidance, 1 for none
    guidance_text: float | None = None  # double guidance: the text's own, over the melody's
    temperature: float = 1.0  # 0 takes the likeliest code
    top_k: int = 250  # likeliest codes to draw from; 0 for all
    top_p: float = 0.0  # of these the fewest of this probability; 0 for all
    two_pass: bool = False  # guided and unguided one after another: less memory, more time

    def __post_init__(self):
        for name in ("temperature", "top_k", "top_p"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    @property
    def options(self) -> dict:
        """As the programs take them."""
        guidance = None if self.guidance == 1.0 else float(self.guidance)
        if self.guidance_text is not None:
            guidance = float(self.guidance), float(self.guidance_text)
        how = Sampling(float(self.temperature), int(self.top_k), float(self.top_p))
        return {"guidance": guidance, "how": how, "two_pass": self.two_pass}


class Request(NamedTuple):
    """What is to be drawn."""

    forced: np.ndarray  # [B, K, F] int32, -1 where a code is to be drawn
    lengths: np.ndarray  # [B], frames of each row
    window: int  # frames drawn at once; F or less
    stride: int  # frames that every further window draws


class Window(NamedTuple):
    """One window of a request as the programs take it."""

    pattern: Pattern
    forced: np.ndarray  # [B, K, F'] with frames up to a bucket
    lengths: np.ndarray  # [B], within the window
    known: int  # first steps that are forced in every row


def window_of(name: str, forced: Codes, lengths: np.ndarray) -> Window:
    """A window of codes `[B, K, F]`, padded so that windows near in length share programs."""
    _, levels, frames = forced.shape
    pattern = programs.layout(patterns.named(name, levels, frames))
    forced = np.pad(
        forced, [(0, 0), (0, 0), (0, pattern.frames - frames)], constant_values=-1
    ).astype(np.int32)
    frame_at = pattern.frame_at[None]
    valid = (frame_at >= 0) & (frame_at < lengths[:, None, None])
    drawn_T = (valid & (np.asarray(pattern.interleave(forced, fill=-1)) < 0)).any((0, 1))
    first = int(np.argmax(drawn_T)) if drawn_T.any() else pattern.steps
    return Window(pattern, forced, lengths, first // programs.BUCKET * programs.BUCKET)


def groups(name: str, levels: int, lengths: np.ndarray) -> list[np.ndarray]:
    """Rows that can be drawn together: all, if shorter rows have the first part of the table.

    A pattern that looks a whole level ahead has another table for every length.
    """
    whole = patterns.named(name, levels, int(lengths.max())).step_of
    for frames in np.unique(lengths):
        if not np.array_equal(whole[:, :frames], patterns.named(name, levels, frames).step_of):
            return [np.flatnonzero(lengths == frames) for frames in np.unique(lengths)]
    return [np.arange(len(lengths))]


def draw(
    config: LMConfig,
    params: nnx.State,
    name: str,
    request: Request,
    told_at: Callable[[int], Told],
    keys: Key,
    settings: Settings,
    chunk: int | None = None,
) -> Iterator[Codes]:
    """Codes `[B, K, f]` in turn, `chunk` frames at a time, or a window at a time.

    The first window draws its frames; each further one begins `stride` frames later, keeps what is
    known of its own and draws the rest, its keys folded from its index. told_at: from the frame
    that a window begins at to what the model is told. Rows have any codes after their end. Raises
    ValueError for rows of different lengths in a pattern that has another table for each.
    """
    if len(groups(name, config.levels, request.lengths)) > 1:
        raise ValueError(f"rows of different lengths cannot be drawn together by {name}")
    codes, total = request.forced.copy(), request.forced.shape[2]
    begin = done = 0
    while done < total:
        end = min(begin + request.window, total)
        lengths = np.clip(request.lengths - begin, 0, end - begin)
        window = window_of(name, codes[:, :, begin:end], lengths)
        row_keys = keys if begin == 0 else _folded(keys, begin)
        pieces = _pieces(config, params, window, told_at(begin), row_keys, settings, chunk)
        for first, piece in pieces:
            new = piece[:, :, max(done - begin - first, 0) : end - begin - first]
            if new.shape[2]:
                codes[:, :, done : done + new.shape[2]] = new
                done += new.shape[2]
                yield new
        begin += request.stride


def _pieces(
    config, params, window: Window, told: Told, keys: Key, settings: Settings, chunk: int | None
) -> Iterator[tuple[int, np.ndarray]]:
    """The first frame and the codes of each piece of a window."""
    pattern, forced, lengths, known = window
    args = pattern, told, keys, forced, lengths
    if chunk is None:
        decoded = programs.generate_codes(config, params, *args, known=known, **settings.options)
        yield 0, np.asarray(decoded.codes)
        return
    job, drawing = programs.begin(config, params, *args, known=known, **settings.options)
    for first in range(0, int(lengths.max()), chunk):
        last = min(first + chunk, int(lengths.max()))
        until = int(pattern.step_of[:, last - 1].max()) + 1
        drawing = programs.advance(config, params, job, drawing, until)
        codes = programs.finish(pattern, job, drawing).codes
        yield first, np.asarray(codes[:, :, first:last])


def _folded(keys: Key, begin: int) -> Key:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, begin)
