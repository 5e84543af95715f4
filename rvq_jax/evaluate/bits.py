"""Bits of held-out codes under a token model, clip by clip: exact, or a bound on them."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from rvq_jax import patterns, progress
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.evaluate.conditions import caption_conditions, melodies, semantic_conditions
from rvq_jax.systems.decoding.masked import bound_codes, level_bits
from rvq_jax.systems.decoding.programs import score_codes
from rvq_jax.systems.generators import Generator
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.semantic import SemanticModel
from rvq_jax.systems.soundstorm import SoundStorm
from rvq_jax.systems.valle import VALLE
from rvq_jax.train.runs.semantic import semantic_set

SAMPLES = 8  # of a bound, for each window
SEED = 0  # of their masks: the same for all models, so that differences are not of masks


class ClipBits(NamedTuple):
    """Bits of held-out clips, summed over their frames."""

    levels: np.ndarray  # [M, K], of the codes of each level; of a masked model a bound's mean
    frames: np.ndarray  # [M]
    semantic: np.ndarray | None = None  # [M], of the tokens that a SoundStorm's codes are given
    variance: np.ndarray | None = None  # [M], of a bound's mean; None where bits are exact

    @property
    def per_frame(self) -> np.ndarray:
        """Bits per frame `[M]` of all that a model makes: codes, and semantic tokens."""
        semantic = 0.0 if self.semantic is None else self.semantic
        return (self.levels.sum(1) + semantic) / self.frames

    @property
    def standard_error(self) -> float | None:
        """Of the mean over clips, in bits per frame, by the samples of a bound; None if exact."""
        if self.variance is None:
            return None
        return float(np.sqrt(self.variance.sum()) / self.frames.sum())


class Windows(NamedTuple):
    """A batch of windows of clips."""

    rows: list[tuple[int, int]]  # clip and first frame of each, [B]
    codes: np.ndarray  # [B, K, F] int32, 0 after a window's own frames
    counts: np.ndarray  # [B], its own frames
    last: np.ndarray  # [B] bool, whether the clip ends in it
    used: int  # how many are counted; the others fill the batch


def clip_bits(
    model: Generator, heldout: CodeSet, frames: int | None = None, batch: int = 16
) -> ClipBits:
    """Scores a token model on held-out codes, clip by clip.

    A MusicGen's bits are exact. Those of a masked model are bounded: they are at most the mean over
    orders of decoding (see `rvq_jax.lm.masked_score.bound`), estimated by `SAMPLES` masks of each
    level of each window. A SoundStorm's codes are scored given the clip's own semantic tokens, and
    those cost what its semantic model says, exactly, with the end of the clip. Those of a VALL-E
    are exact, with the end of each clip, which is scored whole.

    Args:
      model: the token model; its codec is not needed.
      heldout: held-out codes, which are scored in consecutive windows.
      frames: of a window, those of the crops that the model was trained on; None for its
        config.window, or for whole clips if it has none.
      batch: windows that are scored at a time.

    Returns:
      Bits of each clip.

    Raises:
      UserError: codes that are not the model's, or lack the melody or semantic tokens it reads.
    """
    check_codes(model, heldout)
    if isinstance(model, MusicGen):
        return _exact(model, heldout, frames, batch)
    if isinstance(model, VALLE):
        return _spoken(model, heldout, batch)
    found = _bound(model, heldout, frames, batch)
    if not isinstance(model, SoundStorm):
        return found
    return found._replace(semantic=semantic_bits(model.semantic, heldout, batch).levels[:, 0])


def semantic_bits(model: SemanticModel, heldout: CodeSet, batch: int = 16) -> ClipBits:
    """Scores a model of semantic tokens on those of held-out codes, with the end of each clip.

    Args:
      model: the model; tokens are scored in windows as long as its own.
      heldout: held-out codes with semantic tokens.
      batch: windows that are scored at a time.

    Returns:
      Exact bits `[M, 1]` of each clip, and how many tokens it has.

    Raises:
      UserError: codes without semantic tokens, or words that the model cannot read.
    """
    return _exact(model.lm, semantic_set(heldout), None, batch, model)


def check_codes(model: Generator, heldout: CodeSet, name: str = "the model") -> None:
    """Raises UserError unless a model, of this name, can score the codes."""
    config, levels = model.config, len(heldout.codes[0])
    if (levels, heldout.codebook_size) != (config.levels, config.codebook_size):
        raise UserError(
            f"the held-out codes have {levels} levels of {heldout.codebook_size}, {name} "
            f"{config.levels} of {config.codebook_size}; give the codes of its codec"
        )
    if isinstance(model, SoundStorm):
        _check_semantics(model, heldout, name)
    if isinstance(model, VALLE) and model.config.window is not None:
        longest = int(_lengths(heldout).max())
        if longest >= model.config.window:
            raise UserError(
                f"{name} says at most {model.config.window} frames with their end, and a held-out "
                f"clip has {longest}: leave longer utterances out of the held-out codes"
            )
    if not isinstance(model, MusicGen):
        return
    if config.melody_bins not in (None, heldout.melody_bins):
        raise UserError(
            f"{name} follows a melody: build the held-out codes with --melody {config.melody_bins}"
        )
    if config.end:
        raise UserError(f"{name} ends rows itself, and windows of clips do not end as it says")


def _check_semantics(model: SoundStorm, heldout: CodeSet, name: str) -> None:
    if model.semantic is None:
        raise UserError(
            f"{name} has no semantic model, whose bits count too; train it with --semantic, the "
            "folder of one"
        )
    wanted = model.config.semantic_size, model.config.semantic_ratio
    have = heldout.semantic_size, heldout.semantic_ratio
    if heldout.semantics is None or have != wanted:
        what = "none" if heldout.semantics is None else f"{have[0]}, one of every {have[1]} frames"
        raise UserError(
            f"{name} reads {wanted[0]} semantic tokens, one of every {wanted[1]} frames, and the "
            f"held-out codes have {what}; build them with --semantic as those it was trained on"
        )


def _exact(
    model: MusicGen,
    heldout: CodeSet,
    frames: int | None,
    batch: int,
    reader: MusicGen | SemanticModel | None = None,
) -> ClipBits:
    """Bits of teacher-forced passes; of a model that ends rows also those of each clip's end.

    reader: of captions; the model itself for None."""
    config, lengths = model.config, _lengths(heldout)
    longest = int(lengths.max())
    frames = min(config.window or longest, longest) if frames is None else frames
    room = frames + config.end  # for the end of a clip that fills its last window
    pattern = patterns.padded_pattern(model.pattern, config.levels, room)
    conditions_of = caption_conditions(reader or model, heldout.captions)
    bits_MK = np.zeros((len(heldout), config.levels))
    for part in _windows(model, heldout, frames, room, batch):
        conditions = conditions_of([i for i, _ in part.rows])
        conditions = conditions | melodies(model, heldout, part.rows, part.counts)
        mask = np.arange(room) < part.counts[:, None]
        found = score_codes(config, model.params, pattern, part.codes, conditions, mask)
        found = np.asarray(found, np.float64)
        if config.end:  # a window inside of a clip ends without it
            found = np.where((mask | part.last[:, None])[:, None], found, 0.0)
        found = found.sum(2)
        for row, (i, _) in enumerate(part.rows[: part.used]):
            bits_MK[i] += found[row]
    return ClipBits(bits_MK, lengths)


def _spoken(model: VALLE, heldout: CodeSet, batch: int) -> ClipBits:
    """Bits of whole utterances: of the first level with its end, of each other given those below;
    without a voice."""
    lengths, lm, levels = _lengths(heldout), model.first.lm, model.config.levels
    frames = int(lengths.max())
    pattern = patterns.padded_pattern(lm.pattern, 1, frames + 1)
    conditions_of = caption_conditions(model, heldout.captions)
    bits_MK = np.zeros((len(heldout), levels))
    for part in _windows(model, heldout, frames, frames + 1, batch):
        conditions = conditions_of([i for i, _ in part.rows])
        mask = np.arange(frames + 1) < part.counts[:, None]
        first = part.codes[:, :1]
        own = score_codes(lm.config, lm.params, pattern, first, conditions, mask)
        above = level_bits(model.config, model.params, part.codes, conditions, part.counts)
        both = (np.asarray(x, np.float64).sum(2) for x in (own, above))
        found = np.concatenate([*both], axis=1)
        for row, (i, _) in enumerate(part.rows[: part.used]):
            bits_MK[i] = found[row]
    return ClipBits(bits_MK, lengths)


def _bound(model: Generator, heldout: CodeSet, frames: int | None, batch: int) -> ClipBits:
    """The mean of samples of the bound; each window's masks are its own, whatever its batch."""
    config, lengths = model.config, _lengths(heldout)
    longest = int(lengths.max())
    frames = min(frames or config.window or longest, longest)
    if isinstance(model, SoundStorm) and frames < longest:
        # Windows begin with a semantic token, as crops do in training.
        frames = max(1, frames // config.semantic_ratio) * config.semantic_ratio
    conditions_of = _masked_conditions(model, heldout, frames)
    bits_MK, variance_M = np.zeros((len(heldout), config.levels)), np.zeros(len(heldout))
    for part in _windows(model, heldout, frames, frames, batch):
        found = bound_codes(
            config,
            model.params,
            part.codes,
            conditions_of(part.rows),
            _keys(part.rows),
            part.counts,
            samples=SAMPLES,
        )
        found_SBK = np.asarray(found, np.float64)
        # Samples of a level have masks of their own, so their variances add up.
        variances_B = found_SBK.var(0, ddof=1).sum(1) / SAMPLES
        for row, (i, _) in enumerate(part.rows[: part.used]):
            bits_MK[i] += found_SBK[:, row].mean(0)
            variance_M[i] += variances_B[row]
    return ClipBits(bits_MK, lengths, None, variance_M)


def _masked_conditions(
    model: Generator, heldout: CodeSet, frames: int
) -> Callable[[list[tuple[int, int]]], dict]:
    """A function from windows of so many frames to what a masked model reads beside codes."""
    if isinstance(model, SoundStorm):
        return lambda rows: semantic_conditions(model, heldout, rows, frames)
    conditions_of = caption_conditions(model, heldout.captions)
    return lambda rows: conditions_of([i for i, _ in rows])


def _windows(
    model: Generator, heldout: CodeSet, frames: int, room: int, batch: int
) -> Iterator[Windows]:
    """All clips in consecutive windows of so many frames, padded to `room`, in batches of one size,
    with a progress bar."""
    lengths = _lengths(heldout)
    windows = [(i, begin) for i, n in enumerate(lengths) for begin in range(0, n, frames)]
    options = {"desc": "bits", "unit": "window", "delay": 2, "leave": False}
    with progress.bar(total=len(windows), **options) as bar:
        for first in range(0, len(windows), batch):
            part = windows[first : first + batch]
            # What fills the last batch is a copy, and counts for nothing.
            rows = part + part[-1:] * (batch - len(part))
            pieces = [heldout.codes[i][:, begin : begin + frames] for i, begin in rows]
            counts = np.array([piece.shape[1] for piece in pieces])
            codes = np.stack([_padded(piece, room) for piece in pieces])
            last = np.array([begin + frames >= lengths[i] for i, begin in rows])
            with progress.compiling("the first windows", repr(model)):
                yield Windows(rows, codes, counts, last, len(part))
            bar.update(len(part))


def _keys(rows: list[tuple[int, int]]) -> jax.Array:
    """A key of each window, by its clip and its first frame."""
    keys = jax.random.key(SEED)
    for numbers in np.array(rows, np.uint32).T:
        keys = jax.vmap(jax.random.fold_in, (0 if keys.ndim else None, 0))(keys, numbers)
    return keys


def _lengths(heldout: CodeSet) -> np.ndarray:
    return np.array([codes.shape[1] for codes in heldout.codes])


def _padded(codes_KF: np.ndarray, frames: int) -> np.ndarray:
    return np.pad(codes_KF, ((0, 0), (0, frames - codes_KF.shape[1])))
