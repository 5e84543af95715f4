"""How good models are that speak: what a recognizer hears of them.

Held-out texts are said by every model in the voice of another held-out clip of who said them.
Beside the models are the recordings themselves, what the codec makes of them, and of the training
clips in that voice the one whose words are nearest.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rvq_jax.audio import io
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.evaluate import recognition
from rvq_jax.evaluate.intervals import interval
from rvq_jax.evaluate.measures import DNSMOS, missing
from rvq_jax.evaluate.recognition import Recognizer, WordErrors, spoken, total, word_errors
from rvq_jax.evaluate.settings import GenerationSettings
from rvq_jax.evaluate.spoken import Heard, Speaker, ask, can_say, nearest, recordings, say, window
from rvq_jax.systems.generators import speaks
from rvq_jax.systems.speech import Voice
from rvq_jax.typing import Audio

GRAMMAR = 50  # different words, up to which the recognizer hears these alone
RATED = 16  # clips of a system that DNSMOS is measured of: it takes a second for each
QUIET = 40.0  # decibels below the loudest frame of a clip, from which on a frame is silence
FRAME = 0.02  # seconds
VOICE = "voice"
REAL, DECODED, NEAREST = "recorded", "through the codec", "nearest training clip"


def check(models: Mapping[str, object]) -> None:
    """Raises UserError unless all models speak, have codecs of one rate, and can be recognized."""
    mute = [name for name, model in models.items() if not speaks(model) or model.codec is None]
    if mute:
        raise UserError(f"{mute[0]} was not trained on speech, or has no codec; leave --speech out")
    if len({(model.codec.config.rate, model.channels) for model in models.values()}) > 1:
        raise UserError("models of different sampling rates or channels; evaluate them apart")
    recognition.check()


def evaluate_speech(
    models: Mapping[str, Speaker],
    heldout: CodeSet,
    *,
    audio: Sequence[dict] | None = None,
    train: CodeSet | None = None,
    out: str | Path | None = None,
    settings: GenerationSettings | None = None,
) -> dict:
    """Measures what models say of held-out texts.

    Args:
      models: by name, each with a codec, all of one rate.
      heldout: held-out codes of whole utterances.
      audio: records of their audio, in the same order; None where there are codes alone.
      train: what the models were trained on, to look for the nearest clip in; None for none, and
        left out where it is of another codec.
      out: folder that gets the audio, as `speech/CLIP/NUMBER.flac`; None keeps nothing.
      settings: how many texts are said, and how; its seconds are not read.

    Returns:
      What results.json says of speech.

    Raises:
      UserError: pocketsphinx is not there, no clip has words, and what a model cannot say.
    """
    check(models)
    settings = settings or GenerationSettings()
    codec = next(iter(models.values())).codec
    rate = codec.config.rate
    every = list(models.values())
    fits = functools.partial(can_say, every)
    asked = ask(heldout, settings.clips, settings.seed, window(every), fits)
    texts = [heldout.captions[i] for i in asked.clips]
    words = sorted({word for text in texts for word in spoken(text)})
    recognizer = Recognizer()
    if len(words) <= GRAMMAR and not recognizer.unknown(words):
        recognizer, vocabulary = Recognizer(words), len(words)
    else:
        vocabulary = None
    voice_audio = recordings(codec, heldout, asked.voices, audio)
    voice_texts = [heldout.captions[i] for i in asked.voices]
    voices = [Voice(*pair) for pair in zip(voice_audio, voice_texts, strict=True)]
    decoded = Heard(recordings(codec, heldout, asked.clips, None))
    real = decoded if audio is None else Heard(recordings(codec, heldout, asked.clips, audio))
    systems = ({} if audio is None else {REAL: real}) | {DECODED: decoded}
    if train is not None and _is_of(train, heldout):
        at = nearest(texts, [heldout.labels[i] for i in asked.clips], train)
        systems[NEAREST] = Heard(recordings(codec, train, at, None))
    taken = {VOICE, REAL, DECODED, NEAREST}
    named = {f"{name} (model)" if name in taken else name: m for name, m in models.items()}
    for name, model in named.items():
        systems[name] = say(model, texts, voices, settings)
    lengths = np.array([len(x_SC) for x_SC in real.audio])
    found = {
        "clips": len(texts),
        "voices": bool(voices),
        "vocabulary": vocabulary,
        "dnsmos_left_out": missing(DNSMOS),
        "systems": [
            {
                "name": name,
                "model": name in named,
                **_judged(heard, texts, lengths, recognizer, rate),
            }
            for name, heard in systems.items()
        ],
        "players": [],
    }
    if out is not None:
        heard = {VOICE: Heard([voice.audio for voice in voices])} if voices else {}
        found["players"] = _players(Path(out), heldout.rows(asked.clips), heard | systems, rate)
    return found


def silence(audio_SC: Audio, rate: int) -> float:
    """The share of a clip that is silence: frames of 20 ms that are 40 dB below the loudest one;
    1 of a clip that has no sound."""
    size = round(FRAME * rate)
    mono_S = np.asarray(audio_SC, np.float64).mean(1)
    power_F = np.square(mono_S[: len(mono_S) // size * size].reshape(-1, size)).mean(1)
    if not len(power_F) or not power_F.max():
        return 1.0
    return float((power_F < power_F.max() * 10 ** (-QUIET / 10)).mean())


def _judged(
    heard: Heard, texts: Sequence[str], lengths: np.ndarray, recognizer: Recognizer, rate: int
) -> dict:
    """What is measured of a system's clips, beside the lengths in samples of the recorded ones."""
    said = [recognizer.heard(x_SC, rate) for x_SC in heard.audio]
    errors = [word_errors(*pair) for pair in zip(texts, said, strict=True)]
    other = [word_errors(text, said[i]) for text, i in zip(texts, _shuffled(texts), strict=True)]
    all_of = total(errors)
    scores = []
    if missing(DNSMOS) is None:
        scores = [DNSMOS.score(x_SC, x_SC, rate) for x_SC in heard.audio[:RATED]]
        # What ended without a sound is as bad as speech can be.
        scores = np.nan_to_num(scores, nan=DNSMOS.worst)
    return {
        "accuracy": _accuracy(errors),
        "chance": _accuracy(other) if len(texts) > 1 else None,
        **{
            kind: getattr(all_of, kind) / all_of.words
            for kind in ("substitutions", "insertions", "deletions")
        },
        "dnsmos": interval(scores).as_json() if len(scores) else None,
        "duration": interval([len(x) for x in heard.audio] / lengths, lengths).as_json(),
        "silence": interval([silence(x_SC, rate) for x_SC in heard.audio]).as_json(),
        "ended": None if heard.ended is None else float(heard.ended.mean()),
        "cost": heard.cost,
        "heard": said,
    }


def _is_of(train: CodeSet, heldout: CodeSet) -> bool:
    """Whether codes are of the same codec, which decodes both."""
    of = [(len(x.codes[0]), x.codebook_size, x.frame_rate, x.codec) for x in (train, heldout)]
    return of[0] == of[1]


def _accuracy(errors: Sequence[WordErrors]) -> dict:
    """Of all words together, with its interval over clips."""
    words = np.array([one.words for one in errors])
    return interval([one.accuracy for one in errors], words).as_json()


def _shuffled(texts: Sequence[str]) -> np.ndarray:
    """An order in which every text meets another clip, of other words where there are any."""
    rows = len(texts)
    same = [sum(texts[i] == texts[(i + by) % rows] for i in range(rows)) for by in range(1, rows)]
    by = 1 + int(np.argmin(same)) if same else 0
    return (np.arange(rows) + by) % rows


def _players(out: Path, said: CodeSet, systems: Mapping[str, Heard], rate: int) -> list[dict]:
    """Players of every text that was said, whose audio is written."""
    players = []
    for i, record in enumerate(map(said.__getitem__, range(len(said)))):
        paths = {name: f"speech/{i}/{number}.flac" for number, name in enumerate(systems)}
        for name, path in paths.items():
            audio_SC = systems[name].audio[i]
            # A file without samples is none: of what ended at once, some silence.
            empty_SC = np.zeros((round(FRAME * rate), audio_SC.shape[1]), np.float32)
            io.write(out / path, audio_SC if len(audio_SC) else empty_SC, rate)
        words = {"file": record["name"], "caption": record["caption"], "label": record["label"]}
        players.append({**words, "original": None, "systems": paths})
    return players
