"""Datasets on disk, without TensorFlow: the built-in corpus, or a folder of audio."""

import contextlib
import hashlib
import json
import logging
import shutil
from pathlib import Path

from rvq_jax import files, progress
from rvq_jax.data import folder
from rvq_jax.data.stored import REMEDY, Records
from rvq_jax.errors import READING, LeftOut, UserError, reading
from rvq_jax.opening import read_bytes

PIECE_SECONDS = 10.0  # longer clips are stored in pieces, so that reading a crop stays cheap
CLIPS = {"train": 480, "valid": 12, "test": 12}  # songs of the built-in corpus
CLIP_SECONDS = 6.0


# What a dataset's folder holds, TFDS's own folders with it; only one of our own is ever replaced.
SOURCE = "source.json"  # what a dataset is of
DATASET = (SOURCE, "records/", "downloads/", "extracted/", "audio_folder/", "synth_music/")
DATASET += ("dataset_info.json", "metadata.json", "features.json", "*.array_record*", "*.tfrecord*")


def build(
    source: str | Path | None,
    out: str | Path,
    rate: int,
    channels: int = 1,
    minimum: int = 1,
    piece: float | None = None,
    *,
    strict: bool = True,
    captioned: bool = False,
    heldout: bool = False,
) -> Path:
    """Builds a dataset from a folder of audio, or from the built-in corpus.

    A dataset of the same source and settings that is in `out` already is used as it is; one that
    lacks files is made anew once the source has changed. Nothing half-written stays.

    Args:
      source: folder of audio files; None for the built-in corpus.
      out: folder for the dataset.
      rate: samples per second of the records.
      channels: C, channels of the records.
      minimum: samples of the shortest clip allowed, at `rate`.
      piece: seconds of the longest record, into which longer clips are cut; None for 10.
      strict: whether a clip that cannot be used is an error, raised when all were tried, and
        nothing is written; else it is left out, and `left_out` of the dataset has it.
      captioned: whether a metadata.csv must have captions.
      heldout: whether a folder's clips are all held out but those stated to train on, of which the
        dataset then has none.

    Returns:
      The dataset's folder, `out`.

    Raises:
      UserError: when the folder is bad (see `folder.scan`), `piece` is shorter than `minimum`, or
        `out` holds anything else than this dataset.
      LeftOut: when a clip cannot be read (see `io.read`), is shorter than `minimum` or cannot be
        mixed to `channels`, if strict, or if none to train on or none held out is left.
    """
    from rvq_jax.data import records

    out, piece = Path(out), PIECE_SECONDS if piece is None else piece
    if round(piece * rate) < max(1, minimum):
        raise UserError(f"pieces of {piece:g} s are too short: set --piece to seconds")
    clips = None if source is None else folder.scan(source, captioned, heldout)
    stated = {
        "rate": rate,
        "channels": channels,
        "minimum": minimum,
        "piece_seconds": piece,
        "source": _fingerprint(clips),
    }
    if _holds(out, stated):
        if strict and (lacking := left_out(out)):
            raise lacking
        return out
    options = {"rate": rate, "channels": channels}
    # TFDS logs what it does; errors reach the caller either way.
    logging.getLogger("absl").setLevel(logging.ERROR)
    with files.writing_folder(out, ours=DATASET) as place:
        if clips is None:
            songs = {"songs": CLIPS, "seconds": CLIP_SECONDS}
            builder = records.SynthMusic(data_dir=place, **songs, **options)
            records.prepare(builder)
        else:
            with progress.bar(total=len(clips), desc="reading", unit="clip") as bar:
                options |= {"clips": clips, "minimum": minimum, "piece": piece, "bar": bar}
                options["heldout"] = heldout
                builder = records.AudioFolder(data_dir=place, **options)
                records.prepare(builder)
            if builder.left_out:
                if strict:
                    raise LeftOut(builder.left_out, len(clips), "nothing is written")
                stated["left_out"] = {"files": builder.left_out, "of": len(clips)}
        # A folder of its own, whose name says neither version nor builder.
        shutil.move(builder.data_dir, place / "records")
        files.write_json(place / SOURCE, stated)
    return out


def left_out(dataset: str | Path) -> LeftOut | None:
    """What a dataset lacks of its folder because it could not be used, as an error to raise."""
    with reading(Path(dataset) / SOURCE, "what a dataset is of", REMEDY):
        found = json.loads(read_bytes(Path(dataset) / SOURCE)).get("left_out")
        if not found:
            return None
        left = [(f"{name}", f"{why}") for name, why in found["files"]]
        return LeftOut(left, found["of"], f"the others are in {dataset}")


def open_split(dataset: str | Path, split: str) -> Records:
    """The records of a split of a dataset: train, valid, test, or heldout (valid and test).

    Raises UserError if there is no dataset or no such split.
    """
    from rvq_jax.data import records

    place = Path(dataset) / "records"
    try:
        builder = records.open_folder(place)
    except records.NO_DATASET as error:
        raise UserError(f"{dataset} is not a dataset; `rvq-jax data build` makes one") from error
    wanted = ("valid", "test") if split == "heldout" else (split,)
    present = [name for name in wanted if name in builder.info.splits]
    if not present:
        raise UserError(f"{dataset} has no {split} split; it has {', '.join(builder.info.splits)}")
    shards = [shard for name in present for shard in sorted(place.glob(f"*-{name}.*"))]
    rate = (builder.info.metadata or {}).get("rate")
    return Records([builder.as_data_source(split=name) for name in present], shards, rate)


def _holds(out: Path, stated: dict) -> bool:
    """Whether `out` holds the dataset stated, False if it is free; UserError if neither."""
    if not out.exists():
        return False
    # What a killed process left of its own counts for nothing.
    if out.is_dir() and all(path.name.startswith(files.TEMPORARY) for path in out.iterdir()):
        return False
    try:
        found = json.loads(read_bytes(out / SOURCE))
        differs = [
            f"{name} {found.get(name)}" for name in stated if found.get(name) != stated[name]
        ]
    except READING:
        raise UserError(f"{out} is there and is no dataset; choose another --out") from None
    if differs == [f"source {found.get('source')}"] and found.get("left_out"):
        return False
    if differs:
        what = ", ".join(differs)
        raise UserError(f"{out} holds another dataset ({what}); choose another --out or delete it")
    return True


def _fingerprint(clips: list[folder.Clip] | None) -> str:
    """What the dataset was made of: names, texts, sizes and times of the files."""
    if clips is None:
        return f"built-in, {CLIPS}, {CLIP_SECONDS} s"
    seen = []
    for clip in clips:
        seen.append([clip.name, clip.caption, clip.label, clip.split])
        with contextlib.suppress(OSError):  # A link that leads nowhere is left out later.
            stat = clip.path.stat()
            seen[-1] += [stat.st_size, stat.st_mtime_ns]
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()
