"""TFDS builders on ArrayRecord; a file of its own, for TFDS takes half a second to import."""

import contextlib
import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from google.protobuf import json_format

from rvq_jax import progress
from rvq_jax.audio import io, resample
from rvq_jax.data import folder, synth
from rvq_jax.errors import READING, LeftOut, UserError, reason_of

# What opening a folder that is no dataset raises.
NO_DATASET = (*READING, json_format.ParseError, tfds.core.DatasetNotFoundError)


class _Uncompressed(tfds.core.ExampleWriter):
    """Writes what is read four times as fast as TFDS's default, zstd, for a seventh more bytes."""

    def write(self, path, examples) -> None:
        writer = ArrayRecordWriter(os.fspath(path), "group_size:1,uncompressed")
        for _, example in examples:
            writer.write(example)
        writer.close()


class _Audio(tfds.core.GeneratorBasedBuilder):
    """Records of audio `[S, C]` int16, name, caption, label."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, rate: int, channels: int, **kwargs):
        self.rate, self.channels = rate, channels
        super().__init__(file_format="array_record", **kwargs)

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return _Uncompressed(self.info.file_format)

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
        for index in progress.bar(indices, desc=f"synthesizing {split}", unit="song"):
            song = synth.song(index)
            audio_S = synth.render(song, index, self.rate, self.seconds)
            name = f"song{index:04d}"
            audio_SC = resample.to_channels(audio_S[:, None], self.channels)
            yield name, record_of(audio_SC, name, song.caption, song.instrument)


class AudioFolder(_Audio):
    """A folder of audio files, resampled, mixed, and cut into pieces."""

    def __init__(
        self,
        *,
        clips: list[folder.Clip],
        minimum: int,
        piece: float,
        heldout: bool,
        bar,
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
                    yield name, record_of(piece_SC, name, clip.caption, clip.label)

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


def record_of(audio_SC: np.ndarray, name: str, caption: str, label: str) -> dict:
    """A record of a clip's audio `[S, C]`, as 16-bit integers, and texts.

    Args:
      audio_SC: samples in [-1, 1].
      name: of the clip.
      caption: what it sounds like, or "".
      label: its class, or "".
    """
    audio = np.clip(np.round(audio_SC * 32768.0), -32768, 32767).astype(np.int16)
    return {"audio": audio, "name": name, "caption": caption, "label": label}


def prepare(builder: tfds.core.GeneratorBasedBuilder) -> None:
    """Writes a dataset; what went wrong with a file is raised as it was."""
    # It shows bars of its own.
    tfds.disable_progress_bar()
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


def open_folder(place: Path) -> tfds.core.DatasetBuilder:
    """The builder of a folder that has records; raises one of NO_DATASET."""
    return tfds.builder_from_directory(place)
