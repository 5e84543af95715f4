"""What systems that speak share: voices, the room after them, what is heard."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rvq_jax.systems.codec import Codec
from rvq_jax.systems.decoding import audio as sound
from rvq_jax.systems.musicgen import checks
from rvq_jax.trees import one_line
from rvq_jax.typing import Audio, Codes

SHORTEST = 0.1  # seconds of a voice
SILENT = 1e-4  # amplitude below which nothing is heard, -80 dB


class Voice(NamedTuple):
    """Someone to speak as."""

    audio: Audio  # [S, C] at the codec's rate
    text: str  # what they say in it


class Speech(NamedTuple):
    """Speech of B rows."""

    audio: Audio  # [B, S, C], silent after a row's end
    samples: np.ndarray  # [B], of each row
    ended: np.ndarray  # [B] bool, False for rows that were cut before they said that they end

    __repr__ = one_line


class Begun(NamedTuple):
    """What rows begin with: nothing, or a voice."""

    words: list[str]  # of each row, with those of its voice
    audio: list[Audio]  # [S, C] of each row's voice, in whole frames
    codes: list[Codes]  # [K, F] of it
    frames: np.ndarray  # [B] of it


def begin(
    codec: Codec | None,
    levels: int,
    words: Sequence[str],
    voices: Sequence[Voice] | None,
    multiple: int = 1,
) -> Begun:
    """What rows begin with.

    Args:
      codec: that the voices are encoded by.
      levels: K, the first ones of its codes.
      words: a text for each row.
      voices: one for all rows, or one for each; None for none.
      multiple: frames of a voice are whole multiples of so many.

    Returns:
      Words, audio and codes of each row.

    Raises:
      ValueError: no codec, another number of voices, and one that is too short, silent, not finite
        or of other channels.
    """
    if codec is None:
        raise ValueError("this model has no codec: it makes no audio")
    rows, voices = len(words), list(voices or ())
    if len(voices) not in (0, 1, rows):
        raise ValueError(f"voices must be one, or {rows}, one for each text; got {len(voices)}")
    if not voices:
        empty = np.zeros((levels, 0), np.int32)
        return Begun(list(words), [], [empty] * rows, np.zeros(rows, int))
    audio = [_whole(codec, voice, codec.config.hop * multiple) for voice in voices]
    codes = [_encoded(codec, audio_SC)[:levels] for audio_SC in audio]
    times = rows // len(voices)
    said = [" ".join(pair) for pair in zip([v.text for v in voices] * times, words, strict=True)]
    frames = np.array([codes_KF.shape[1] for codes_KF in codes * times])
    return Begun(said, audio * times, codes * times, frames)


def forced(begun: Begun, frames: int) -> np.ndarray:
    """Codes `[B, K, F]` of voices, -1 after them."""
    found = np.full((len(begun.words), len(begun.codes[0]), frames), -1, np.int32)
    for row, codes_KF in zip(found, begun.codes, strict=True):
        row[:, : codes_KF.shape[1]] = codes_KF
    return found


def room(
    window: int | None, rate: float, seconds: float | None, begun_B: np.ndarray, ratio: int = 1
) -> np.ndarray:
    """Frames of new speech after each voice, whatever the others are.

    Args:
      window: frames that the model was trained on; None for any.
      rate: frames per second.
      seconds: that are asked for; None for as many as there is room for.
      begun_B: frames of each row's voice.
      ratio: frames of each token of the model that says where speech ends.

    Returns:
      Frames `[B]`, multiples of the ratio.

    Raises:
      ValueError: more than the model was trained on.
    """
    checks.seconds(seconds, "seconds")
    if window is None and seconds is None:
        raise ValueError("this model has no window: say how many seconds at most")
    wanted = None if seconds is None else max(ratio, round(seconds * rate / ratio) * ratio)
    if window is None:
        return np.full(len(begun_B), wanted)
    left_B, longest = window - begun_B, begun_B.max()
    if left_B.min() < ratio:
        raise ValueError(
            f"the voice has {longest / rate:.3g} s, and the model was trained on "
            f"{window / rate:.3g} in all: take a shorter clip"
        )
    if wanted is not None and wanted > left_B.min():
        raise ValueError(
            f"{seconds:g} s after {longest / rate:.3g} s of the voice are more than the "
            f"{window / rate:.3g} s that the model was trained on: ask for at most "
            f"{left_B.min() / rate:.3g}"
        )
    return left_B if wanted is None else np.full(len(begun_B), wanted)


def heard(
    codec: Codec, codes: Codes, begun_B: np.ndarray, ends_B: np.ndarray, ended_B: np.ndarray
) -> Speech:
    """The speech after each voice, which the decoder has heard.

    Args:
      codec: of the codes.
      codes: `[B, K, F]`, voices first.
      begun_B: frames of each row's voice.
      ends_B: frames up to each row's end.
      ended_B: whether it said that it ends.

    Returns:
      The speech, without voices.
    """
    audio_BSC = np.asarray(sound.decode(codec, codes, np.maximum(ends_B, 1)))
    hop = codec.config.hop
    samples_B = (ends_B - begun_B) * hop
    spoken = np.zeros((len(codes), max(1, samples_B.max()), audio_BSC.shape[2]), np.float32)
    for row, audio_SC, first, count in zip(
        spoken, audio_BSC, begun_B * hop, samples_B, strict=True
    ):
        row[:count] = audio_SC[first : first + count]
    return Speech(spoken, samples_B, ended_B)


def _encoded(codec: Codec, audio_SC: Audio) -> Codes:
    """Codes `[K, F]` of a voice; by programs of whole seconds, not one for every length."""
    samples, rate = len(audio_SC), codec.config.rate
    padded_SC = np.pad(audio_SC, [(0, -samples % rate), (0, 0)])
    codes = codec.encode(padded_SC[None], lengths=np.array([samples])).codes
    return np.asarray(codes)[0, :, : samples // codec.config.hop]


def _whole(codec: Codec, voice: Voice, step: int) -> np.ndarray:
    """Audio `[S, C]` of a voice in whole steps of samples."""
    audio_SC, config = np.asarray(voice.audio, np.float32), codec.config
    if audio_SC.ndim != 2 or audio_SC.shape[1] != config.channels:
        raise ValueError(
            f"a voice must be audio [S, {config.channels}], got {list(audio_SC.shape)}"
        )
    whole_SC = audio_SC[: len(audio_SC) // step * step]
    if len(whole_SC) < max(step, SHORTEST * config.rate):
        raise ValueError(f"a voice must be {SHORTEST} s or longer: take a longer clip")
    if not np.isfinite(whole_SC).all():
        raise ValueError("the voice has samples that are not finite: take another clip")
    if np.abs(whole_SC).max() < SILENT:
        raise ValueError("the voice is silent: take another clip")
    return whole_SC
