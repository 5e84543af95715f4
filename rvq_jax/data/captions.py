"""The caption cache: states of a frozen text encoder, computed once for every caption."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvq_jax import files
from rvq_jax.data.codes import split, stored, text, texts

STEP = 16  # lengths are multiples of it, so that near ones share compiled programs


@dataclass(frozen=True, eq=False)
class CaptionStates:
    """States `[L, E]` of many captions, each of its own length, all kept in memory."""

    captions: list[str]
    states: list[np.ndarray]  # float32, each [its own L, E]
    key: str  # of what made them: another encoder or other captions have another

    @functools.cached_property
    def length(self) -> int:
        """L that all captions are padded to."""
        longest = max([1, *map(len, self.states)])
        return -(-longest // STEP) * STEP

    def conditions(self, caption: str) -> dict[str, np.ndarray]:
        """States `[L, E]` and text_mask `[L]` of a caption, padded to `length`."""
        found = self.states[self._places[caption]]
        states_LE = np.zeros((self.length, found.shape[1]), found.dtype)
        states_LE[: len(found)] = found
        return {"states": states_LE, "text_mask": np.arange(self.length) < len(found)}

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {caption: i for i, caption in enumerate(self.captions)}

    def save(self, path: str | Path) -> None:
        """Writes one .npz, whole or not at all."""
        with files.writing(path) as target, target.open("wb") as file:
            np.savez(
                file,
                captions=np.array(self.captions, str),
                states=np.concatenate(self.states),
                lengths=np.array([len(states) for states in self.states]),
                key=self.key,
            )

    @classmethod
    def load(cls, path: str | Path) -> "CaptionStates":
        """Reads what `save` wrote; raises UserError if it is not that or is damaged."""
        with stored(path, "a caption cache") as arrays:
            states, lengths = arrays["states"], arrays["lengths"]
            if states.ndim != 2 or states.dtype != np.float32:
                raise ValueError("its states are not [L, E]")
            captions = texts(arrays["captions"], len(lengths))
            # A caption may have none: an empty one.
            return cls(captions, split(states, lengths, least=0), text(arrays["key"]))
