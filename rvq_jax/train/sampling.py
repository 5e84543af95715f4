"""What models in training sound like: held-out clips decoded, or held-out texts generated."""

from collections.abc import Sequence

import jax
import numpy as np

from rvq_jax.data.codes import CodeSet
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.decoding import audio as sound
from rvq_jax.systems.generators import Generator
from rvq_jax.systems.soundstorm import SoundStorm
from rvq_jax.train.monitoring import Sample

SECONDS = 8.0  # of a recording at most


def decoded(codec: Codec, records, count: int) -> list[Sample]:
    """What a codec makes of recordings.

    Args:
      codec: that is trained.
      records: held-out ones, with audio `[S, C]` at its rate.
      count: of clips, the first ones.

    Returns:
      A clip of each, of at most 8 s.
    """
    samples, rate = [], codec.config.rate
    for i in range(min(count, len(records))):
        audio_SC = records[i]["audio"][: int(SECONDS * rate)]
        # By one program for all lengths, like the first.
        padded_SC = np.pad(audio_SC, [(0, -len(audio_SC) % rate), (0, 0)])
        again = np.asarray(codec.decode(codec.encode(padded_SC[None])))[0, : len(audio_SC)]
        samples.append(Sample(records[i]["name"], again, rate, audio_SC))
    return samples


def generated(model: Generator, heldout: CodeSet, count: int, frames: int) -> list[Sample]:
    """What a token model makes of held-out texts, or of semantic tokens where it reads those alone.

    Args:
      model: that is trained, with its codec.
      heldout: clips with captions.
      count: of texts, each once.
      frames: of a clip.

    Returns:
      A clip of each text, beside what the codec keeps of the recording.
    """
    rows = _first_of_each(heldout.captions, count)
    rate, seconds = model.codec.config.rate, frames / heldout.frame_rate
    texts, key = [heldout.captions[i] for i in rows], jax.random.key(0)
    if isinstance(model, SoundStorm) and model.semantic is None:
        length = model.config.semantic_tokens(frames)
        tokens = np.stack([np.resize(heldout.semantics[i], length) for i in rows])
        audio_BSC = model.generate(None, seconds, key, semantic=tokens)
    else:
        audio_BSC = model.generate(texts, seconds, key)
    samples, ways = [], model.channels // model.codec.config.channels
    for text, i, audio_SC in zip(texts, rows, np.asarray(audio_BSC), strict=True):
        codes = heldout.codes[i][None, :, :frames]
        kept_SC = sound.decode(model.codec, codes, np.array([codes.shape[2]]), ways)[0]
        samples.append(Sample(text, audio_SC, rate, np.asarray(kept_SC)))
    return samples


def _first_of_each(captions: Sequence[str], count: int) -> list[int]:
    """The first clips that differ in their captions."""
    first = {caption: i for i, caption in reversed([*enumerate(captions)])}
    return sorted(first.values())[:count]
