"""Which held-out clips stand for real audio, and which are asked of token models."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.systems.decoding import audio as sound
from rvq_jax.systems.generators import Generator
from rvq_jax.typing import Audio


class Chosen(NamedTuple):
    """Two sets of held-out clips, as many in either."""

    frames: int  # of each clip, from its beginning
    reference: np.ndarray  # [M], whose real audio everything is compared with
    other: np.ndarray  # [M], whose captions are generated; empty where there is one clip only

    @property
    def asked(self) -> np.ndarray:
        """Clips whose captions are generated: of a single clip its own."""
        return self.other if len(self.other) else self.reference


def choose(heldout: CodeSet, clips: int, seed: int, seconds: float | None = None) -> Chosen:
    """Draws two sets of held-out clips.

    All are cut to one length: that of the shorter half's longest clip, or less. Clips of one
    recording are in one set, where there are two recordings.

    Args:
      heldout: held-out codes; the pieces of a recording are named RECORDING#0, RECORDING#1, …
      clips: that a set has at most.
      seed: of the draw.
      seconds: that a clip has at most; any for None.
    """
    lengths = np.array([codes.shape[1] for codes in heldout.codes])
    limits = [int(np.quantile(lengths, 0.5, method="lower"))]
    limits += [max(1, round(seconds * heldout.frame_rate))] if seconds else []
    frames = min(limits)
    usable = np.flatnonzero(lengths >= frames)
    recordings: dict[str, list[int]] = {}
    for i in map(int, usable):
        recordings.setdefault(heldout.names[i].rpartition("#")[0] or f"{i}", []).append(i)
    groups = list(recordings.values()) if len(recordings) > 1 else [[int(i)] for i in usable]
    order = np.random.default_rng((seed, 2)).permutation(len(groups))
    sides: tuple[list[int], list[int]] = ([], [])
    # The largest first, so that the sides become equal.
    for place in sorted(order, key=lambda place: -len(groups[place])):
        min(sides, key=len).extend(groups[place])
    reference, other = (np.array(side, int) for side in sides)
    count = min(clips, len(other)) or 1
    return Chosen(frames, reference[:count], other[:count])


def real_audio(
    model: Generator, heldout: CodeSet, rows: np.ndarray, frames: int, audio: Sequence[dict] | None
) -> Audio:
    """The beginnings of held-out clips.

    Args:
      model: whose codec decodes them, where there is no other audio.
      heldout: held-out codes.
      rows: `[M]` indices of clips.
      frames: of each.
      audio: records of their audio; None for what the codec decodes.

    Returns:
      Audio `[M, S, C]`.

    Raises:
      UserError: recorded audio that is not that of the codes.
    """
    config, channels = model.codec.config, model.channels
    samples = frames * config.hop
    if not len(rows):
        return np.zeros((0, samples, channels), np.float32)
    if audio is None:
        codes = np.stack([heldout.codes[i][:, :frames] for i in rows])
        return sound.decode(
            model.codec, codes, np.full(len(rows), frames), channels // config.channels
        )
    found = np.zeros((len(rows), samples, channels), np.float32)
    for row, i in zip(found, rows, strict=True):
        record = audio[int(i)]
        audio_SC = record["audio"][:samples]
        # The last frame of a clip may be part full.
        short = samples - len(audio_SC) >= config.hop
        if record["name"] != heldout.names[i] or audio_SC.shape[1] != channels or short:
            raise UserError(
                f"the held-out codes are not of this audio ({record['name']}); make them again"
            )
        row[: len(audio_SC)] = audio_SC
    return found
