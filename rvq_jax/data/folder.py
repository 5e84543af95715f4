"""A folder of audio files, with or without metadata.csv, as a list of clips."""

import hashlib
import os
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

from rvq_jax.audio import folder as audio_folder
from rvq_jax.audio.io import SUFFIXES
from rvq_jax.data import table
from rvq_jax.errors import UserError


@dataclass(frozen=True)
class Clip:
    """One file of a folder."""

    path: Path
    name: str  # relative to the folder
    caption: str
    label: str
    split: str  # train, valid or test


def scan(folder: str | Path, captioned: bool = False, heldout: bool = False) -> list[Clip]:
    """The clips of a folder, sorted by name.

    metadata.csv, if there is one, lists them: column file (or file_name), and optionally caption
    (or caption_or_transcript, transcript, transcription, text), label and split. Without it all
    audio files count, those of linked folders and those that cannot be read among them, each once
    under whatever names, and file and folder names are caption and label. Without a split, every
    tenth clip by a hash of its name is valid and every tenth test; where that leaves none to train
    on or none held out, the last such clip changes side.

    Args:
      folder: the folder.
      captioned: whether a metadata.csv must have captions.
      heldout: whether all clips are held out but those that metadata.csv has in split train, which
        are left out.

    Raises:
      UserError: for a folder that is not there, has no audio or one clip only, and for what is
        wrong with metadata.csv (see `table.rows`), as stated splits with no train or none held
        out.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"folder {folder} is not there; give --data a folder of audio files")
    listed = folder / "metadata.csv"
    # A link that leads nowhere is a table that is missed, not a folder without one.
    if os.path.lexists(listed):
        clips = [Clip(**vars(row)) for row in table.rows(listed, captioned)]
        if not clips:
            raise UserError(f"{listed} lists no file; write a row for each, or remove it")
    else:
        clips = _from_names(folder)
    if not clips:
        raise UserError(f"folder {folder} has no audio; put {', '.join(SUFFIXES)} files in it")
    clips = sorted(clips, key=lambda clip: clip.name)
    if heldout:
        kept = [replace(clip, split=clip.split or "test") for clip in clips]
        return [clip for clip in kept if clip.split != "train"] or _with_splits(clips, folder)
    return _with_splits(clips, folder)


def _from_names(folder: Path) -> list[Clip]:
    clips: dict[str, Clip] = {}
    names = audio_folder.names(folder)
    # Of a file under several names, its own counts, not those of links.
    for name in sorted(names, key=lambda name: _is_linked(folder, name)):
        path = folder / name
        caption = path.stem.replace("_", " ").replace("-", " ")
        label = path.resolve().parent.name
        # Bytes of a name that are no text cannot be kept in a record.
        texts = (
            os.fsencode(text).decode(errors="backslashreplace")
            for text in (name.as_posix(), caption, label)
        )
        clips.setdefault(os.path.realpath(path), Clip(path, *texts, ""))
    return list(clips.values())


def _is_linked(folder: Path, name: Path) -> bool:
    return os.path.realpath(folder / name) != os.path.join(os.path.realpath(folder), name)


def _with_splits(clips: list[Clip], folder: Path) -> list[Clip]:
    """The clips with every split filled in, at least one to train on and one held out."""
    if len(clips) < 2:
        raise UserError(f"folder {folder} has one clip; a study needs two, one of them held out")
    splits = [clip.split or _split_of(clip.name) for clip in clips]
    lacking = "train" if "train" not in splits else "test" if set(splits) == {"train"} else None
    if lacking:
        free = [i for i, clip in enumerate(clips) if not clip.split]
        if not free:
            what = "train" if lacking == "train" else "valid or test"
            raise UserError(f"{folder}/metadata.csv has no clip in split {what}; move one there")
        splits[free[-1]] = lacking
    return [replace(clip, split=split) for clip, split in zip(clips, splits, strict=True)]


def _split_of(name: str) -> str:
    name = unicodedata.normalize("NFC", name)  # Systems spell accents in two forms.
    tenth = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10
    return {0: "valid", 1: "test"}.get(tenth, "train")
