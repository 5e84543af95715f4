"""The code cache: a corpus encoded once, in one file."""

import zipfile
import zlib
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
    size: int  # N, codes per level
    codec: str = ""  # fingerprint of the codec that made them, if it is known
    melodies: list[np.ndarray] | None = None  # uint8, each [its own P]: strongest pitch classes
    melody_bins: int = 0  # of which there are so many
    melody_rate: float = 0.0  # pitch classes per second

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

    def save(self, path: str | Path) -> None:
        """Writes one .npz, whole or not at all; codes take the smallest type that holds them."""
        dtype = np.min_scalar_type(self.size - 1)
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
                size=self.size,
                codec=self.codec,
                **melody,
            )

    @classmethod
    def load(cls, path: str | Path) -> "CodeSet":
        """Reads what `save` wrote; raises UserError if it is not that or is damaged."""
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                ends = np.cumsum(stored["lengths"])[:-1]
                return cls(
                    np.split(stored["codes"].astype(np.int32), ends, axis=1),
                    stored["names"].tolist(),
                    stored["captions"].tolist(),
                    stored["labels"].tolist(),
                    float(stored["frame_rate"]),
                    int(stored["size"]),
                    str(stored["codec"]) if "codec" in stored else "",
                    **_melody(stored),
                )
        except DAMAGE as error:
            raise UserError(
                f"{path} is not a code cache ({error}); delete it, and it is made again"
            ) from error


def _melody(stored) -> dict:
    """The fields of a melody, of a cache that has one."""
    if "melodies" not in stored:
        return {}
    ends = np.cumsum(stored["melody_lengths"])[:-1]
    return {
        "melodies": np.split(stored["melodies"], ends),
        "melody_bins": int(stored["melody_bins"]),
        "melody_rate": float(stored["melody_rate"]),
    }
