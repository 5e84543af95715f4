"""VALL-E (Wang et al. 2023): text, and a voice to say it with → codes → speech.

The first level is sampled code after code and says where it ends, by a model of one level that
reads the text before it; the other levels are predicted whole, one after another, in both
directions of time. A voice is a few seconds of someone and the words that they say: both stages go
on from it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from rvq_jax import files
from rvq_jax.errors import UserError
from rvq_jax.lm.conditions import Conditions
from rvq_jax.lm.decode import row_keys
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.precision import Precision
from rvq_jax.lm.sampling import PLAIN
from rvq_jax.lm.schedule import timetable
from rvq_jax.systems import captions as texts
from rvq_jax.systems import described, masked, speech
from rvq_jax.systems.captions import Captions
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.masked import Parts
from rvq_jax.systems.musicgen import checks
from rvq_jax.systems.semantic import SemanticModel
from rvq_jax.systems.speech import Speech, Voice
from rvq_jax.systems.spelling import Spelling
from rvq_jax.typing import Audio, Key

KIND = "valle"
FIRST = "first"  # inside of a model's folder, and the stage's network in training
REST = "rest"


@dataclass(frozen=True, eq=False)
class VALLE:
    """Two stages over the codes of a codec, conditioned on text and a voice."""

    config: MaskedLMConfig  # of the levels above the first
    params: nnx.State  # with lists of layers (`rvq_jax.lm.forms`)
    codec: Codec | None
    first: SemanticModel  # of the first level, at the codec's frame rate
    spelling: Spelling = field(default_factory=Spelling)  # how texts are written for it

    def __repr__(self) -> str:
        return described.one_line(self, *described.parts(self, "codec", "first"))

    def __dir__(self) -> list[str]:
        return described.public(self)

    @classmethod
    def load(
        cls, path: str | Path, *, precision: Precision = "float32", mesh: Mesh | None = None
    ) -> "VALLE":
        """A model from a folder that `save` wrote.

        Args:
          path: the folder.
          precision: as of `MusicGen.load`, here and below.
          mesh: of devices that generate together; None for one.

        Returns:
          The model.

        Raises:
          UserError: if it is not one, parts are missing, or weights do not fit or are NaN.
        """
        path = files.model_folder(path)
        config, params, codec, _, spelling = masked.load(path, KIND, Spelling, precision, mesh)
        first = SemanticModel.load(path / FIRST, precision=precision, mesh=mesh)
        have, want = first.size, config.codebook_size
        if have != want:
            raise UserError(f"{path / FIRST} makes {have} codes, the other levels have {want}")
        return cls(config, params, codec, first, spelling)

    def save(self, path: str | Path) -> None:
        """Writes a folder, whole or not at all."""
        with files.writing_folder(path) as target:
            masked.save(
                target, KIND, Parts(self.config, self.params, self.codec, None, self.spelling)
            )
            self.first.save(target / FIRST)

    def speak(
        self,
        words: Sequence[str],
        key: Key,
        *,
        voices: Sequence[Voice] | None = None,
        seconds: float | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition: float | None = None,
    ) -> Speech:
        """Says texts.

        Args:
          words: a text for each row.
          key: one key, from which every row folds its own, or keys `[B]`: what a row says does not
            depend on the others.
          voices: whom to speak as, one for all rows or one for each; None for anyone.
          seconds: of new speech at most; rows that have not ended by then are cut. None: as many as
            the model was trained on, less those of the voice.
          temperature: of the first level; 0 takes the likeliest code.
          top_k: likeliest codes to sample from; all for None.
          top_p: of these the fewest that have this probability together; all for None.
          repetition: as of `SemanticModel.sample`.

        Returns:
          The speech, without the voice.

        Raises:
          ValueError: no codec, no text or one that the model cannot read, a voice that is silent or
            too long, and seconds beyond what it was trained on.
        """
        rows = len(texts.some(words))
        begun = speech.begin(self.codec, self.config.levels, words, voices)
        frames_B = begun.frames + speech.room(
            self.longest, self.first.frame_rate, seconds, begun.frames
        )
        total = int(frames_B.max())
        forced = speech.forced(begun, total)
        keys = row_keys(checks.key(key, rows), rows)
        first_keys, rest_keys = (jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in (0, 1))
        conditions = self.encode_conditions(begun.words)
        found = self.first.sample(
            conditions,
            total / self.first.frame_rate,
            first_keys,
            prompt=forced[:, 0, : begun.frames.max()] if voices else None,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition=repetition,
        )
        # A row of a short voice is cut where its own room ends.
        ends_B = np.minimum(found.lengths, frames_B)
        ended_B = found.ended & (found.lengths < frames_B)
        lengths_B = np.maximum(ends_B, 1)  # of rows that end at once, one that is not heard
        inside_BF = np.arange(total)[None] < lengths_B[:, None]
        forced[:, 0] = np.where(inside_BF, found.tokens, -1)
        codes = self.refine(conditions, forced, lengths_B, rest_keys)
        return speech.heard(self.codec, codes, begun.frames, ends_B, ended_B)

    def refine(
        self, words: Captions, forced: np.ndarray, lengths: np.ndarray, key: Key
    ) -> np.ndarray:
        """The levels above the first, each the likeliest of all its codes at once.

        Args:
          words: texts, with those of voices, or their conditions.
          forced: `[B, K, F]` codes, the first level of each row and all levels of its voice; -1
            elsewhere.
          lengths: `[B]` frames of each row.
          key: as of `speak`; nothing is drawn.

        Returns:
          Codes `[B, K, F]`.
        """
        table = timetable((1,) * (self.config.levels - 1), first=1, temperature=0.0)
        conditions = self.encode_conditions(words)
        keys = row_keys(key, len(forced))
        asked = masked.Request(forced, lengths)
        return masked.sample(self.config, self.params, table, conditions, keys, asked, PLAIN)

    def encode_conditions(self, words: Captions) -> Conditions:
        """Texts as both stages read them; raises ValueError for none, or ones that they cannot."""
        if texts.encoded(words):
            return words
        written = self.spelling.written(texts.some(words), self.config.caption_bytes)
        return {"text": texts.encode(written, self.config, None)}

    def generate(
        self,
        captions: Sequence[str],
        seconds: float | Sequence[float],
        key: Key,
        *,
        guidance_scale: float = 1.0,
        **options: Any,
    ) -> Audio:
        """Says texts in clips of one length; see `speak`.

        Args:
          captions: a text for each row.
          seconds: of a clip, the same for all rows or one for each.
          key: one key, or one for each row.
          guidance_scale: 1 alone: it was trained without guidance.
          options: of `speak`.

        Returns:
          Audio `[B, S, C]`, silent after each row's end.

        Raises:
          ValueError: as of `speak`; any guidance.
        """
        if guidance_scale != 1.0:
            raise ValueError("VALL-E has no guidance: leave guidance_scale at 1")
        frames_B = np.broadcast_to(self.frames(seconds), (len(texts.some(captions)),))
        rate = self.codec.config.frame_rate
        found = self.speak(captions, key, seconds=int(frames_B.max()) / rate, **options)
        hop = self.codec.config.hop
        audio_BSC = found.audio[:, : frames_B.max() * hop]
        room = frames_B.max() * hop - audio_BSC.shape[1]
        audio_BSC = np.pad(audio_BSC, [(0, 0), (0, room), (0, 0)])
        inside_BS = np.arange(audio_BSC.shape[1])[None] < frames_B[:, None] * hop
        return np.where(inside_BS[..., None], audio_BSC, np.float32(0))

    def stream(
        self, captions: Sequence[str], seconds: float, key: Key, *, chunk: float = 1.0, **options
    ) -> Iterator[Audio]:
        """Yields the audio of `generate` in pieces of `chunk` seconds, once all of it is there."""
        yield from masked.pieces(
            self.generate(captions, seconds, key, **options), self.codec, chunk
        )

    @property
    def longest(self) -> int | None:
        """Frames, with those of a voice, that it was trained on; None for any."""
        return self.first.lm.config.window

    @property
    def text(self) -> None:
        """No frozen text encoder."""
        return None

    @property
    def channels(self) -> int:
        """Of the audio it makes."""
        return self.codec.config.channels

    def frames(self, seconds: float | Sequence[float]) -> np.ndarray:
        """Frames of so many seconds, at least one; raises ValueError unless they are positive."""
        return checks.frames(seconds, self.codec.config.frame_rate)
