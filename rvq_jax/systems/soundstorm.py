"""SoundStorm (Borsos et al. 2023): captions → semantic tokens → codes, in parallel → audio."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from rvq_jax import files
from rvq_jax.errors import UserError
from rvq_jax.lm.conditions import Conditions, condition
from rvq_jax.lm.decode import row_keys
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.precision import Precision
from rvq_jax.lm.schedule import timetable
from rvq_jax.systems import captions as texts
from rvq_jax.systems import described, masked, speech
from rvq_jax.systems.captions import Captions
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.decoding import audio as sound
from rvq_jax.systems.decoding.windows import SamplingSettings
from rvq_jax.systems.masked import Parts
from rvq_jax.systems.musicgen import checks
from rvq_jax.systems.semantic import SemanticModel
from rvq_jax.systems.speech import Speech, Voice
from rvq_jax.typing import Array, Audio, Codes, Key

KIND = "soundstorm"
SEMANTIC = "semantic"  # folder of the semantic model, and name of the condition
FIRST = 16  # iterations of the first level; one of each other


def soundstorm_350m() -> MaskedLMConfig:
    """The published sizes: 30 seconds of 12 levels at 50 frames a second."""
    return MaskedLMConfig(
        levels=12,
        codebook_size=1024,
        dim=1024,
        layers=12,
        heads=16,
        mlp_dim=4096,
        conv_kernel=5,
        semantic_size=1024,
        semantic_ratio=2,
        window=1500,
    )


def default_iterations(config: MaskedLMConfig, first: int = FIRST) -> tuple[int, ...]:
    """Iterations of each level: so many of the first, one of each other."""
    return (first, *[1] * (config.levels - 1))


@dataclass(frozen=True, eq=False)
class SoundStorm:
    """A masked token model over semantic tokens, its codec, and the model that makes the tokens."""

    config: MaskedLMConfig
    params: nnx.State  # with lists of layers (`rvq_jax.lm.forms`)
    codec: Codec | None
    semantic: SemanticModel | None = None  # None: tokens must be given

    def __repr__(self) -> str:
        return described.one_line(self, *described.parts(self, "codec", "semantic"))

    def __dir__(self) -> list[str]:
        return described.public(self)

    @classmethod
    def load(
        cls, path: str | Path, *, precision: Precision = "float32", mesh: Mesh | None = None
    ) -> "SoundStorm":
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
        parts = masked.load(path, KIND, None, precision, mesh)
        there = (path / SEMANTIC).exists()
        where = {"precision": precision, "mesh": mesh}
        made = cls(*parts[:3], SemanticModel.load(path / SEMANTIC, **where) if there else None)
        if made.semantic is not None:
            made.check_semantic(made.semantic, f"{path / SEMANTIC}")
        return made

    def save(self, path: str | Path) -> None:
        """Writes a folder, whole or not at all."""
        with files.writing_folder(path) as target:
            masked.save(target, KIND, Parts(self.config, self.params, self.codec, None))
            if self.semantic is not None:
                self.semantic.save(target / SEMANTIC)

    def generate(
        self,
        captions: Captions | None,
        seconds: float | Sequence[float],
        key: Key,
        *,
        semantic: Array | None = None,
        prompt: Codes | Audio | None = None,
        iterations: Sequence[int] | None = None,
        guidance_scale: float = 1.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Audio:
        """Generates audio for captions, or for semantic tokens.

        Args:
          captions: a text for each row, as of `MusicGen.generate`, for the semantic model; None
            where `semantic` is given.
          seconds: length, the same for all rows or one for each. A row whose semantic tokens end
            before that is shorter.
          key: one key, from which every row folds its own, or keys `[B]`: what a row samples does
            not depend on the others.
          semantic: tokens `[B, L]` of the whole; the semantic model samples them for None.
          prompt: what is kept: audio `[B, S, C]` of the beginning; or, beside `semantic`, codes
            `[B, K', F']` of all levels or of the first ones, -1 where one is to be sampled.
          iterations: of each level; 16 of the first and one of each other for None.
          guidance_scale: weight of classifier-free guidance of the semantic model, 1 for none.
          temperature: of both stages; 0 takes the likeliest.
          top_k: likeliest codes to sample from, in both stages; all for None.
          top_p: of these the fewest that have this probability together; all for None.

        Returns:
          Audio `[B, S, C]`; a row is silent after its own end.

        Raises:
          ValueError: what does not fit the model, or each other.
        """
        if (captions is None) == (semantic is None):
            raise ValueError("give captions, or semantic tokens in their place")
        rows = texts.rows_of(captions) if semantic is None else len(semantic)
        asked = masked.request(self.config, self.codec, rows, seconds, prompt)
        keys = row_keys(checks.key(key, rows), rows)
        first_keys, keys = (jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in (0, 1))
        if semantic is None:
            count = self.config.semantic_tokens(int(asked.lengths.max()))
            longest = count * self.config.semantic_ratio / self.codec.config.frame_rate
            options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
            if prompt is not None:
                options["prompt"] = self._heard(np.asarray(prompt), rows)
            found = self._needed().sample(
                captions, longest, first_keys, guidance_scale=guidance_scale, **options
            )
            tokens, ends = found.tokens, found.lengths * self.config.semantic_ratio
            asked = asked._replace(lengths=np.clip(ends, 1, asked.lengths))
        else:
            tokens, ends = np.asarray(semantic), asked.lengths
        codes = self._codes(tokens, asked, keys, iterations, temperature, top_k, top_p)
        audio_BSC = sound.decode(self.codec, codes, asked.lengths)
        # Rows whose tokens ended are silent from there on, those that ended at once throughout.
        audio_BSC = np.where((ends > 0)[:, None, None], audio_BSC, np.float32(0))
        samples = asked.forced.shape[2] * self.codec.config.hop
        return np.pad(audio_BSC, [(0, 0), (0, samples - audio_BSC.shape[1]), (0, 0)])

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
        """Says texts; its semantic model must have been trained on the words of whole utterances.

        A voice goes on in semantic tokens and in codes (Borsos et al. 2023).

        Args:
          words: as of `VALLE.speak`, and so are all.
          key: one key, or one for each row.
          voices: whom to speak as, one for all rows or one for each; None for anyone.
          seconds: of new speech at most; None for as many as there is room for.
          temperature: of both stages; 0 takes the likeliest.
          top_k: likeliest to sample from, in both stages; all for None.
          top_p: of these the fewest that have this probability together; all for None.
          repetition: of the semantic model, as of `SemanticModel.sample`.

        Returns:
          The speech, without the voice.

        Raises:
          ValueError: as of `VALLE.speak`; no semantic model of words, or with voices no tokenizer.
        """
        semantic, ratio, rows = self._needed(), self.config.semantic_ratio, len(texts.some(words))
        if semantic.spelling is None:
            raise ValueError("the semantic model was not trained on words: it cannot say any")
        begun = speech.begin(self.codec, self.config.levels, words, voices, ratio)
        longest = int(begun.frames.max())
        rate = self.codec.config.frame_rate
        frames_B = begun.frames + speech.room(self.longest, rate, seconds, begun.frames, ratio)
        total = int(frames_B.max())
        prompt = None
        if voices:
            prompt = np.full((rows, longest // ratio), -1)
            for row, audio_SC in zip(prompt, begun.audio, strict=True):
                heard = self._heard(audio_SC[None], 1)[0]
                row[: len(heard)] = heard
        keys = row_keys(checks.key(key, rows), rows)
        first_keys, keys = (jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in (0, 1))
        found = semantic.sample(
            begun.words,
            total / self.codec.config.frame_rate,
            first_keys,
            prompt=prompt,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition=repetition,
        )
        ends_B = np.minimum(found.lengths * ratio, frames_B)
        ended_B = found.ended & (found.lengths * ratio < frames_B)
        asked = masked.Request(speech.forced(begun, total), np.maximum(ends_B, 1))
        codes = self._codes(found.tokens, asked, keys, None, temperature, top_k, top_p)
        return speech.heard(self.codec, codes, begun.frames, ends_B, ended_B)

    def stream(
        self, captions: Captions, seconds: float, key: Key, *, chunk: float = 1.0, **options
    ) -> Iterator[Audio]:
        """Yields the audio of `generate` in pieces of `chunk` seconds, once all of it is there."""
        yield from masked.pieces(
            self.generate(captions, seconds, key, **options), self.codec, chunk
        )

    @property
    def longest(self) -> int | None:
        """Frames, with those of a voice, that it and its semantic model were trained on; None for
        any."""
        tokens, ratio = self._needed().lm.config.window, self.config.semantic_ratio
        most = [self.config.window, None if tokens is None else tokens * ratio]
        whole = [frames // ratio * ratio for frames in most if frames is not None]
        return min(whole, default=None)

    @property
    def text(self):
        """The semantic model's text encoder, if it has one."""
        return None if self.semantic is None else self.semantic.lm.text

    @property
    def caption_bytes(self) -> int:
        """Longest caption that the semantic model reads itself."""
        return self._needed().lm.config.caption_bytes

    def conditions(self, tokens: Array, frames: int) -> Conditions:
        """Semantic tokens `[B, L]` as the model reads them.

        Raises ValueError unless they are tokens of so many frames.
        """
        tokens, wanted = np.asarray(tokens), self.config.semantic_tokens(frames)
        if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer):
            raise ValueError(f"semantic tokens must be integers [B, L], got {tokens.dtype}")
        if tokens.shape[1] != wanted:
            raise ValueError(
                f"{frames} frames need {wanted} semantic tokens, one of every "
                f"{self.config.semantic_ratio} frames; got {tokens.shape[1]}"
            )
        return {SEMANTIC: condition(tokens.astype(np.int32))}

    def check_semantic(self, model: SemanticModel, where: str) -> None:
        """Raises UserError for a semantic model of other tokens."""
        have = model.size, model.frame_rate
        rate = self.codec.config.frame_rate if self.codec else None
        want = self.config.semantic_size, rate and rate / self.config.semantic_ratio
        if have[0] != want[0] or (want[1] and abs(have[1] - want[1]) > 1e-6 * want[1]):
            raise UserError(
                f"{where} makes {have[0]} semantic tokens at {have[1]:g} a second, SoundStorm "
                f"reads {want[0]} at {want[1] or 0:g}; take one of the same tokens"
            )

    @property
    def channels(self) -> int:
        """Of the audio it makes."""
        return self.codec.config.channels

    def frames(self, seconds: float | Sequence[float]) -> np.ndarray:
        """Frames of so many seconds, at least one; raises ValueError unless they are positive."""
        return checks.frames(seconds, self.codec.config.frame_rate)

    def _codes(
        self,
        tokens: Array,
        asked: masked.Request,
        keys: Key,
        iterations: Sequence[int] | None,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
    ) -> Codes:
        """Codes `[B, K, F]` of semantic tokens `[B, L]`."""
        conditions = self.conditions(tokens, asked.forced.shape[2])
        counts = masked.checked(self.config, iterations or default_iterations(self.config))
        table = timetable(counts, temperature=temperature, confidence_temperature=1.0)
        # The timetable has the temperature.
        sampling = SamplingSettings(temperature=1.0, top_k=top_k, top_p=top_p).options["sampling"]
        return masked.sample(self.config, self.params, table, conditions, keys, asked, sampling)

    def _needed(self) -> SemanticModel:
        if self.semantic is None:
            raise ValueError("this SoundStorm has no semantic model: give it semantic tokens")
        return self.semantic

    def _heard(self, prompt: np.ndarray, rows: int) -> np.ndarray:
        """Semantic tokens `[B, L]` of what is continued, whole ones alone."""
        tokenizer = self._needed().tokenizer
        if tokenizer is None or not np.issubdtype(prompt.dtype, np.floating):
            raise ValueError(
                "what is continued must be audio, and the semantic model have a tokenizer for it: "
                "or give semantic tokens of the whole in place of captions"
            )
        hop = self.codec.config.hop * self.config.semantic_ratio
        whole = prompt[:, : prompt.shape[1] // hop * hop]
        if not whole.shape[1]:
            raise ValueError(f"what is continued is shorter than a semantic token, {hop} samples")
        return np.broadcast_to(
            np.stack([tokenizer.encode(audio_SC) for audio_SC in whole]),
            (rows, whole.shape[1] // hop),
        )
