"""Texts said to files, in the voice of a clip."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from rvq_jax import progress
from rvq_jax.audio import io
from rvq_jax.lm.decode import row_keys
from rvq_jax.offline import encode_file
from rvq_jax.offline.encode_file import PIPE
from rvq_jax.systems.soundstorm import SoundStorm
from rvq_jax.systems.speech import Voice
from rvq_jax.systems.valle import VALLE

BAR = {"desc": "speak", "unit": "batch", "delay": 2, "leave": False}


class Said(NamedTuple):
    """One text as it was said."""

    samples: int
    ended: bool  # False for what was cut


def read_voice(model: VALLE | SoundStorm, path: str | Path, text: str) -> Voice:
    """The voice of an audio file of any rate and channels, and the words in it; UserError."""
    return Voice(encode_file.read_audio(model.codec, path, model.channels), text)


def speak_files(
    model: VALLE | SoundStorm,
    words: Sequence[str],
    targets: Sequence[str | Path],
    seed: int,
    voice: Voice | None = None,
    *,
    batch: int = 8,
    **options,
) -> list[Said]:
    """Says texts and writes each to its file.

    Args:
      model: with a codec.
      words: the texts.
      targets: audio files, one for each, that appear whole or not at all; or one `-` for .wav on
        standard output.
      seed: from which each text's own key is folded.
      voice: whom to speak as; None for anyone.
      batch: texts said together, which does not change the result.
      options: of the model's `speak`.

    Returns:
      How long each is, and whether it ended.

    Raises:
      ValueError: what does not fit the model.
      UserError: a target that cannot be written to.
    """
    rows, found = len(words), []
    keys, size = row_keys(jax.random.key(seed), rows), min(batch, rows)
    voices = None if voice is None else [voice]
    for begin in progress.bar(range(0, rows, size), **BAR):
        # What fills the last batch is a copy: it costs nothing to compile.
        at = np.minimum(np.arange(begin, begin + size), rows - 1)
        with progress.compiling("the first batch", repr(model)):
            speech = model.speak([words[i] for i in at], keys[at], voices=voices, **options)
        for row, target in enumerate(targets[begin : begin + size]):
            count = int(speech.samples[row])
            _write(target, speech.audio[row, :count], model.codec.config.rate)
            found.append(Said(count, bool(speech.ended[row])))
    return found


def _write(target: str | Path, audio_SC: np.ndarray, rate: int) -> None:
    if str(target) != PIPE:
        io.write(target, audio_SC, rate)
        return
    encode_file.to_pipe(io.wav_header(rate, audio_SC.shape[1], len(audio_SC)))
    encode_file.to_pipe(io.pcm16(audio_SC))
