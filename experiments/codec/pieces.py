"""The pieces of ten seconds that codecs are compared on, cut out of what is held out.

Of a voice they are its files one after another, in the order of their names, with 0.3 s of silence
between, until ten seconds are full; what is over of the last file is dropped. Of a work they are
its parts, one after another. Which of them are taken the seed says; none has a second without sound
in it.
"""

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from heldout import SEED, VOICES, WORK_PIECES, is_held_out, key, source
from store import digest, read, write_flac, write_table

from rvq_jax import files

SECONDS = 10
GAP = 0.3  # seconds between two files of a voice
FLOOR = -50.0  # dB of full scale that every second of a piece reaches


def of_voice(clips: list[tuple[str, np.ndarray, int]]) -> Iterator[tuple[list[str], np.ndarray]]:
    """Pieces `[S, C]` of files of one rate, and the names of those that are in each."""
    names, parts, have = [], [], 0
    for name, pcm_SC, rate in clips:
        size = SECONDS * rate
        if parts:
            parts.append(np.zeros((round(GAP * rate), pcm_SC.shape[1]), np.int16))
        parts.append(pcm_SC)
        names.append(name)
        have = sum(map(len, parts))
        if have >= size:
            yield names, np.concatenate(parts)[:size]
            names, parts = [], []


def of_work(pcm_SC: np.ndarray, rate: int) -> list[np.ndarray]:
    """Whole pieces `[S, C]` of a recording, one after another."""
    size = SECONDS * rate
    return [pcm_SC[i : i + size] for i in range(0, len(pcm_SC) - size + 1, size)]


def sounds(pcm_SC: np.ndarray, rate: int) -> bool:
    """Whether every second of a piece is louder than `FLOOR`."""
    seconds = pcm_SC.reshape(SECONDS, rate, -1) / 32768.0
    power = (seconds**2).mean(axis=(1, 2))
    return bool((10 * np.log10(power + 1e-12) >= FLOOR).all())


def chosen(source: str, audible: list[bool], count: int) -> list[int]:
    """Which of a source's pieces are taken: drawn by the seed, whatever other sources there are."""
    number = int.from_bytes(hashlib.sha256(source.encode()).digest()[:8])
    order = np.random.default_rng((SEED, number)).permutation(len(audible))
    return sorted([int(i) for i in order if audible[i]][:count])


def write(out: Path, kind: str, rows: list[dict]) -> list[dict]:
    """Writes a kind's pieces as FLAC below `out`/heldout, with a metadata.csv; returns the list."""
    held = sorted(filter(is_held_out, rows), key=lambda row: (row["speaker"], row["file"]))
    if not held:
        return []
    with files.writing_folder(out / "heldout" / kind, ours=("*.flac", "metadata.csv")) as place:
        cut, table = _cut(held, out / kind, place, kind)
        write_table(place / "metadata.csv", table)
    return cut


def _cut(held: list[dict], folder: Path, place: Path, kind: str) -> tuple[list[dict], list[dict]]:
    """Entries of the list and rows of the table of the pieces that it writes."""
    cut, table = [], []
    for whole, group in itertools.groupby(held, key=source):
        found, count = list(group), VOICES.get(whole, WORK_PIECES)
        captions = {row["file"]: row["caption"] for row in found}
        for i, names, piece_SC, rate in taken(whole, [*captions], folder, count):
            file = f"{Path(whole).stem}_{i:02d}.flac"
            write_flac(place / file, piece_SC, rate)
            entry = {"kind": kind, "name": file, "of": [key(name) for name in names], "number": i}
            cut.append(entry | {"seconds": SECONDS, "pcm": digest(piece_SC, rate)})
            said = {column: found[0][column] for column in ("speaker", "licence", "source")}
            caption = ", ".join(captions[name] for name in names)
            table.append({"file": file, "caption": caption, **said})
    return cut, table


def taken(
    whole: str, names: list[str], folder: Path, count: int
) -> Iterator[tuple[int, list[str], np.ndarray, int]]:
    """The pieces taken of a source: number, names of its files, samples `[S, C]` int16, rate.

    Args:
      whole: the source.
      names: its files.
      folder: where they are.
      count: pieces to take.
    """
    clips = [(name, *read(folder / name)) for name in names]
    rate = clips[0][2]
    if whole in VOICES:
        made = list(of_voice(clips))
    else:
        made = [(names, piece_SC) for piece_SC in of_work(clips[0][1], rate)]
    audible = [sounds(piece_SC, rate) for _, piece_SC in made]
    for i in chosen(whole, audible, count):
        yield i, *made[i], rate
