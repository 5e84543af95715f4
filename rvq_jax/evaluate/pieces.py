"""Clips that codecs are measured on: files of a folder, in pieces that fit a program."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rvq_jax.audio import folder as audio_folder
from rvq_jax.audio import io, resample
from rvq_jax.data import table
from rvq_jax.errors import UserError, reason_of
from rvq_jax.typing import Array


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """Audio to be measured on, read when it is asked for."""

    name: str
    load: Callable[[], tuple[np.ndarray, int]]  # `[S, C]`, and the rate in hertz
    digest: Callable[[], str]  # of its contents

    @functools.cached_property
    def identity(self) -> str:
        """What tells its contents from others'."""
        return self.digest()


class Piece(NamedTuple):
    """A part of a clip, short enough to be coded at once."""

    clip: int  # index of its clip
    audio_SC: np.ndarray
    rate: int
    first: bool
    last: bool

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.audio_SC) / self.rate


def of_folder(folder: str | Path, split: str | None = None) -> list[Clip]:
    """The audio files of a folder, sorted by name.

    split: of metadata.csv, to take only its files; None for all audio files below the folder.
    Raises UserError for a folder that is not there, holds no audio, or has no such split.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"folder {folder} is not there; give --data a folder of audio files")
    if split is None:
        names = {name.as_posix(): folder / name for name in audio_folder.names(folder)}
    else:
        listed = folder / "metadata.csv"
        if not listed.is_file():
            raise UserError(f"folder {folder} has no metadata.csv that says splits; leave --split")
        names = {row.name: row.path for row in table.rows(listed, False) if row.split == split}
        if not names:
            raise UserError(f"{listed} has no file of split {split}; choose another --split")
    if not names:
        said = ", ".join(io.SUFFIXES)
        raise UserError(f"folder {folder} has no audio; put {said} files in it")
    return [
        Clip(name, functools.partial(io.read, path), functools.partial(_hash, path))
        for name, path in sorted(names.items())
    ]


def check_apart(folder: str | Path, out: str | Path) -> None:
    """Raises UserError if what an evaluation writes to `out` would be among a folder's audio."""
    place = (Path(out) / "audio").resolve()
    if Path(folder).resolve() in (place, *place.parents):
        raise UserError(
            f"{out} is in {folder}, where its audio would be measured next time; choose an --out "
            "elsewhere"
        )


def of_arrays(clips: Iterable[tuple[Array, int]]) -> list[Clip]:
    """Clips of audio `[S, C]` or `[S]` with their rates in hertz; raises ValueError for others."""
    made = []
    for i, (audio, rate) in enumerate(clips):
        audio = np.asarray(audio, np.float32)
        audio_SC = audio[:, None] if audio.ndim == 1 else audio
        if audio_SC.ndim != 2 or not audio_SC.size or not np.isfinite(audio_SC).all():
            raise ValueError(f"clip {i} must be finite audio [S, C], got {list(audio.shape)}")
        digest = hashlib.sha256(audio_SC.tobytes() + f"{audio_SC.shape} {rate}".encode())
        load = functools.partial(tuple, (audio_SC, int(rate)))
        made.append(Clip(f"clip {i}", load, digest.hexdigest))
    return made


def pieces(
    clips: list[Clip],
    wanted: Iterable[int],
    channels: int | None,
    seconds: float,
    left: dict[str, str],
) -> Iterator[Piece]:
    """Cuts clips, one after another, into equal pieces; only one clip is in memory at a time.

    Args:
      clips: all clips.
      wanted: indices of those to read.
      channels: 1 to mix every clip to mono; None to leave clips of one or two as they are.
      seconds: most that a piece has.
      left: gets the clips that cannot be read, and why, by their names.

    Yields:
      Pieces in order.
    """
    for i in wanted:
        clip = clips[i]
        if clip.name in left:
            continue
        try:
            audio_SC, rate = clip.load()
            if channels == 1:
                audio_SC = resample.to_channels(audio_SC, 1)
            elif audio_SC.shape[1] > 2:
                raise UserError(f"{audio_SC.shape[1]} channels; mix them to one or two")
        except UserError as error:
            where = clip.load.args[0] if hasattr(clip.load, "args") else clip.name
            left[clip.name] = reason_of(error, where)
            continue
        count = min(len(audio_SC), math.ceil(len(audio_SC) / (seconds * rate)))
        bounds = np.linspace(0, len(audio_SC), count + 1).round().astype(int)
        for k in range(count):
            part_SC = audio_SC[bounds[k] : bounds[k + 1]]
            yield Piece(i, part_SC, rate, k == 0, k == count - 1)


def batches(found: Iterable[Piece], size: int) -> Iterator[list[Piece]]:
    """Pieces in lists of `size`, the last perhaps shorter."""
    batch: list[Piece] = []
    for piece in found:
        batch.append(piece)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _hash(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"unread: {error}"
