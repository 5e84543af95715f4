"""How texts are written for a model that speaks: as they are, or as phonemes."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from rvq_jax.errors import UserError, shown


@dataclass(frozen=True)
class Spelling:
    """Texts as bytes of letters, or of the International Phonetic Alphabet."""

    phonemes: str | None = None  # espeak-ng's name of a language, "en-us"; None for letters
    letters: str | None = None  # all that it was trained on; None for any

    def written(self, words: Sequence[str], most: int) -> list[str]:
        """Texts as the model reads them.

        Args:
          words: the texts.
          most: bytes that it reads of one.

        Returns:
          The texts, spaces between words alone, in small letters; or phonemes of them.

        Raises:
          ValueError: an empty text, one of letters that the model was not trained on, or a longer
            one than it reads.
          UserError: espeak-ng is not there.
        """
        found = []
        for text in words:
            small = " ".join(text.lower().split())
            if not small:
                raise ValueError("a text is empty: give words to say")
            spelled = small if self.phonemes is None else phonemes(small, self.phonemes)
            strange = sorted(set(spelled) - set(spelled if self.letters is None else self.letters))
            if strange:
                raise ValueError(
                    f"{shown(text)} has {' '.join(map(repr, strange))}, which the model was not "
                    "trained on: write it in other words"
                )
            if len(spelled.encode()) > most:
                raise ValueError(
                    f"{shown(text)} is longer than the {most} bytes that the model reads, with the "
                    "words of the voice: say it in parts"
                )
            found.append(spelled)
        return found

    def trained_on(self, texts: Sequence[str]) -> "Spelling":
        """The same with all letters of these texts, written already, and no others."""
        return Spelling(self.phonemes, "".join(sorted(set().union(*texts))))


def phonemes(text: str, language: str) -> str:
    """Phonemes of a text by espeak-ng, words apart.

    Raises UserError if it is not installed, or has no such language.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise UserError("phonemes need espeak-ng: install it, or train on letters")
    # Not as an argument: a text may begin with a dash.
    done = subprocess.run(
        [program, "-q", "--ipa", "-v", language, "--stdin"],
        input=text.encode(),
        capture_output=True,
    )
    if done.returncode:
        raise UserError(f"espeak-ng cannot speak {shown(language)}: give another language")
    return " ".join(done.stdout.decode().split())
