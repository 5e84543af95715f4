"""A folder of audio files, with or without metadata.csv, as a list of clips."""

import csv
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from rvq_jax.audio.io import SUFFIXES
from rvq_jax.errors import UserError

CAPTIONS = ("caption_or_transcript", "caption", "transcript")
SPLITS = {
    "train": "train",
    "valid": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
}


@dataclass(frozen=True)
class Clip:
    """One file of a folder."""

    path: Path
    name: str  # relative to the folder
    caption: str
    label: str
    split: str  # train, valid or test


def scan(folder: str | Path) -> list[Clip]:
    """The clips of a folder, sorted by name.

    metadata.csv, if there is one, lists them: columns file, and caption_or_transcript or caption,
    and optionally label and split. Without it all wav, flac, ogg and mp3 files count, and file and
    folder names are caption and label. Without a split, every tenth clip by a hash of its name is
    valid and every tenth test; where that leaves none to train on or none held out, the last such
    clip changes side. Raises UserError for a folder that is not there, has no audio or one clip
    only, and for what is wrong with metadata.csv, as stated splits with no train or none held out.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"folder {folder} is not there; give --data a folder of audio files")
    table = folder / "metadata.csv"
    clips = _from_table(folder, table) if table.exists() else _from_names(folder)
    if not clips:
        raise UserError(f"folder {folder} has no audio; put {', '.join(SUFFIXES)} files in it")
    clips = sorted(clips, key=lambda clip: clip.name)
    return _with_splits(clips, folder)


def _from_names(folder: Path) -> list[Clip]:
    clips = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        # Names that begin with a dot are an archive's or a system's notes beside the audio.
        hidden = any(part.startswith(".") for part in name.parts)
        if path.suffix.lower() in SUFFIXES and path.is_file() and not hidden:
            caption = path.stem.replace("_", " ").replace("-", " ")
            clips.append(Clip(path, name.as_posix(), caption, path.resolve().parent.name, ""))
    return clips


def _from_table(folder: Path, table: Path) -> list[Clip]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table} cannot be read: {error}; save it as UTF-8 CSV") from error
    caption = next((name for name in CAPTIONS if name in columns), None)
    missing = "file" if "file" not in columns else "caption" if caption is None else None
    if missing:
        raise UserError(f"{table} has no column {missing!r}; it has {', '.join(columns)}; add it")
    clips: dict[str, Clip] = {}
    for line, row in enumerate(rows, start=2):
        name = row["file"] or ""
        if not name or not (folder / name).is_file():
            raise UserError(f"{table} line {line}: file {name!r} is not there; remove the line")
        if name in clips:
            raise UserError(f"{table} line {line}: file {name!r} is listed twice; remove one")
        split = (row.get("split") or "").strip().lower()
        if split and split not in SPLITS:
            raise UserError(f"{table} line {line}: split {split!r}; use train, valid or test")
        label = row.get("label") or ""
        clips[name] = Clip(folder / name, name, row[caption] or "", label, SPLITS.get(split, ""))
    return list(clips.values())


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
    tenth = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10
    return {0: "valid", 1: "test"}.get(tenth, "train")
