"""Semantic tokens that were made elsewhere, as arrays: those of any speech or music model."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvq_jax import npz
from rvq_jax.errors import UserError, reading, shown
from rvq_jax.opening import read_bytes

STATED = "semantic.json"
SPARE = 2  # tokens by which there may be more or fewer than the audio has
MOST, FASTEST = 1 << 20, 768_000  # tokens, and of them a second


@dataclass(frozen=True)
class TokenFolder:
    """Semantic tokens made elsewhere: `<record name>.npy` `[T]` of each record."""

    folder: Path
    size: int  # N
    frame_rate: float  # tokens per second

    def of(self, record: dict, rate: int) -> np.ndarray:
        """Tokens `[T]` int32 of a record with audio `[S, C]` of so many samples per second.

        Where they end a little before their audio the last one stays, where after it the rest is
        left out.

        Raises:
          UserError: tokens that are not there, cannot be read, are of another length than the audio
            or not in [0, N).
        """
        path = self.folder / f"{record['name'].lstrip('/')}.npy"
        seconds = len(record["audio"]) / rate
        with reading(path, "semantic tokens", "make them again"):
            found = npz.read_array(path)
            if found.ndim != 1 or found.dtype.kind not in "iu" or not len(found):
                raise ValueError(f"not whole numbers [T], but {found.dtype} {found.shape}")
            if not 0 <= found.min() <= found.max() < self.size:
                raise ValueError(f"not in [0, {self.size})")
            if abs(len(found) - seconds * self.frame_rate) > SPARE:
                raise ValueError(
                    f"{len(found) / self.frame_rate:.2f} s at {self.frame_rate:g} a second, its "
                    f"audio is {seconds:.2f} s"
                )
        wanted = math.ceil(seconds * self.frame_rate - 1e-6)
        return found[np.minimum(np.arange(wanted), len(found) - 1)].astype(np.int32)


def open_tokens(folder: str | Path) -> TokenFolder:
    """Semantic tokens that were made elsewhere.

    Beside them is a semantic.json, `{"size": 500, "frame_rate": 25.0}`. Made so, with any `model`
    of audio `[S, C]`:

        for record in (source[i] for i in range(len(source))):
            path = folder / f"{record['name']}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, model(record["audio"]))  # [T], whole numbers

    Args:
      folder: of the tokens.

    Returns:
      How they are read.

    Raises:
      UserError: no such folder, or no semantic.json that says how many there are and their rate.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"semantic: folder {folder} is not there; name one with a .npy per record")
    remedy = 'write {"size": 500, "frame_rate": 25.0}'
    with reading(folder / STATED, "what semantic tokens there are", remedy):
        said = json.loads(read_bytes(folder / STATED))
        size, frame_rate = said["size"], said["frame_rate"]
        if type(size) is not int or not 1 <= size <= MOST:
            raise ValueError(f"size is {shown(size)}")
        if type(frame_rate) not in (int, float) or not 0 < frame_rate <= FASTEST:
            raise ValueError(f"frame_rate is {shown(frame_rate)}")
    return TokenFolder(folder, size, float(frame_rate))
