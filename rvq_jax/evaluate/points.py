"""Codecs and coders at their operating points, alike to whoever measures them."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rvq_jax import progress
from rvq_jax.audio import resample
from rvq_jax.codec import segments
from rvq_jax.errors import UserError
from rvq_jax.evaluate.coders import KINDS, Coder
from rvq_jax.evaluate.pieces import Piece
from rvq_jax.systems.codec import Codec, Coded

SHARES = (1 / 8, 1 / 4, 1 / 2, 1)  # of the longest piece, that batches are padded to
SCALE_BITS = 32  # that a segment's loudness takes


class Point(NamedTuple):
    """A codec with so many of its levels, or a coder at its bitrate."""

    name: str
    family: str  # whose points are one line of a plot
    kind: str  # codec, opus or mp3
    levels: int | None
    key: str  # what tells its results from those of others


class Coding(NamedTuple):
    """A piece of audio, coded and decoded."""

    audio_SC: np.ndarray  # at the piece's own rate, exactly as long
    bits: int  # of the codes, before any entropy coding


@dataclasses.dataclass(frozen=True, eq=False)
class CodecPoints:
    """A codec with several numbers of its levels, of which each decodes a prefix of the same."""

    name: str
    codec: Codec
    levels: tuple[int, ...]
    longest: float  # seconds of a piece
    batch: int  # pieces at a time

    @property
    def points(self) -> list[Point]:
        """One for each number of levels."""
        return [
            Point(_levels(self.name, k), self.name, "codec", k, self.key(k)) for k in self.levels
        ]

    def key(self, levels: int) -> str:
        """What tells the results of so many levels from others: of these weights and this config,
        as a rate or segments change no array."""
        return f"codec {self._identity} {levels}"

    @functools.cached_property
    def _identity(self) -> str:
        config = hashlib.sha256(f"{self.codec.config}".encode()).hexdigest()
        return f"{self.codec.fingerprint().hex()} {config}"

    def code(self, pieces: Sequence[Piece]) -> tuple[list[list[Coding]], list[np.ndarray]]:
        """Codings of each piece by point, and its codes `[K, F]` with the most levels.

        Pieces of at most `longest` seconds, at most `batch` of them.
        """
        config = self.codec.config
        ready = [_for_codec(piece, config) for piece in pieces]
        most = max(map(len, ready))
        rooms = [math.ceil(share * self.longest * config.rate) + 1 for share in SHARES]
        room = next((room for room in rooms if room >= most), most)
        # What fills a batch is a copy: of one shape, all batches are one program.
        rows = [min(i, len(ready) - 1) for i in range(self.batch)]
        audio = np.zeros((self.batch, room, config.channels), np.float32)
        for i, row in enumerate(rows):
            audio[i, : len(ready[row])] = ready[row]
        lengths = np.array([len(ready[row]) for row in rows], np.int32)
        with progress.compiling("the first clips", repr(self.codec)):
            coded = self.codec.encode(audio, max(self.levels), lengths=lengths)
            codes = np.asarray(coded.codes)
        counts = [segments.frames_of(config, int(n)) for n in lengths]
        found: list[list[Coding]] = [[] for _ in pieces]
        for levels in self.levels:
            decoded = np.asarray(self.codec.decode(coded._replace(codes=codes[:, :levels])))
            for i, piece in enumerate(pieces):
                back_SC = _as_piece(decoded[i, : lengths[i]], config.rate, piece)
                found[i].append(Coding(back_SC, self._bits(levels, counts[i], coded)))
        places = (segments.places(config, int(n), room) for n in lengths[: len(pieces)])
        return found, [codes[i][:, own] for i, own in enumerate(places)]

    def _bits(self, levels: int, counts: list[int], coded: Coded) -> int:
        scales = 0 if coded.scales is None else SCALE_BITS * len(counts)
        return round(levels * math.log2(self.codec.config.codebook_size) * sum(counts)) + scales


@dataclasses.dataclass(frozen=True, eq=False)
class CoderPoint:
    """A coder of `rvq_jax.evaluate.coders` at its bitrate."""

    coder: Coder

    @property
    def name(self) -> str:
        """The coder's."""
        return self.coder.name

    @property
    def points(self) -> list[Point]:
        """The one that it is."""
        kind = self.coder.kind
        return [Point(self.name, KINDS[kind], kind, None, f"{self.coder}")]

    def code(self, pieces: Sequence[Piece]) -> tuple[list[list[Coding]], list[None]]:
        """Codings of each piece, with the bits of its packets; codes there are none."""
        found = [[Coding(*self.coder.code(piece.audio_SC, piece.rate))] for piece in pieces]
        return found, [None] * len(pieces)


def levels_of(codec: Codec, wanted: Sequence[int] | None, name: str) -> tuple[int, ...]:
    """Those of the wanted numbers of levels that a codec has; by default 1, 2, 4 … and all.

    Raises UserError if it has none of them.
    """
    total = codec.config.levels
    if wanted is None:
        doubled = [2**i for i in range(total.bit_length()) if 2**i < total]
        return (*doubled, total)
    found = tuple(sorted({k for k in wanted if 1 <= k <= total}))
    if not found:
        raise UserError(f"{name} has {total} levels; --levels asks for others alone")
    return found


def key_of(what: str, **settings) -> str:
    """A short name of the results of a point, or of what else there is, under settings."""
    text = " ".join([what, *(f"{k}={v}" for k, v in sorted(settings.items()))])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _levels(name: str, levels: int) -> str:
    return f"{name}, {levels} level{'s' * (levels > 1)}"


def _for_codec(piece: Piece, config) -> np.ndarray:
    audio_SC = resample.to_channels(piece.audio_SC, config.channels)
    resampled_SC = resample.to_rate(audio_SC, piece.rate, config.rate)
    # Too short for the resampler to give anything.
    return resampled_SC if len(resampled_SC) else audio_SC[:1]


def _as_piece(audio_SC: np.ndarray, rate: int, piece: Piece) -> np.ndarray:
    """Audio at the rate, channels and length of a piece."""
    audio_SC = resample.to_rate(audio_SC, rate, piece.rate)
    audio_SC = resample.to_channels(audio_SC, piece.audio_SC.shape[1])
    samples = len(piece.audio_SC)
    return np.pad(audio_SC[:samples], [(0, max(0, samples - len(audio_SC))), (0, 0)])
