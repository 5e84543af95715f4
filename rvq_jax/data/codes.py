"""The code cache: a corpus encoded once, in one file."""

import contextlib
import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvq_jax import files, npz

LARGEST_SIZE, MOST_BINS, MOST_FRAMES = 1 << 24, 256, 1 << 20


@dataclass(frozen=True, eq=False)
class CodeSet:
    """Codes of many records; random access to dicts of codes `[K, F]`, name, caption, label,
    melody `[P]` and semantic tokens `[F / r]` if they have them."""

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
    semantics: list[np.ndarray] | None = None  # int32, each [ceil(F / r)]: semantic tokens
    semantic_size: int | None = None  # of which there are so many
    semantic_ratio: int | None = None  # r, frames of codes for each

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: int) -> dict:
        beside = {} if self.melodies is None else {"melody": self.melodies[index]}
        if self.semantics is not None:
            beside["semantic"] = self.semantics[index]
        return {
            "codes": self.codes[index],
            "name": self.names[index],
            "caption": self.captions[index],
            "label": self.labels[index],
            **beside,
        }

    def rows(self, rows: Sequence[int]) -> "CodeSet":
        """The set of some records, in the order that they are named in."""
        lists = ("codes", "names", "captions", "labels", "melodies", "semantics")
        have = {name: getattr(self, name) for name in lists}
        some = {n: None if x is None else [x[i] for i in rows] for n, x in have.items()}
        return dataclasses.replace(self, **some)

    def describe(self) -> dict:
        """JSON values that differ if what is trained on does."""
        digest = hashlib.sha256(json.dumps([self.names, self.captions]).encode())
        for array in [*self.codes, *(self.melodies or []), *(self.semantics or [])]:
            digest.update(np.ascontiguousarray(array))
        frames = sum(codes.shape[1] for codes in self.codes)
        return {"records": len(self), "frames": frames, "contents": digest.hexdigest()[:16]}

    def save(self, path: str | Path) -> None:
        """Writes one .npz, whole or not at all; codes take the smallest type that holds them."""
        dtype = np.min_scalar_type(self.codebook_size - 1)
        beside = {}
        if self.melodies is not None:
            beside |= {
                "melodies": np.concatenate(self.melodies),
                "melody_lengths": np.array([len(melody) for melody in self.melodies]),
                "melody_bins": self.melody_bins,
                "melody_rate": self.melody_rate,
            }
        if self.semantics is not None:
            beside |= {
                "semantics": np.concatenate(self.semantics),
                "semantic_size": self.semantic_size,
                "semantic_ratio": self.semantic_ratio,
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
                **beside,
            )

    @classmethod
    def load(cls, path: str | Path) -> "CodeSet":
        """Reads what `save` wrote; raises UserError if it is not that or is damaged."""
        with stored(path, "a code cache") as arrays:
            size, frame_rate = arrays["size"], arrays["frame_rate"]
            codes_KF, lengths = arrays["codes"], arrays["lengths"]
            if size.shape != () or size.dtype.kind not in "iu" or not 1 <= size <= LARGEST_SIZE:
                raise ValueError("its size is none")
            if frame_rate.shape != () or not 0 < frame_rate < np.inf:
                raise ValueError("its frame_rate is none")
            if codes_KF.ndim != 2 or codes_KF.dtype.kind not in "iu" or not len(codes_KF):
                raise ValueError("its codes are not whole numbers [K, F]")
            if codes_KF.size and not 0 <= codes_KF.min() <= codes_KF.max() < size:
                raise ValueError(f"its codes are not in [0, {size})")
            return cls(
                split(codes_KF.astype(np.int32), lengths, axis=1),
                *(texts(arrays[name], len(lengths)) for name in ("names", "captions", "labels")),
                float(frame_rate),
                int(size),
                (text(arrays["codec"]) or None) if "codec" in arrays else None,
                **_melody(arrays, lengths, float(frame_rate)),
                **_semantics(arrays, lengths),
            )


def stored(path: str | Path, what: str) -> contextlib.AbstractContextManager[npz.Arrays]:
    """The arrays of an .npz that this library makes again, read as they are asked for.

    Raises UserError if it is not there or damaged, or what is asked for is not in it or no sense.
    """
    return npz.reading(path, what, "delete it, and it is made again")


def split(array: np.ndarray, lengths: np.ndarray, axis: int = 0, least: int = 1) -> list:
    """Cuts an array into parts.

    Args:
      array: what is cut, along `axis`.
      lengths: places of each part, which must be all of them.
      axis: to cut along.
      least: that a part may have.

    Returns:
      The parts.

    Raises:
      ValueError: lengths that are none, or not those of the array.
    """
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or not len(lengths):
        raise ValueError("its lengths are no whole numbers")
    # Each at most the whole, so that their sum is right.
    whole = array.shape[axis]
    if not least <= lengths.min() <= lengths.max() <= whole or lengths.sum() != whole:
        raise ValueError(f"its lengths are not those of parts of {whole}")
    return np.split(array, np.cumsum(lengths)[:-1], axis)


def texts(array: np.ndarray, count: int) -> list[str]:
    """So many texts, which can be written; ValueError for anything else."""
    if array.shape != (count,) or array.dtype.kind != "U":
        raise ValueError(f"an array {array.shape} is not {count} texts")
    # Beyond them numpy fails as C does; halves of pairs no file takes, nor a tokenizer.
    if array.size and np.ascontiguousarray(array).view("u4").max() > sys.maxunicode:
        raise ValueError("a text of no characters")
    found = array.tolist()
    "".join(found).encode()
    return found


def text(array: np.ndarray) -> str:
    """The one text that an array holds; ValueError for anything else."""
    return texts(array.reshape(-1), 1)[0]


def _melody(arrays, lengths: np.ndarray, frame_rate: float) -> dict:
    """The fields of a melody, of a cache that has one."""
    if "melodies" not in arrays:
        return {}
    melodies, bins, rate = (arrays[name] for name in ("melodies", "melody_bins", "melody_rate"))
    counts = arrays["melody_lengths"]
    if bins.shape != () or bins.dtype.kind not in "iu" or not 1 <= bins <= MOST_BINS:
        raise ValueError("its melody_bins are none")
    if rate.shape != () or not 0 < rate < np.inf:
        raise ValueError("its melody_rate is none")
    if (
        melodies.ndim != 1
        or melodies.dtype != np.uint8
        or not melodies.size
        or melodies.max() >= bins
    ):
        raise ValueError(f"its melodies are not in [0, {bins})")
    parts = split(melodies, counts)
    if (
        counts.shape != lengths.shape
        or (counts <= np.floor((lengths - 1) * (rate / frame_rate))).any()
    ):
        raise ValueError("its melodies are shorter than its codes")
    return {"melodies": parts, "melody_bins": int(bins), "melody_rate": float(rate)}


def _semantics(arrays, lengths: np.ndarray) -> dict:
    """The fields of semantic tokens, of a cache that has them."""
    if "semantics" not in arrays:
        return {}
    tokens, size, ratio = (arrays[f"semantic{name}"] for name in ("s", "_size", "_ratio"))
    for name, number, most in (("size", size, LARGEST_SIZE), ("ratio", ratio, MOST_FRAMES)):
        if number.shape != () or number.dtype.kind not in "iu" or not 1 <= number <= most:
            raise ValueError(f"its semantic_{name} is none")
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or not tokens.size:
        raise ValueError("its semantic tokens are not whole numbers")
    if not 0 <= tokens.min() <= tokens.max() < size:
        raise ValueError(f"its semantic tokens are not in [0, {size})")
    parts = split(tokens.astype(np.int32), -(-lengths.astype(np.int64) // int(ratio)))
    return {"semantics": parts, "semantic_size": int(size), "semantic_ratio": int(ratio)}
