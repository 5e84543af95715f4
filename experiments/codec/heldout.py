"""What no training run of the corpus may see, and the check that every run begins with.

Held out are whole sources: a voice, three readers, twelve works of eleven composers. heldout.json
is their frozen list, and that of the pieces cut out of them: SHA-256 of rate, channels and samples
as 16-bit numbers, which a file has in whatever container without loss. Decoders of Vorbis may
differ in their last bit, so what comes in it has the SHA-256 of the file's own bytes too.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from store import digest, file_digest, int16, read, read_table
from tqdm import tqdm

from rvq_jax import files
from rvq_jax.audio import io, resample
from rvq_jax.data import builder, folder
from rvq_jax.errors import UserError

LIST = Path(__file__).with_name("heldout.json")
SEED = 23  # of the pieces
VOICES = {"it_IT_m_Carlo": 20}  # speakers held out, and how many pieces of each
VOICES |= {"ls1998_F": 5, "ls2609_M": 5, "ls3331_F": 5}
# Works that no coder at 48 kbit/s has gone over: those of warzone2100 would flatter or fail others.
WORKS = (
    "wesnoth-1.16-music/battle.ogg",
    "wesnoth-1.16-music/casualties_of_war.ogg",
    "wesnoth-1.16-music/northerners.ogg",
    "wesnoth-1.16-music/return_to_wesnoth.ogg",
    "wesnoth-1.16-music/siege_of_laurelmor.ogg",
    "wesnoth-1.16-music/suspense.ogg",
    "wesnoth-1.16-music/the_dangerous_symphony.ogg",
    "wesnoth-1.16-music/vengeful.ogg",
    "hyperrogue-music/hr-domina-mountain.ogg",
    "hyperrogue-music/hr-savino-ocean.ogg",
    "hyperrogue-music/hr3-hell.ogg",
    "hyperrogue-music/hr3-rlyeh.ogg",
)
WORK_PIECES = 3
WINDOW = 64  # samples that are alike only in copies
EVERY = 9  # bits: one window in 2 ** 9 is compared
VARIED = 16  # values in a window, below which silence and square waves are alike too


def is_held_out(row: dict) -> bool:
    """Whether a row of the corpus is of a source that is held out."""
    return row["speaker"] in VOICES or row["file"] in WORKS


def source(row: dict) -> str:
    """What is held out whole: a voice by its name, a work by its file."""
    return row["speaker"] if row["speaker"] in VOICES else row["file"]


def key(name: str) -> str:
    """The name of a file without the folder for one's own, in which it need not be."""
    return name.removeprefix("own/")


def load() -> dict:
    """The frozen list: files and pieces."""
    return json.loads(LIST.read_text())


def hashes() -> set[str]:
    """Of samples and of bytes, of all files and pieces of the list."""
    every = [entry for entries in (load()["files"], load()["pieces"]) for entry in entries]
    return {entry[name] for entry in every for name in ("pcm", "bytes") if name in entry}


def freeze(rows: dict[str, list[dict]], cut: list[dict]) -> None:
    """Writes the list, an entry a line."""
    entries = []
    for kind, found in rows.items():
        for row in sorted(filter(is_held_out, found), key=lambda row: row["file"]):
            entry = {"kind": kind, "name": key(row["file"]), "speaker": row["speaker"]}
            entry |= {name: row[name] for name in ("source", "seconds", "pcm", "bytes")}
            entries.append({name: value for name, value in entry.items() if value != ""})
    lists = {"files": entries, "pieces": cut}
    parts = [
        f' "{name}": [\n' + ",\n".join("  " + json.dumps(entry) for entry in found) + "\n ]"
        for name, found in lists.items()
    ]
    with files.writing(LIST) as path:
        path.write_text(f'{{\n "seed": {SEED},\n' + ",\n".join(parts) + "\n}\n")


def differences(rows: dict[str, list[dict]], cut: list[dict]) -> Iterator[str]:
    """In what a corpus is not the one of the list, a line for each kind of difference."""
    frozen = load()
    for what, found in (
        ("files", [(key(row["file"]), row["pcm"]) for kind in rows.values() for row in kind]),
        ("pieces", [(piece["name"], piece["pcm"]) for piece in cut]),
    ):
        wanted = {e["name"]: e["pcm"] for e in frozen[what] if e["kind"] in rows}
        have = {name: pcm for name, pcm in found if name in wanted}
        if found and (missing := len(wanted) - len(have)):
            yield f"of {len(wanted)} held-out {what} {missing} are not here"
        if other := [name for name, pcm in have.items() if wanted[name] != pcm]:
            yield f"{len(other)} held-out {what} have other samples than listed, as {other[0]}"


def anchors(pcm_SC: np.ndarray) -> np.ndarray:
    """Numbers of windows of `[S, C]` int16 that are chosen by what is in them, not by where.

    So a part of a recording has the numbers of the whole that lie in it, wherever it was cut.
    """
    flat = np.ascontiguousarray(pcm_SC).reshape(-1)
    if flat.size < WINDOW:
        return np.zeros(0, np.uint64)
    weights = np.random.default_rng(0).integers(2**63, size=WINDOW, dtype=np.uint64) | np.uint64(1)
    count = flat.size - WINDOW + 1
    mixed = np.zeros(count, np.uint64)
    for i in range(4):
        mixed += flat[i : i + count].astype(np.uint64) * weights[i]
    places = np.flatnonzero(mixed >> np.uint64(64 - EVERY) == 0)
    windows = np.lib.stride_tricks.sliding_window_view(flat, WINDOW)[places]
    values = 1 + (np.diff(np.sort(windows, axis=1), axis=1) > 0).sum(axis=1)
    return (windows[values >= VARIED].astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64)


def check_training(place: str | Path, corpus: str | Path | None = None) -> int:
    """Raises UserError if a run would train on what is held out; else the number of its clips.

    Every clip is compared with the list, by name, samples and bytes; and with the held-out files
    of the corpus, if it is given, by parts: a dataset's rate and channels are made of these as
    `rvq-jax data build` makes them. What was resampled or coded by others is not recognized.

    Args:
      place: dataset of `rvq-jax data build`, or a folder of audio, whose split train is looked at.
      corpus: what corpus.py made.
    """
    place, listed = Path(place), hashes()
    names = {entry["name"] for entry in load()["files"]}
    form = _form(place)
    parts = _held_parts(Path(corpus), form) if corpus else np.zeros(0, np.uint64)
    held, total = [], 0
    for name, pcm_SC, rate, bytes_digest in _training(place, form):
        total += 1
        ends = {"/".join(name.split("/")[i:]) for i in range(name.count("/") + 1)}
        if ends & names or {digest(pcm_SC, rate), bytes_digest} & listed:
            held.append(name)
        elif parts.size and _contains(parts, anchors(pcm_SC)):
            held.append(f"a part in {name}")
    if held:
        raise UserError(
            f"{len(held)} of {total} training clips of {place} are held out ({held[0]}); "
            "give them split test, and build the dataset again"
        )
    return total


def _contains(sorted_values: np.ndarray, values: np.ndarray) -> bool:
    places = np.searchsorted(sorted_values, values).clip(max=len(sorted_values) - 1)
    return bool((sorted_values[places] == values).any())


def _form(place: Path) -> tuple[int, int] | None:
    """Rate and channels of a dataset, None for a folder of audio."""
    if not (place / "source.json").is_file():
        return None
    stated = json.loads((place / "source.json").read_text())
    return stated["rate"], stated["channels"]


def _training(place: Path, form) -> Iterator[tuple[str, np.ndarray, int, str]]:
    """Name, samples, rate and the bytes' hash of every clip to train on."""
    if form:
        records = builder.open_split(place, "train")
        for i in tqdm(range(len(records)), desc=f"checking {place}", unit="clip"):
            record = records[i]
            yield record["name"].rsplit("#", 1)[0], int16(record["audio"]), form[0], ""
        return
    clips = [clip for clip in folder.scan(place) if clip.split == "train"]
    for clip in tqdm(clips, desc=f"checking {place}", unit="file"):
        yield clip.name, *read(clip.path), file_digest(clip.path)


def _held_parts(corpus: Path, form) -> np.ndarray:
    """The anchors of all held-out files that a corpus has, at a dataset's rate and channels."""
    found = []
    for table in sorted(corpus.glob("*/metadata.csv")):
        held = [row["file"] for row in read_table(table) if is_held_out(row)]
        for name in tqdm(held, desc=f"held out of {table.parent.name}", unit="file"):
            audio_SC, rate = io.read(table.parent / name)
            if form:
                audio_SC = resample.to_channels(audio_SC, form[1])
                audio_SC = resample.to_rate(audio_SC, rate, form[0])
            found.append(anchors(int16(audio_SC)))
    if not found:
        raise UserError(f"{corpus} has no held-out file; make it by corpus.py")
    return np.unique(np.concatenate(found))


if __name__ == "__main__":
    try:
        print(f"{check_training(*sys.argv[1:3])} clips to train on, none of them held out")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
