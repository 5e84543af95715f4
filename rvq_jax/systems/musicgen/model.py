"""MusicGen (Copet et al. 2023): captions → interleaved codes → audio."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from rvq_jax import patterns
from rvq_jax.audio import chroma
from rvq_jax.codec import stream, windows
from rvq_jax.lm import decode
from rvq_jax.lm.conditioner import to_bytes
from rvq_jax.lm.conditions import Conditions, EncodedConditions, encode_conditions
from rvq_jax.lm.model import LMConfig
from rvq_jax.systems.codec import Codec, Coded
from rvq_jax.systems.decoding import channels, programs
from rvq_jax.systems.decoding.windows import (
    GenerationRequest,
    SamplingSettings,
    groups,
    sample,
    window_of,
)
from rvq_jax.systems.musicgen import folder
from rvq_jax.systems.text_encoder import TextEncoder
from rvq_jax.typing import Array, Audio, Codes, Key

LONG = 10.0  # seconds of audio that are decoded at once where it may be long
Texts = Sequence[str] | dict | Conditions  # captions, their tokens and mask, or encoded


@dataclass(frozen=True, eq=False)
class MusicGen:
    """A token model with its pattern and, to be heard, its codec."""

    config: LMConfig
    pattern: str
    params: nnx.State  # with lists of layers (`rvq_jax.lm.forms`)
    codec: Codec | None
    text: TextEncoder | None = None  # None: the model reads captions itself, or states alone

    @classmethod
    def load(cls, path: str | Path) -> "MusicGen":
        """A model from a folder that `save` wrote, or transformers (MusicGen, its melody and
        stereo forms, AudioGen, MusicgenForCausalLM).

        Raises UserError if it is not one, parts are missing, or weights do not fit or are NaN.
        """
        return cls(*folder.load(path))

    def save(self, path: str | Path) -> None:
        """Writes a folder, whole or not at all: in transformers' format where it has one."""
        folder.save(path, self.config, self.pattern, self.params, self.codec, self.text)

    def generate(
        self,
        captions: Texts,
        seconds: float | Sequence[float],
        key: Key,
        *,
        prompt: Codes | Audio | None = None,
        melody: Audio | None = None,
        stride: float | None = None,
        **sampling,
    ) -> Audio:
        """Audio `[B, S, C]` of `seconds`, the same or each its own, for each caption.

        prompt: codes `[B, K, F']` (-1 for those to be sampled) or audio that is continued. melody:
        audio `[B, S', C]` at the codec's rate, for models that follow one. stride: seconds that
        every further window adds, for audio longer than the model's window. sampling: fields of
        `SamplingSettings`. Rows have keys of their own and are silent after their end. Raises
        ValueError for what does not fit.
        """
        settings, request = (
            SamplingSettings(**sampling),
            self._request(captions, seconds, prompt, stride),
        )
        keys = decode.row_keys(key, len(request.forced))
        together = groups(self.pattern, self.config.levels, request.lengths)
        whole = request.window == request.forced.shape[2]
        if whole and len(together) == 1 and not self.codec.config.segment:
            return self._at_once(request, captions, melody, keys, settings)
        codes = np.zeros_like(request.forced)
        for rows in together:
            part = GenerationRequest(*(x[rows] for x in request[:2]), *request[2:])
            part = part._replace(forced=part.forced[:, :, : part.lengths.max()])
            conditions_at = self._conditions_at(captions, melody, rows)
            pieces = sample(*self._model, part, conditions_at, keys[rows], settings)
            found = np.concatenate(list(pieces), axis=2)
            codes[rows, :, : found.shape[2]] = found
        heard = self._heard([codes], request.lengths, round(LONG * self.codec.config.frame_rate))
        return np.concatenate(list(heard), axis=1)

    def stream(
        self,
        captions: Texts,
        seconds: float,
        key: Key,
        *,
        chunk: float = 1.0,
        prompt: Codes | Audio | None = None,
        melody: Audio | None = None,
        stride: float | None = None,
        **sampling,
    ) -> Iterator[Audio]:
        """The audio of `generate` in pieces as it is generated, `chunk` seconds at a time."""
        settings, request = (
            SamplingSettings(**sampling),
            self._request(captions, seconds, prompt, stride),
        )
        if self.codec.config.segment:
            raise ValueError("a codec that codes segments apart cannot stream: use generate")
        rows, frames = len(request.forced), max(1, round(chunk * self.codec.config.frame_rate))
        conditions_at = self._conditions_at(captions, melody, np.arange(rows))
        keys = decode.row_keys(key, rows)
        pieces = sample(*self._model, request, conditions_at, keys, settings, frames)
        yield from self._heard(pieces, request.lengths, frames)

    def score(
        self,
        codes: Codes,
        conditions: Texts,
        mask: Array | None = None,
        *,
        melody: Audio | None = None,
        guidance_scale: float | None = None,
    ) -> Array:
        """Bits `[B, K, F]` of each code of `[B, K, F]`; equal to those of stepwise decoding.

        conditions: captions, or tokens `dict(input_ids=…, attention_mask=…)`, or what
        `encode_conditions` gave.
        mask `[B, F]`: False for padding.
        """
        pattern = patterns.named(self.pattern, self.config.levels, codes.shape[2])
        conditions = self.encode_conditions(conditions, melody)
        return programs.score_codes(
            self.config, self.params, pattern, codes, conditions, mask, guidance_scale
        )

    def encode_conditions(self, conditions: Texts, melody: Audio | None = None) -> Conditions:
        """Conditions as the model reads them, to be used again: states of captions, a melody.

        Raises ValueError for none at all, or for a melody that the model cannot follow.
        """
        if isinstance(conditions, EncodedConditions | np.ndarray | jax.Array):
            return conditions
        if not self.config.text_dim:
            return to_bytes(_some(conditions), self.config.caption_bytes)
        ids, mask = self._tokens(conditions)
        states = self.text.encode_tokens(ids, mask)
        return encode_conditions(states, mask, self._melody(melody, len(ids)))

    def _tokens(self, conditions: Sequence[str] | dict) -> tuple[np.ndarray, np.ndarray]:
        if self.text is None:
            raise ValueError("this model has no text encoder: give it EncodedConditions")
        if isinstance(conditions, dict):
            ids = np.asarray(conditions["input_ids"], np.int32)
            return ids, np.asarray(conditions.get("attention_mask", np.ones_like(ids)), bool)
        return self.text.tokens(_some(conditions))

    def _melody(self, melody: Audio | None, rows: int, begin: int = 0) -> Array | None:
        """One-hot chroma `[B, P, bins]` from sample `begin` on, the clip repeated; or of none."""
        c = self.config
        if not c.melody_bins:
            if melody is not None:
                raise ValueError("this model follows no melody; load a melody model")
            return None
        if melody is None:
            bins_BPN = np.zeros((rows, c.melody_frames, c.melody_bins), np.float32)
            bins_BPN[:, :, 0] = 1.0
            return bins_BPN
        melody = np.broadcast_to(melody, (rows, *np.shape(melody)[1:]))
        melody = np.roll(melody, -begin, axis=1)
        found = chroma.chroma(melody, self.codec.config.rate, c.melody_bins)
        return chroma.fit(found, c.melody_frames)

    def _request(self, captions: Texts, seconds, prompt, stride: float | None) -> GenerationRequest:
        """What is asked for, in frames; raises ValueError for what cannot be done."""
        if self.codec is None:
            raise ValueError("this model has no codec: sample codes by systems.decoding.programs")
        rows, rate = _rows(captions), self.codec.config.frame_rate
        lengths = np.broadcast_to(self.frames(seconds), (rows,))
        total = int(lengths.max())
        window = min(self.config.window or total, total)
        if total > window and stride is None:
            raise ValueError(
                f"{total / rate:.3g} s is beyond the model's window of {window / rate:.3g} s: give "
                "a stride, the seconds that every further window adds"
            )
        step = total if stride is None else round(stride * rate)
        if total > window and not 1 <= step <= window:
            raise ValueError(f"stride must be in (0, {window / rate:.3g}] s, got {stride}")
        forced = np.full((rows, self.config.levels, total), -1, np.int32)
        if prompt is not None:
            codes = self._prompt(np.asarray(prompt))
            if codes.shape[2] > total:
                raise ValueError(f"the prompt has {codes.shape[2]} frames, the audio {total}")
            forced[:, :, : codes.shape[2]] = codes
        return GenerationRequest(forced, lengths, window, step)

    def _prompt(self, prompt: np.ndarray) -> Codes:
        """Codes of a prompt that may be audio."""
        if not np.issubdtype(prompt.dtype, np.floating):
            return prompt
        return channels.encode(self.codec, prompt, self._ways, self.config.levels // self._ways)

    def _at_once(
        self,
        request: GenerationRequest,
        captions: Texts,
        melody,
        keys: Key,
        settings: SamplingSettings,
    ):
        """Audio of one window, by one program from text to waveform."""
        forced, lengths = request.forced, request.lengths
        window = window_of(self.pattern, forced, lengths)
        codec, *codec_weights = self.codec.prepared
        if self.text is None or isinstance(captions, EncodedConditions):
            configs, text, conditions = (
                (self.config, None, codec),
                None,
                self.encode_conditions(captions, melody),
            )
        else:
            configs, text = (self.config, self.text.config, codec), self.text.prepared
            conditions = *self._tokens(captions), self._melody(melody, len(forced))
        weights = programs.Weights(self.params, text, *codec_weights)
        args = window.pattern, conditions, keys, window.forced, window.lengths
        options = settings.options | {"prefill_steps": window.prefill_steps}
        made = programs.generate_audio(configs, weights, self._ways, *args, **options)[1]
        ends = lengths * self.codec.config.hop
        return _silenced(np.asarray(made)[:, : ends.max()], ends)

    def _conditions_at(self, captions: Texts, melody: Audio | None, rows: np.ndarray):
        """From the frame that a window begins at to the conditions of its rows."""
        conditions = jax.tree.map(lambda x: x[rows], self.encode_conditions(captions, melody))

        def at(begin: int) -> Conditions:
            if melody is None or begin == 0:
                return conditions
            heard = self._melody(melody, _rows(captions), begin * self.codec.config.hop)
            return conditions._replace(melody=heard[rows])

        return at

    def _heard(self, pieces: Iterable[Codes], lengths: np.ndarray, frames: int) -> Iterator[Audio]:
        """Audio of codes that come in pieces, `frames` frames at a time; rows have `lengths`."""
        config, ways = self.codec.config, self._ways
        ends = lengths * config.hop
        if config.segment:
            parts = (Coded(codes, None, int(ends.max()), ends) for codes in pieces)
            heard = map(self.codec.decode, parts)
        else:
            apart = (channels.split(codes, ways) for codes in pieces)
            heard = self._apart(apart, np.repeat(lengths, ways), frames)
        for audio in heard:
            audio = channels.join(np.asarray(audio), ways)
            if audio.shape[1]:
                yield _silenced(audio, ends)
                ends = ends - audio.shape[1]

    def _apart(self, pieces: Iterable[Codes], lengths: np.ndarray, frames: int) -> Iterator[Audio]:
        """Audio of the channels that are coded apart, by the codec's stream or in windows."""
        if not self.codec.config.causal:
            total = int(lengths.max())
            yield from windows.decode_pieces(*self.codec.prepared, pieces, total, lengths, frames)
            return
        # What a causal codec makes of a row does not depend on what comes after it.
        decoder = stream.DecodeStream(*self.codec.prepared, len(lengths), frames)
        yield from map(decoder.push, pieces)
        yield decoder.close()

    def frames(self, seconds: float | Sequence[float]) -> np.ndarray:
        """Frames of so many seconds, at least one; raises ValueError unless they are positive."""
        given = np.asarray(seconds, float)
        if not (np.isfinite(given) & (given > 0)).all():
            raise ValueError(f"seconds must be positive, got {seconds}")
        return np.maximum(1, np.round(given * self.codec.config.frame_rate)).astype(np.int32)

    @property
    def channels(self) -> int:
        """Of the audio it makes: two of a stereo model of a mono codec."""
        return self.codec.config.channels * self._ways

    @property
    def _model(self) -> tuple:
        return self.config, self.params, self.pattern

    @property
    def _ways(self) -> int:
        """Channels that have levels of their own: a stereo pattern of a mono codec has two."""
        stereo = self.pattern.startswith("stereo") and self.codec.config.channels == 1
        return 2 if stereo else 1


def _some(captions: Sequence[str]) -> Sequence[str]:
    if isinstance(captions, str) or not len(captions):
        raise ValueError(f"captions must be a list of at least one text, got {captions!r}")
    return captions


def _rows(captions: Texts) -> int:
    if isinstance(captions, dict):
        return len(captions["input_ids"])
    if isinstance(captions, EncodedConditions):
        return len(captions.states)
    return len(_some(captions))


def _silenced(audio: np.ndarray, ends: np.ndarray) -> Audio:
    """Rows of `[B, S, C]` without what comes after their ends."""
    inside_BS = np.arange(audio.shape[1])[None] < ends[:, None]
    return np.where(inside_BS[..., None], audio, 0.0)
