"""What is to be said and what is heard: texts, voices, recordings, and models that say them."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.evaluate.recognition import spoken, word_errors
from rvq_jax.evaluate.settings import GenerationSettings
from rvq_jax.lm.decode import row_keys
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.decoding import audio as sound
from rvq_jax.systems.semantic import SemanticModel
from rvq_jax.systems.soundstorm import SoundStorm
from rvq_jax.systems.speech import SHORTEST, Voice
from rvq_jax.systems.valle import VALLE
from rvq_jax.typing import Audio

Speaker = VALLE | SoundStorm


class Asked(NamedTuple):
    """Which held-out clips are said, and in whose voice."""

    clips: np.ndarray  # [M], whose texts are said
    voices: np.ndarray  # [M], of clips of the same label; empty where none has one that fits


class Heard(NamedTuple):
    """Clips of one system, in the order that they were asked for."""

    audio: list[Audio]  # [S, C] each
    ended: np.ndarray | None = None  # [M] bool, of a model's
    cost: float | None = None  # seconds of computing per second of speech


def window(models: Iterable[Speaker]) -> int | None:
    """Frames of codes that every one of some models was trained on; None for any."""
    return min((model.longest for model in models if model.longest is not None), default=None)


def can_say(models: Iterable[Speaker], text: str) -> bool:
    """Whether all of some models read a text, with the words of a voice in it."""
    try:
        for model in models:
            spelling = model.spelling if isinstance(model, VALLE) else model.semantic.spelling
            spelling.written([text], stage(model).lm.config.caption_bytes)
    except ValueError:
        return False
    return True


def stage(model: Speaker) -> SemanticModel:
    """The model of one level that reads the text, and says where speech ends."""
    return model.first if isinstance(model, VALLE) else model.semantic


def ask(
    heldout: CodeSet,
    count: int,
    seed: int,
    frames: int | None = None,
    fits: Callable[[str], bool] = bool,
) -> Asked:
    """Draws texts, and a voice for each.

    Args:
      heldout: held-out codes of whole utterances, their words as captions, who speaks as labels.
      count: of texts at most.
      seed: of the draw.
      frames: that a voice and what is said have together at most; any for None.
      fits: whether the words of a voice and a text are not too many together.

    Returns:
      What is asked. Clips without a voice, another one of their label that fits, are left out,
      unless no clip has one; so are recordings that were cut to pieces, whose words are of the
      whole.

    Raises:
      UserError: no clip has words that can be said.
    """
    lengths = [codes_KF.shape[1] for codes_KF in heldout.codes]
    names = [_recording(heldout, i) for i in range(len(heldout))]
    pieces = Counter(names)
    worded = [
        i
        for i, caption in enumerate(heldout.captions)
        if spoken(caption) and pieces[names[i]] == 1 and fits(caption)
    ]
    if not worded:
        raise UserError(
            "no held-out clip has words that can be said: put what is said into its caption, one "
            "file an utterance"
        )
    least = SHORTEST * heldout.frame_rate  # of a voice
    rng = np.random.default_rng((seed, 3))
    order = rng.permutation(worded)
    found: list[tuple[int, int]] = []
    for i in order:
        if len(found) == count:
            break
        room = np.inf if frames is None else frames - lengths[i]
        label = heldout.labels[i]
        others = [j for j in worded if j != i and label and heldout.labels[j] == label]
        near = [j for j in rng.permutation(others).astype(int) if least <= lengths[j] < room]
        said = heldout.captions[i]
        fitting = (int(j) for j in near if fits(f"{heldout.captions[j]} {said}"))
        if (voice := next(fitting, None)) is not None:
            found.append((int(i), voice))
    if found:
        clips, voices = np.array(found).T
        return Asked(clips, voices)
    return Asked(order[:count], np.zeros(0, int))


def nearest(texts: Sequence[str], labels: Sequence[str], train: CodeSet) -> np.ndarray:
    """The training clips `[M]` of the same label whose words differ least from texts; of any label
    where there is none of the same."""
    first: dict[str, dict[str, int]] = {}  # of each label, the first clip of each text
    for i, (label, caption) in enumerate(zip(train.labels, train.captions, strict=True)):
        first.setdefault(label, {}).setdefault(caption, i)
    every = {caption: i for own in first.values() for caption, i in own.items()}
    found = []
    for text, label in zip(texts, labels, strict=True):
        own = first.get(label, every)
        found.append(own[min(own, key=lambda other: sum(word_errors(text, other)[1:]))])
    return np.array(found)


def recordings(
    codec: Codec, codes: CodeSet, rows: Sequence[int], audio: Sequence[dict] | None
) -> list[Audio]:
    """Some clips, whole.

    Args:
      codec: of the codes.
      codes: of clips.
      rows: indices of M of them.
      audio: records of their audio; None for what the codec decodes.

    Returns:
      Audio `[S, C]` of each.

    Raises:
      UserError: recorded audio that is not that of the codes.
    """
    found = []
    for i in map(int, rows):
        if audio is None:
            codes_KF = codes.codes[i]
            found.append(sound.decode(codec, codes_KF[None], np.array([codes_KF.shape[1]]))[0])
            continue
        record = audio[i]
        if record["name"] != codes.names[i]:
            raise UserError(
                f"the held-out codes are not of this audio ({record['name']}); make them again"
            )
        found.append(record["audio"])
    return found


def say(
    model: Speaker,
    texts: Sequence[str],
    voices: Sequence[Voice],
    settings: GenerationSettings,
) -> Heard:
    """Says texts in batches, each text by a key of its own.

    Args:
      model: with a codec.
      texts: M of them.
      voices: one for each, or none.
      settings: batch, seed, and how codes are sampled; guidance is not for speech.

    Returns:
      What was said, and what it cost where there was a full batch beside the one that compiled.

    Raises:
      UserError: a text or a voice that the model cannot read.
    """
    rows, size = len(texts), min(settings.batch, len(texts))
    keys = row_keys(jax.random.key(settings.seed), rows)
    options = {name: getattr(settings, name) for name in ("temperature", "top_k", "top_p")}
    options = {name: value for name, value in options.items() if value is not None}
    audio, ended, took, made = [], [], 0.0, 0
    for begin in range(0, rows, size):
        # What fills the last batch is a copy: it costs nothing to compile.
        at = np.minimum(np.arange(begin, begin + size), rows - 1)
        began = time.perf_counter()
        try:
            found = model.speak(
                [texts[i] for i in at],
                keys[at],
                voices=[voices[i] for i in at if voices],
                **options,
            )
        except ValueError as error:
            raise UserError(f"{error}") from error
        if begin:
            took += time.perf_counter() - began
            made += int(found.samples.sum())
        kept = min(size, rows - begin)
        lengths = found.samples[:kept]
        audio += [x_SC[:n] for x_SC, n in zip(found.audio[:kept], lengths, strict=True)]
        ended += found.ended[:kept].tolist()
    cost = took * model.codec.config.rate / made if made else None
    return Heard(audio, np.array(ended), cost)


def _recording(heldout: CodeSet, i: int) -> str:
    """What a clip is of; pieces of a recording are named RECORDING#0, RECORDING#1, …"""
    return heldout.names[i].rpartition("#")[0] or heldout.names[i]
