"""Records of a dataset as they are read; without JAX, as processes that make batches read them."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rvq_jax.errors import reading

REMEDY = "delete the dataset, and `rvq-jax data build` makes it again"
FIELDS = ("audio", "name", "caption", "label")
ENDS = 2**20  # bytes at either end of a file that tell it from others


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
        record = self.stored(index)
        return record | {"audio": floats(record["audio"])}

    def stored(self, index: int) -> dict:
        """A record with its audio as it is on disk, int16 `[S, C]`."""
        index, sources = range(len(self))[index], iter(self.sources)
        while index >= len(source := next(sources)):
            index -= len(source)
        where = self.shards[0].parent if self.shards else "a dataset"
        with reading(where, "records of a dataset", REMEDY):
            # TFDS's own decoding takes as long as the reading.
            from tensorflow_datasets.proto import tf_example_pb2

            found = tf_example_pb2.Example.FromString(source.data_source[index]).features.feature
            have = {name: found[name].bytes_list.value[0] for name in FIELDS}
            channels = source.dataset_info.features["audio"].shape[-1]
            audio = np.frombuffer(have.pop("audio"), np.int16).reshape(-1, channels)
            return {"audio": audio, **{name: text.decode() for name, text in have.items()}}


def floats(audio: np.ndarray) -> np.ndarray:
    """Stored audio int16 as float32 in [-1, 1)."""
    return audio.astype(np.float32) / np.float32(32768)
