"""The melody of a crop, from the pitch classes kept beside the codes of its record."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MelodyCut:
    """Pitch classes of a crop of codes, as a model that follows a melody is conditioned on them."""

    per_frame: float  # pitch classes per frame of codes
    bins: int
    length: int  # P, which shorter melodies are repeated to

    def conditions(self, record: dict, begin: int, frames: int) -> dict[str, np.ndarray]:
        """Melody `[P, bins]`, one-hot, of the crop of a record that begins at a frame.

        They were found in the whole record, so those at a crop's ends heard beyond it.
        """
        first = int(begin * self.per_frame)
        piece = record["melody"][first : first + int(frames * self.per_frame) + 1]
        piece = piece[np.arange(self.length) % len(piece)]
        return {"melody": np.eye(self.bins, dtype=np.float32)[piece]}
