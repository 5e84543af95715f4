"""How near codecs and coders come to clips: every point on every clip, file by file."""

import collections
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from rvq_jax import config as configs
from rvq_jax import progress
from rvq_jax.errors import UserError, shown
from rvq_jax.evaluate import coders, results
from rvq_jax.evaluate import pieces as cutting
from rvq_jax.evaluate.measures import MEASURES, Measure, missing
from rvq_jax.evaluate.pieces import Clip, Piece
from rvq_jax.evaluate.points import CodecPoints, CoderPoint, Coding, key_of, levels_of
from rvq_jax.evaluate.rows import COUNTS, Rows, packed
from rvq_jax.metrics import align
from rvq_jax.metrics.codes import code_counts
from rvq_jax.metrics.speech import silent
from rvq_jax.systems.codec import Codec
from rvq_jax.typing import Array

PIECE = 10.0  # seconds
BATCH = 4  # pieces
LONGEST_DELAY = 0.1  # seconds that a codec may be late or early
PROBES = 4  # clips that its delay is measured on
ORIGINAL, DELAY = "original", "delay"

Source = CodecPoints | CoderPoint


def evaluate_codec(
    codec: Codec,
    clips: Iterable[tuple[Array, int]],
    *,
    levels: Sequence[int] | None = None,
    against: Sequence[str] = (),
    signal: str = "music",
    metrics: Sequence[str] | None = None,
    piece: float = PIECE,
    batch: int = BATCH,
) -> dict:
    """Measures how near a codec's audio comes to clips, beside Opus and MP3 at the same task.

    Args:
      codec: codec to measure.
      clips: audio `[S, C]` or `[S]` with its rate in hertz, each of any rate and length.
      levels: numbers of levels to decode; 1, 2, 4 … and all for None.
      against: coders to compare with, such as "opus:12" or "mp3:64", in kbps.
      signal: "speech" or "music", which says what metrics there are and how Opus is set.
      metrics: names of those to measure (see `measures.MEASURES`); all of the signal for None.
      piece: seconds that are coded and measured at once; longer clips are cut.
      batch: pieces that the codec takes at once.

    Returns:
      What results.json of `rvq-jax evaluate` holds: `systems` with the mean and the 95 % interval
      over clips of every metric, `pairs` with those of differences, `use` of the codes by level.

    Raises:
      UserError: unknown coders, levels or metrics, or a coder whose package is missing.
      ValueError: clips that are no audio.
    """
    found = cutting.of_arrays(clips)
    if not found:
        raise ValueError("there are no clips to measure on")
    sources = [CodecPoints("codec", codec, levels_of(codec, levels, "the codec"), piece, batch)]
    sources += [CoderPoint(coders.parse(text, signal)) for text in against]
    settings = Settings(1 if codec.config.channels == 1 else None, piece, batch)
    rows, measures = Rows(), measures_of(signal, metrics)
    left = measure(sources, found, measures, rows, settings)
    done = results.of_codecs(sources, found, measures, rows, left, settings)
    done["data"]["signal"] = signal
    return done


def measures_of(signal: str, names: Sequence[str] | None = None) -> tuple[Measure, ...]:
    """The metrics of a kind of signal, those without their package among them.

    names: of those that are wanted; all for None. Raises UserError for one that is not there.
    """
    found = {m.name: m for m in MEASURES if m.signal in (None, signal)}
    for name in names or ():
        if name not in found:
            raise UserError(f"{shown(name)} is no metric of {signal}{configs.nearest(name, found)}")
    return tuple(m for m in found.values() if names is None or m.name in names)


class Settings(NamedTuple):
    """How clips are put to all that is measured on them."""

    channels: int | None  # 1 to mix every clip to mono; None to leave them
    piece: float  # seconds of the longest piece
    batch: int  # pieces at a time, which changes no result

    def key(self, what: str) -> str:
        """A short name of results of a point, by its key, or of something else, under them."""
        return key_of(what, channels=self.channels, piece=self.piece)


class Audio(Protocol):
    """Where the first piece of clips goes, to be listened to."""

    def keep(self, clip: Clip, key: str, audio_SC: np.ndarray, rate: int) -> None:
        """Takes what is made of a clip.

        Args:
          clip: the clip.
          key: what it is of (`Settings.key`).
          audio_SC: `[S, C]`.
          rate: in hertz.
        """

    def has(self, clip: Clip, key: str) -> bool:
        """Whether there is nothing to keep of a clip under a key."""


def measure(
    sources: Sequence[Source],
    clips: Sequence[Clip],
    measures: Sequence[Measure],
    rows: Rows,
    settings: Settings,
    audio: Audio | None = None,
) -> dict[str, str]:
    """Measures every point on every clip that has no row yet.

    Args:
      sources: what is measured.
      clips: on what.
      measures: by what; those whose package is missing are passed over.
      rows: what was measured before, and gets what is measured now.
      settings: of all of it.
      audio: gets the first piece of each clip, as it was and as every point decodes it.

    Returns:
      Clips that could not be read, and why, by name.
    """
    measures = [m for m in measures if missing(m) is None]
    left: dict[str, str] = {}
    for source in sources:
        keys = [settings.key(point.key) for point in source.points]
        pending = [
            i
            for i, clip in enumerate(clips)
            if not _is_done(clip, keys, measures, rows, settings, audio)
        ]
        with progress.bar(
            total=len(clips),
            initial=len(clips) - len(pending),
            desc=source.name,
            unit="clip",
        ) as bar:
            for _ in _measured(source, clips, pending, measures, rows, settings, audio, left):
                bar.update()
    return left


def _is_done(clip, keys, measures, rows, settings, audio) -> bool:
    found = [rows.get(key, clip.identity) for key in keys]
    names = {m.name for m in measures}
    whole = all(row and names <= {*row.get("scores", ())} for row in found)
    heard = [settings.key(ORIGINAL), *keys]
    return whole and (audio is None or all(audio.has(clip, key) for key in heard))


def _measured(source, clips, pending, measures, rows, settings, audio, left) -> Iterator[int]:
    """Measures pending clips, and gives each one's index when its rows are there."""
    if not pending:
        return
    keys = [settings.key(point.key) for point in source.points]
    late = _delay(source, clips, rows, keys[-1], settings)
    files: dict[int, _File] = {}
    for group in cutting.batches(_pieces(clips, pending, settings, left), settings.batch):
        coded, codes = source.code(group)
        for part, codings, part_codes in zip(group, coded, codes, strict=True):
            clip = clips[part.clip]
            codings = [_aligned(part, coding, late) for coding in codings]
            file = files.setdefault(part.clip, _File(len(keys)))
            file.add(part, codings, part_codes, measures)
            if part.first and audio is not None:
                heard = [part.audio_SC, *(coding.audio_SC for coding in codings)]
                for key, audio_SC in zip([settings.key(ORIGINAL), *keys], heard, strict=True):
                    if not audio.has(clip, key):
                        audio.keep(clip, key, audio_SC, part.rate)
            if part.last:
                for row in files.pop(part.clip).rows(keys, clip):
                    # Beside what another call, by other metrics, has found.
                    before = rows.get(row["key"], row["clip"]) or {}
                    rows.add(row | {"scores": before.get("scores", {}) | row["scores"]})
                yield part.clip


def _pieces(clips, wanted, settings: Settings, left: dict[str, str]) -> Iterator[Piece]:
    return cutting.pieces(clips, wanted, settings.channels, settings.piece, left)


class _File:
    """Sums over the pieces of one file, by point."""

    def __init__(self, points: int):
        self.seconds, self.bits, self.channels = 0.0, np.zeros(points), 0
        self.scores: list[dict] = [collections.defaultdict(lambda: [0.0, 0.0]) for _ in self.bits]
        self.codes: list[np.ndarray] = []

    def add(
        self,
        piece: Piece,
        codings: list[Coding],
        codes: np.ndarray | None,
        measures: Sequence[Measure],
    ) -> None:
        self.seconds, self.channels = self.seconds + piece.seconds, piece.audio_SC.shape[1]
        self.bits += [coding.bits for coding in codings]
        if codes is not None:
            self.codes.append(codes)
        for sums, coding in zip(self.scores, codings, strict=True):
            for m in measures:
                score = m.score(piece.audio_SC, coding.audio_SC, piece.rate)
                weight = piece.seconds if np.isfinite(score) else 0.0
                # Pieces in which a metric is undefined say nothing of their file.
                sums[m.name][0] += weight * score if weight else 0.0
                sums[m.name][1] += weight

    def rows(self, keys: list[str], clip: Clip) -> list[dict]:
        """A row for each point; the last one says too how often each code occurs, by level."""
        made = []
        for i, key in enumerate(keys):
            scores = {n: x / w if w else np.nan for n, (x, w) in self.scores[i].items()}
            row = {"key": key, "clip": clip.identity, "file": clip.name, "seconds": self.seconds}
            row |= {"channels": self.channels, "bits": self.bits[i], "scores": scores}
            made.append(row)
        if self.codes:
            codes_KF = np.concatenate(self.codes, axis=1)
            made[-1][COUNTS] = packed(code_counts(codes_KF, 1 + int(codes_KF.max(initial=0))))
        return made


def _aligned(piece: Piece, coding: Coding, late: float) -> Coding:
    shift = round(late * piece.rate)
    return coding._replace(audio_SC=align.aligned(piece.audio_SC, coding.audio_SC, shift))


def _delay(source: Source, clips: Sequence[Clip], rows: Rows, key: str, settings) -> float:
    """Seconds that a source's audio comes late by, if the first clips with sound agree on it, to a
    sample of each; else 0.

    Of one clip it might be chance: what a poor codec makes of noise is like it nowhere.
    """
    known = rows.get(key, DELAY)
    if known is not None:
        return float(known["seconds"])
    walk = _pieces(clips, range(len(clips)), settings, {})
    probes = (part for part in walk if part.first and not silent(part.audio_SC.mean(1)))
    found = []
    for group in cutting.batches(itertools.islice(probes, PROBES), settings.batch):
        for part, codings in zip(group, source.code(group)[0], strict=True):
            pair = part.audio_SC.mean(1), codings[-1].audio_SC.mean(1)
            if not silent(pair[1]):
                shift = align.delay(*pair, round(LONGEST_DELAY * part.rate))
                found.append((shift / part.rate, part.rate))
    late = _agreed(found)
    rows.add({"key": key, "clip": DELAY, "seconds": late})
    return late


def _agreed(found: Sequence[tuple[float, int]]) -> float:
    """The delay in seconds on which most of some agree, each known to a sample of its rate: that
    of the highest rate among them; 0 if there is none."""
    votes = [
        (
            sum(abs(late - other) < 0.51 / rate + 0.51 / other_rate for other, other_rate in found),
            rate,
            late,
        )
        for late, rate in found
    ]
    count, _, late = max(votes, default=(0, 0, 0.0), key=lambda vote: vote[:2])
    return late if 2 * count > len(found) else 0.0
