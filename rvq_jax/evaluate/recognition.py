"""What a recognizer hears: word errors of speech, by PocketSphinx."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rvq_jax.audio import io, resample
from rvq_jax.errors import UserError
from rvq_jax.typing import Audio

RATE = 16_000  # of the acoustic model
PAUSE = 0.3  # seconds put before and after a clip: the recognizer looks for where speech begins
# Root mean squares of a clip and of the noise under it: of quiet speech, and of digital silence
# between words, PocketSphinx hears half as much.
LOUD, NOISE, SILENT = 0.08, 1e-2, 1e-4
# What a grammar weighs against the sound. As the package has it, 6.5, every word more costs so much
# that of speech through a codec, which fits no word well, hardly more than one is heard.
WEIGHT = 2.0


class WordErrors(NamedTuple):
    """How what was heard differs from what was to be said."""

    words: int  # that were to be said
    substitutions: int
    insertions: int
    deletions: int

    @property
    def accuracy(self) -> float:
        """1 - all errors / words: below 0 where more was inserted than said."""
        wrong = self.substitutions + self.insertions + self.deletions
        return 1.0 - wrong / max(self.words, 1)


def check() -> None:
    """Raises UserError if pocketsphinx is not installed."""
    try:
        import pocketsphinx  # noqa: F401
    except ImportError as error:
        raise UserError(
            "recognizing speech needs pocketsphinx: pip install 'rvq_jax[speech]'"
        ) from error


class Recognizer:
    """PocketSphinx with its American English model."""

    def __init__(self, words: Sequence[str] | None = None):
        """words: all that can be said, in any order and number; None: its own language model.

        Raises UserError if pocketsphinx is not installed, or does not know a word.
        """
        check()
        from pocketsphinx import Decoder

        weight = {} if words is None else {"lw": WEIGHT}
        self._decoder = Decoder(samprate=RATE, loglevel="FATAL", **weight)
        if words is None:
            return
        unknown = self.unknown(words)
        if unknown:
            raise UserError(f"the recognizer does not know {', '.join(unknown)}")
        grammar = f"#JSGF V1.0; grammar words; public <said> = ({' | '.join(words)})+;"
        self._decoder.add_jsgf_string("words", grammar)
        self._decoder.activate_search("words")

    def unknown(self, words: Sequence[str]) -> list[str]:
        """Those of some words that it cannot hear."""
        return [word for word in words if self._decoder.lookup_word(word) is None]

    def heard(self, audio_SC: Audio, rate: int) -> str:
        """The words of a clip `[S, C]` of so many samples per second; none of silence."""
        mono_S1 = resample.to_rate(np.asarray(audio_SC).mean(1, keepdims=True), rate, RATE)
        level = float(np.sqrt(np.mean(mono_S1**2))) if len(mono_S1) else 0.0
        if level < SILENT:
            return ""
        padded_S1 = np.pad(mono_S1 * (LOUD / level), [(round(PAUSE * RATE),) * 2, (0, 0)])
        noise_S1 = np.random.default_rng(0).normal(0.0, NOISE, padded_S1.shape)
        self._decoder.start_utt()
        sound = io.pcm16(padded_S1 + noise_S1)
        self._decoder.process_raw(sound, full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return "" if found is None else found.hypstr


def spoken(text: str) -> list[str]:
    """The words of a text in small letters, without marks between them."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower().replace("\u2019", "'"))


def word_errors(said: str, heard: str) -> WordErrors:
    """The fewest errors that make what was to be said into what was heard (Levenshtein 1965).

    Of ways with equally few, the one of fewest substitutions.

    Args:
      said: what was to be said.
      heard: the words of a recognizer.

    Returns:
      The errors, by kind.
    """
    want, have = spoken(said), spoken(heard)
    # Of each beginning of what was heard: errors in all, substitutions, insertions, deletions.
    row = [(j, 0, j, 0) for j in range(len(have) + 1)]
    for i, word in enumerate(want, 1):
        new = [(i, 0, 0, i)]
        for j, other in enumerate(have, 1):
            total, s, n, d = row[j - 1]
            ways = [(total + (word != other), s + (word != other), n, d)]
            total, s, n, d = new[-1]
            ways.append((total + 1, s, n + 1, d))
            total, s, n, d = row[j]
            ways.append((total + 1, s, n, d + 1))
            new.append(min(ways))
        row = new
    _, substitutions, insertions, deletions = row[-1]
    return WordErrors(len(want), substitutions, insertions, deletions)


def total(errors: Sequence[WordErrors]) -> WordErrors:
    """Errors of several clips together."""
    return WordErrors(*(sum(kind) for kind in zip(WordErrors(0, 0, 0, 0), *errors, strict=True)))
