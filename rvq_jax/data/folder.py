"""A folder of audio files, with or without metadata.csv, as a list of clips."""

import csv
import hashlib
from dataclasses import dataclass
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
    valid and every tenth test. Raises UserError for a folder that is not there, has no audio, one
    clip only or none to train on or to hold out, and for what is wrong with metadata.csv.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"folder {folder} is not there; give --data a folder of audio files")
    table = folder / "metadata.csv"
    clips = _from_table(folder, table) if table.exists() else _from_names(folder)
    if not clips:
        raise UserError(f"folder {folder} has no audio; put {', '.join(SUFFIXES)} files in it")
    clips = sorted(clips, key=lambda clip: clip.name)
    return _held_out(clips, folder)


def _from_names(folder: Path) -> list[Clip]:
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    return [
        _clip(
            folder,
            path.relative_to(folder).as_posix(),
            path.stem.replace("_", " ").replace("-", " "),
            path.parent.name,
        )
        for path in paths
    ]


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
        raise UserError(f"{table} has no column {missing!r}; it has {', '.join(columns)}")
    clips = []
    for line, row in enumerate(rows, start=2):
        if not row["file"] or not (folder / row["file"]).is_file():
            raise UserError(f"{table} line {line}: file {row['file']!r} is not there")
        split = (row.get("split") or "").strip().lower()
        if split and split not in SPLITS:
            raise UserError(f"{table} line {line}: split {split!r}; use train, valid or test")
        clips.append(_clip(folder, row["file"], row[caption] or "", row.get("label") or "", split))
    return clips


def _clip(folder: Path, name: str, caption: str, label: str, split: str = "") -> Clip:
    if not split:
        tenth = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10
        split = {0: "valid", 1: "test"}.get(tenth, "train")
    return Clip(folder / name, name, caption, label, SPLITS[split])


def _held_out(clips: list[Clip], folder: Path) -> list[Clip]:
    """The clips with at least one to train on and one held out, where hashing left none."""
    if len(clips) < 2:
        raise UserError(f"folder {folder} has one clip; a study needs two, one of them held out")
    splits = {clip.split for clip in clips}
    stated = (folder / "metadata.csv").exists()
    if splits == {"train"} or "train" not in splits:
        if stated and splits != {"train"}:
            raise UserError(f"{folder}/metadata.csv has no clip in split train")
        others = [Clip(c.path, c.name, c.caption, c.label, "train") for c in clips[:-1]]
        last = clips[-1]
        return [*others, Clip(last.path, last.name, last.caption, last.label, "test")]
    return clips
