"""Which files of a folder are audio, those that cannot be read among them."""

import os
from collections.abc import Iterator
from pathlib import Path

from rvq_jax.audio.io import SUFFIXES, UNREAD
from rvq_jax.errors import UserError


def names(folder: str | Path, suffixes: tuple[str, ...] = SUFFIXES + UNREAD) -> list[Path]:
    """Names, relative to a folder, of the files below it that have one of the suffixes, sorted.

    Linked folders count too. Names that begin with a dot do not: they are an archive's or a
    system's notes beside the audio. What cannot be read (other formats, a pipe, a link that leads
    nowhere) is named all the same, as its reader says what is wrong. Raises UserError for a folder
    that cannot be listed.
    """
    paths = (Path(path) for path in _walk(os.fspath(folder), frozenset()))
    return sorted(p.relative_to(folder) for p in paths if p.suffix.lower() in suffixes)


def _walk(place: str, above: frozenset[str]) -> Iterator[str]:
    real = os.path.realpath(place)
    if real in above:  # A link back up would never end.
        return
    try:
        found = sorted(os.listdir(place))
    except OSError as error:
        raise UserError(
            f"folder {place} cannot be listed ({error.strerror}); see its permissions"
        ) from None
    for name in found:
        path = os.path.join(place, name)
        if name.startswith("."):
            continue
        if os.path.isdir(path):
            yield from _walk(path, above | {real})
        else:
            yield path
