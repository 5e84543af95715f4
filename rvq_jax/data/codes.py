"""The code cache: a corpus encoded once, in one file."""

import contextlib
import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvq_jax import files
from rvq_jax.errors import UserError

# What numpy's reader of .npz raises, by where the damage is.
DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class CodeSet:
    """Codes of many records; random access to dicts of codes `[K, F]`, name, caption, label,
    and melody `[P]` if they have one."""

    codes: list[np.ndarray]  # int32, each [K, its own F]
    names: list[str]
    captions: list[str]
    labels: list[str]
    frame_rate: float  # frames per second
    codebook_size: int  # N, codes per level
    codec: str | None = None  # fingerprint of the codec that made them, if it is known
    melodies: list[np.ndarray] | None = None  # uint8, each [its own P]: strongest pitch classes
    melody_bins: int | None = None  # of which there are so many
    melody_rate: float | None = None  # pitch classes per second

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: int) -> dict:
        melody = {} if self.melodies is None else {"melody": self.melodies[index]}
        return {
            "codes": self.codes[index],
            "name": self.names[index],
            "caption": self.captions[index],
            "label": self.labels[index],
            **melody,
        }

    def describe(self) -> dict:
        """JSON values that differ if what is trained on does."""
        digest = hashlib.sha256(json.dumps([self.names, self.captions]).encode())
        for array in [*self.codes, *(self.melodies or [])]:
            digest.update(np.ascontiguousarray(array))
        frames = sum(codes.shape[1] for codes in self.codes)
        return {"records": len(self), "frames": frames, "contents": digest.hexdigest()[:16]}

    def save(self, path: str | Path) -> None:
        """Writes one .npz, whole or not at all; codes take the smallest type that holds them."""
        dtype = np.min_scalar_type(self.codebook_size - 1)
        melody = {}
        if self.melodies is not None:
            melody = {
                "melodies": np.concatenate(self.melodies),
                "melody_lengths": np.array([len(melody) for melody in self.melodies]),
                "melody_bins": self.melody_bins,
                "melody_rate": self.melody_rate,
            }
        with files.writing(path) as target, target.open("wb") as file:
            np.savez_compressed(
                file,
                codes=np.concatenate(self.codes, axis=1).astype(dtype),
                lengths=np.array([codes.shape[1] for codes in self.codes]),
                names=np.array(self.names, str),
                captions=np.array(self.captions, str),
                labels=np.array(self.labels, str),
                frame_rate=self.frame_rate,
                size=self.codebook_size,
                codec=self.codec or "",
                **melody,
            )

    @classmethod
    def load(cls, path: str | Path) -> "CodeSet":
        """Reads what `save` wrote; raises UserError if it is not that or is damaged."""
        with stored(path, "code cache") as arrays:
            ends = np.cumsum(arrays["lengths"])[:-1]
            return cls(
                np.split(arrays["codes"].astype(np.int32), ends, axis=1),
                arrays["names"].tolist(),
                arrays["captions"].tolist(),
                arrays["labels"].tolist(),
                float(arrays["frame_rate"]),
                int(arrays["size"]),
                (str(arrays["codec"]) or None) if "codec" in arrays else None,
                **_melody(arrays),
            )


@contextlib.contextmanager
def stored(path: str | Path, what: str) -> Iterator:
    """The arrays of an .npz, read as they are asked for.

    Raises UserError if it is not there or damaged, or what is asked for is not in it or no sense.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            yield arrays
    except DAMAGE as error:
        raise UserError(
            f"{path} is not a {what} ({error}); delete it, and it is made again"
        ) from error


def _melody(arrays) -> dict:
    """The fields of a melody, of a cache that has one."""
    if "melodies" not in arrays:
        return {}
    ends = np.cumsum(arrays["melody_lengths"])[:-1]
    return {
        "melodies": np.split(arrays["melodies"], ends),
        "melody_bins": int(arrays["melody_bins"]),
        "melody_rate": float(arrays["melody_rate"]),
    }
