"""How far generated music is what its caption says, where that can be heard: tempo and key."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rvq_jax.data.synth import NOTES
from rvq_jax.evaluate.intervals import Interval, share
from rvq_jax.metrics import music
from rvq_jax.typing import Audio

STATED = re.compile(rf"\bin ({'|'.join(sorted(NOTES, key=len)[::-1])}) (major|minor), (\d+) bpm$")
# What is asked, and whether a near miss counts: half or twice the tempo, the relative key.
QUESTIONS = ("tempo", "tempo or its octave", "key", "key or its relative")


class Truth(NamedTuple):
    """What a caption says that can be heard."""

    bpm: float
    root: int  # 0 = C … 11 = B
    mode: str  # major or minor


def truth_of(caption: str) -> Truth | None:
    """What a caption of the built-in corpus says ('… in A minor, 120 bpm'); None of another."""
    found = STATED.search(caption)
    if found is None:
        return None
    note, mode, bpm = found.groups()
    return Truth(float(bpm), NOTES.index(note), mode)


def answers(audio: Audio, rate: int, truths: Sequence[Truth]) -> np.ndarray:
    """Whether each clip is what was said of it, `[M, 4]` of 0 and 1 in the order of `QUESTIONS`.

    A clip in which no tempo or key is heard, silence, agrees with nothing.

    Args:
      audio: `[M, S, C]`, whose channels are mixed.
      rate: hertz.
      truths: what was said of each.
    """
    rows = []
    for audio_SC, truth in zip(audio, truths, strict=True):
        mono_S = np.asarray(audio_SC).mean(axis=1)
        bpm, found = music.tempo(mono_S, rate), music.key(mono_S, rate)
        stated = truth.root, truth.mode
        tempo = [music.tempo_agrees(bpm, truth.bpm, octaves) for octaves in (False, True)]
        rows.append([*tempo, found == stated, found in (stated, music.relative(*stated))])
    return np.array(rows, float)


def agreement(found_M4: np.ndarray) -> dict[str, Interval]:
    """The share of clips that agree, with its interval, by what was asked."""
    return {what: share(found_M4[:, i]) for i, what in enumerate(QUESTIONS)}
