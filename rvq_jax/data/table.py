"""metadata.csv of a folder of audio: what could be read in two ways is an error with its line."""

import csv
import difflib
import io
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rvq_jax.errors import UserError, shown
from rvq_jax.opening import read_bytes

FILES = ("file", "file_name")
CAPTIONS = ("caption_or_transcript", "caption", "transcript", "transcription", "text")
SPLITS = {
    "train": "train",
    "valid": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
}


COLUMNS = 1000  # of a header, each of which is compared with the names above


@dataclass(frozen=True)
class Row:
    """A line of the table: a file that is there, and what is said of it ('' for nothing)."""

    path: Path
    name: str
    caption: str
    label: str
    split: str


def rows(table: Path, captioned: bool) -> Iterator[Row]:
    """The rows of a metadata.csv, each file once.

    Args:
      table: the metadata.csv; its files are named relative to its folder.
      captioned: whether there must be a column of captions.

    Raises:
      UserError: when a column is missing, there twice or has a name that is almost one; a row has
        more or fewer fields than the header, a quote is not closed, a file is not there or listed
        twice under whatever names, or a split is unknown. It names the line in which the row
        begins.
    """
    lines = _lines(table)
    line, header = next(lines, (1, []))
    columns = _columns(table, header, captioned)
    seen: dict[tuple[int, int], str] = {}
    for line, fields in lines:
        where = f"{table} line {line}"
        if len(fields) != len(header):
            raise UserError(
                f"{where}: {len(fields)} fields, where the header has {len(header)}; "
                "put text with a comma in quotes"
            )
        row = {name: fields[i] for name, i in columns.items()}
        path = _find(table.parent, row["file"]) if row["file"] else None
        if path is None:
            raise UserError(f"{where}: file {shown(row['file'])} is not there; remove the line")
        _check_quote(where, table.parent, columns["file"], fields)
        stat = path.stat()
        identity = stat.st_dev, stat.st_ino
        if identity in seen:
            first = seen[identity]
            also = "" if first == row["file"] else f", first as {shown(first)}"
            raise UserError(f"{where}: file {shown(row['file'])} is listed twice{also}; remove one")
        seen[identity] = row["file"]
        split = row.get("split", "").strip().lower()
        if split and split not in SPLITS:
            raise UserError(f"{where}: split {shown(split)}; use train, valid or test")
        label, caption = row.get("label", ""), row.get("caption", "")
        name = os.path.normpath(row["file"]).replace(os.sep, "/")
        yield Row(path, name, caption, label, SPLITS.get(split, ""))


def _lines(table: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows with the lines in which they begin; a caption can take several. Empty rows are none."""
    line = 1
    try:
        text = read_bytes(table).decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        for fields in reader:
            if any(field.strip() for field in fields) or line == 1:
                yield line, fields
            line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise UserError(f"{table} cannot be read: {error}; save it as UTF-8 CSV") from None
    except OSError as error:
        raise UserError(f"{table} cannot be read ({error.strerror or error})") from None
    except csv.Error as error:
        reason = "a quote is not closed" if "end of data" in f"{error}" else f"{error}"
        raise UserError(
            f"{table} line {line}: {reason}; close the quote, and write one inside of text twice"
        ) from None


def _columns(table: Path, header: list[str], captioned: bool) -> dict[str, int]:
    """Places of the columns file, caption, label and split, of those that are there."""
    names = [name.strip().lower() for name in header]
    if len(names) > COLUMNS:
        raise UserError(f"{table} has {len(names)} columns, of {COLUMNS} at most; remove some")
    found = {}
    for column, spelled in (
        ("file", FILES),
        ("caption", CAPTIONS),
        ("label", ("label",)),
        ("split", ("split",)),
    ):
        present = [name for name in spelled if name in names]
        if present and names.count(present[0]) > 1:
            raise UserError(f"{table} has column {present[0]!r} twice; remove one")
        if present:
            found[column] = names.index(present[0])
            continue
        near = [name for name in names if difflib.get_close_matches(name, spelled, 1, 0.75)]
        if near and column != "file":
            raise UserError(f"{table} has a column {shown(near[0])}; did you mean {column!r}?")
    missing = "file" if "file" not in found else "caption"
    if missing == "file" or (captioned and "caption" not in found):
        said = ", ".join(header)
        raise UserError(f"{table} has no column {missing!r}; it has {said}; add it")
    return found


def _find(folder: Path, name: str) -> Path | None:
    """The file of a name, also if the disk spells its accents in another form of Unicode."""
    if os.path.isfile(folder / name):
        return folder / name
    place = Path(folder)
    for part in Path(name).parts:
        if not os.path.exists(place / part):
            wanted = unicodedata.normalize("NFC", part)
            try:
                found = os.listdir(place)
            except (OSError, ValueError):
                return None
            part = next((n for n in found if unicodedata.normalize("NFC", n) == wanted), None)
            if part is None:
                return None
        place = place / part
    return place if os.path.isfile(place) else None


def _check_quote(where: str, folder: Path, column: int, fields: list[str]) -> None:
    """Raises UserError if a field of several lines took in a row: its quote closes too late."""
    for field in fields:
        for text in field.splitlines()[1:]:
            parts = text.split(",")
            if len(parts) == len(fields) and parts[column] and _find(folder, parts[column]):
                raise UserError(
                    f"{where}: a quote opens and closes only behind {shown(parts[column])}; "
                    "close it before"
                )
