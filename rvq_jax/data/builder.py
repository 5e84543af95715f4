"""TFDS builders on ArrayRecord, without TensorFlow: the built-in corpus, or a folder of audio."""

import contextlib
import hashlib
import itertools
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import json_format
from tqdm import tqdm

from rvq_jax import files
from rvq_jax.audio import io, resample
from rvq_jax.data import folder, synth
from rvq_jax.errors import READING, LeftOut, UserError, reading, reason_of
from rvq_jax.opening import read_bytes

PIECE_SECONDS = 10.0  # longer clips are stored in pieces, so that reading a crop stays cheap
REMEDY = "delete the dataset, and `rvq-jax data build` makes it again"
ENDS = 2**20  # bytes at either end of a file that tell it from others
CLIPS = {"train": 480, "valid": 12, "test": 12}  # songs of the built-in corpus
CLIP_SECONDS = 6.0


class _Audio(tfds.core.GeneratorBasedBuilder):
    """Records of audio `[S, C]` int16, name, caption, label."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, rate: int, channels: int, **kwargs):
        self.rate, self.channels = rate, channels
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        # tfds.features.Audio cannot be built without TensorFlow; a byte tensor can.
        audio = tfds.features.Tensor(shape=(None, self.channels), dtype=np.int16, encoding="bytes")
        text = tfds.features.Text
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {"audio": audio, "name": text(), "caption": text(), "label": text()}
            ),
            metadata=tfds.core.MetadataDict(rate=self.rate),
        )


class SynthMusic(_Audio):
    """The built-in corpus of `rvq_jax.data.synth`: songs per split, seconds of each."""

    def __init__(self, *, songs: dict[str, int], seconds: float, **kwargs):
        self.songs, self.seconds = songs, seconds
        super().__init__(**kwargs)

    def _split_generators(self, dl_manager):
        begin, splits = 0, {}
        for split, count in self.songs.items():
            splits[split] = self._generate_examples(range(begin, begin + count), split)
            begin += count
        return splits

    def _generate_examples(self, indices, split) -> Iterator[tuple[str, dict]]:
        for index in tqdm(indices, desc=f"synthesizing {split}", unit="song"):
            song = synth.song(index)
            audio_S = synth.render(song, index, self.rate, self.seconds)
            name = f"song{index:04d}"
            audio_SC = resample.to_channels(audio_S[:, None], self.channels)
            yield name, _record(audio_SC, name, song.caption, song.instrument)


class AudioFolder(_Audio):
    """A folder of audio files, resampled, mixed, and cut into pieces."""

    def __init__(
        self,
        *,
        clips: list[folder.Clip],
        minimum: int,
        piece: float,
        heldout: bool,
        bar: tqdm,
        **kwargs,
    ):
        self.clips, self.minimum, self.piece, self.bar = clips, minimum, piece, bar
        self.heldout = heldout
        self.left_out: list[tuple[str, str]] = []  # names and reasons
        super().__init__(**kwargs)

    def _split_generators(self, dl_manager):
        found = {}
        for split in sorted({clip.split for clip in self.clips}):
            examples = self._generate_examples(split)
            # TFDS takes no empty split, which it is if no clip of it can be used.
            for first in itertools.islice(examples, 1):
                found[split] = itertools.chain([first], examples)
        for names in (("train",), ("valid", "test")):
            if not found.keys() & {*names} and not (self.heldout and "train" in names):
                what = " or ".join(names)
                raise LeftOut(self.left_out, len(self.clips), f"no {what} clip can be used")
        return found

    def _generate_examples(self, split) -> Iterator[tuple[str, dict]]:
        clips = [clip for clip in self.clips if clip.split == split]
        for clip in clips:
            self.bar.update()
            try:
                audio_SC = self._read(clip.path)
            except UserError as error:
                self.left_out.append((clip.name, reason_of(error, clip.path)))
                continue
            size = round(self.piece * self.rate)
            for i in range(math.ceil(len(audio_SC) / size)):
                piece_SC = audio_SC[i * size : (i + 1) * size]
                # A tail shorter than a frame has no code of its own.
                if len(piece_SC) >= self.minimum:
                    name = f"{clip.name}#{i}"
                    yield name, _record(piece_SC, name, clip.caption, clip.label)

    def _read(self, path: Path) -> np.ndarray:
        audio_SC, rate = io.read(path)
        if self.channels != 1 and audio_SC.shape[1] not in (1, self.channels):
            raise UserError(
                f"{path} has {audio_SC.shape[1]} channels, which cannot be mixed to "
                f"{self.channels}; use --channels 1"
            )
        audio_SC = resample.to_channels(audio_SC, self.channels)
        audio_SC = resample.to_rate(audio_SC, rate, self.rate)
        if len(audio_SC) < self.minimum:
            raise UserError(
                f"{path} is shorter than one frame ({len(audio_SC)} of {self.minimum} "
                f"samples at {self.rate} Hz); remove it"
            )
        return audio_SC


# What a dataset's folder holds, TFDS's own folders with it; only one of our own is ever replaced.
DATASET = ("source.json", "records/", "downloads/", "extracted/", "audio_folder/", "synth_music/")
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
    # TFDS logs what it does and shows bars of its own; errors reach the caller either way.
    logging.getLogger("absl").setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    with files.writing_folder(out, ours=DATASET) as place:
        if clips is None:
            songs = {"songs": CLIPS, "seconds": CLIP_SECONDS}
            builder = SynthMusic(data_dir=place, **songs, **options)
            _prepare(builder)
        else:
            with tqdm(total=len(clips), desc="reading", unit="clip") as bar:
                options |= {"clips": clips, "minimum": minimum, "piece": piece, "bar": bar}
                options["heldout"] = heldout
                builder = AudioFolder(data_dir=place, **options)
                _prepare(builder)
            if builder.left_out:
                if strict:
                    raise LeftOut(builder.left_out, len(clips), "nothing is written")
                stated["left_out"] = {"files": builder.left_out, "of": len(clips)}
        # A folder of its own, whose name says neither version nor builder.
        shutil.move(builder.data_dir, place / "records")
        files.write_json(place / "source.json", stated)
    return out


def left_out(dataset: str | Path) -> LeftOut | None:
    """What a dataset lacks of its folder because it could not be used, as an error to raise."""
    with reading(Path(dataset) / "source.json", "what a dataset is of", REMEDY):
        found = json.loads(read_bytes(Path(dataset) / "source.json")).get("left_out")
        if not found:
            return None
        left = [(f"{name}", f"{why}") for name, why in found["files"]]
        return LeftOut(left, found["of"], f"the others are in {dataset}")


def open_split(dataset: str | Path, split: str) -> "Records":
    """The records of a split of a dataset: train, valid, test, or heldout (valid and test).

    Raises UserError if there is no dataset or no such split.
    """
    place = Path(dataset) / "records"
    try:
        builder = tfds.builder_from_directory(place)
    except (*READING, json_format.ParseError, tfds.core.DatasetNotFoundError) as error:
        raise UserError(f"{dataset} is not a dataset; `rvq-jax data build` makes one") from error
    wanted = ("valid", "test") if split == "heldout" else (split,)
    present = [name for name in wanted if name in builder.info.splits]
    if not present:
        raise UserError(f"{dataset} has no {split} split; it has {', '.join(builder.info.splits)}")
    shards = [shard for name in present for shard in sorted(place.glob(f"*-{name}.*"))]
    rate = (builder.info.metadata or {}).get("rate")
    return Records([builder.as_data_source(split=name) for name in present], shards, rate)


class Records:
    """Random access to decoded records: audio `[S, C]` float32, name, caption, label.

    rate: samples per second; None where nobody said.
    """

    def __init__(self, sources: list, shards: Sequence[Path] = (), rate: int | None = None):
        self.sources, self.shards, self.rate = sources, shards, rate

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def describe(self) -> dict:
        """JSON values that differ if the records do: of every file the size and both ends, not the
        terabytes between them."""
        digest, size = hashlib.sha256(), 0
        for shard in self.shards:
            with shard.open("rb") as file:
                digest.update(file.read(ENDS))
                size += file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - ENDS))
                digest.update(file.read())
        return {"records": len(self), "bytes": size, "contents": digest.hexdigest()[:16]}

    def __getitem__(self, index: int) -> dict:
        index, sources = range(len(self))[index], iter(self.sources)
        while index >= len(source := next(sources)):
            index -= len(source)
        where = self.shards[0].parent if self.shards else "a dataset"
        with reading(where, "records of a dataset", REMEDY):
            record = source[index]
            text = {name: record[name].decode() for name in ("name", "caption", "label")}
            return {"audio": record["audio"].astype(np.float32) / 32768.0, **text}


def _record(audio_SC: np.ndarray, name: str, caption: str, label: str) -> dict:
    audio = np.clip(np.round(audio_SC * 32768.0), -32768, 32767).astype(np.int16)
    return {"audio": audio, "name": name, "caption": caption, "label": label}


def _prepare(builder: tfds.core.GeneratorBasedBuilder) -> None:
    try:
        with contextlib.redirect_stdout(None):
            builder.download_and_prepare()
    except Exception as error:
        # TFDS wraps what a generator raises; the user's mistake is somewhere in the chain.
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UserError | OSError):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        raise


def _holds(out: Path, stated: dict) -> bool:
    """Whether `out` holds the dataset stated, False if it is free; UserError if neither."""
    if not out.exists():
        return False
    # What a killed process left of its own counts for nothing.
    if out.is_dir() and all(path.name.startswith(files.TEMPORARY) for path in out.iterdir()):
        return False
    try:
        found = json.loads(read_bytes(out / "source.json"))
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
