"""MusicGen (Copet et al. 2023): captions → interleaved codes → audio."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from rvq_jax import patterns
from rvq_jax.audio import chroma
from rvq_jax.lm.conditions import Conditions, condition
from rvq_jax.lm.decode import row_keys
from rvq_jax.lm.model import LMConfig
from rvq_jax.lm.precision import Precision
from rvq_jax.systems import described
from rvq_jax.systems.captions import Captions, encode, encoded, rows_of
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.decoding import audio as sound
from rvq_jax.systems.decoding import channels, programs, windows
from rvq_jax.systems.decoding.devices import Rows
from rvq_jax.systems.decoding.windows import GenerationRequest, SamplingSettings
from rvq_jax.systems.musicgen import checks, folder
from rvq_jax.systems.text_encoder import TextEncoder
from rvq_jax.typing import Array, Audio, Codes, Key


@dataclass(frozen=True, eq=False)
class MusicGen:
    """A token model, the name of its pattern, and its codec and text encoder if it has them."""

    config: LMConfig
    pattern: str
    params: nnx.State  # with lists of layers (`rvq_jax.lm.forms`)
    codec: Codec | None
    text: TextEncoder | None = None  # None: the model reads captions itself, or states alone

    def __repr__(self) -> str:
        codec, text = described.parts(self, "codec", "text")
        if self.text is None and self.config.text_dim is None:
            text = "reads captions itself"
        return described.one_line(self, self.pattern, codec, text)

    def __dir__(self) -> list[str]:
        return described.public(self)

    @classmethod
    def load(
        cls, path: str | Path, *, precision: Precision = "float32", mesh: Mesh | None = None
    ) -> "MusicGen":
        """A model from a folder that `save` wrote, or transformers (MusicGen, its melody and
        stereo forms, AudioGen, MusicgenForCausalLM).

        Args:
          path: the folder.
          precision: of the parameters of the token model and of its cache: float32 computes as the
            model's config says; bfloat16 and int8 take a half and a quarter of the memory, and can
            be neither saved nor trained (see `rvq_jax.lm.precision`).
          mesh: of devices that generate together (`rvq_jax.meshes.make_mesh`); None for one.

        Returns:
          The model.

        Raises:
          UserError: if it is not one, parts are missing, or weights do not fit or are NaN.
        """
        return cls(*folder.load(path, precision, mesh))

    def save(self, path: str | Path) -> None:
        """Writes a folder, whole or not at all: in transformers' format where it has one."""
        folder.save(path, self.config, self.pattern, self.params, self.codec, self.text)

    def generate(
        self,
        captions: Captions,
        seconds: float | Sequence[float],
        key: Key,
        *,
        prompt: Codes | Audio | None = None,
        melody: Audio | None = None,
        stride: float | None = None,
        guidance_scale: float = 3.0,
        text_guidance_scale: float | None = None,
        temperature: float = 1.0,
        top_k: int | None = 250,
        top_p: float | None = None,
        sequential_guidance: bool = False,
    ) -> Audio:
        """Generates audio for captions.

        Args:
          captions: a text for each row; or tokens `dict(input_ids=…, attention_mask=…)`; or what
            `encode_conditions` gave.
          seconds: length, the same for all rows or one for each.
          key: one key, from which every row folds its own, or keys `[B]`: what a row samples does
            not depend on the others.
          prompt: what is continued: audio `[B, S, C]`, or codes `[B, K, F']`; -1 is sampled.
          melody: audio `[B, S, C]` at the codec's rate, for models that follow one.
          stride: seconds that every further window adds; must be given for audio longer than the
            crops that the model was trained on (config.window).
          guidance_scale: weight of classifier-free guidance, 1 for none.
          text_guidance_scale: v of double guidance, the weight of the text over the melody (see
            `rvq_jax.lm.conditions.guide`); none for None.
          temperature: of sampling; 0 takes the likeliest code.
          top_k: likeliest codes to sample from; all for None.
          top_p: of these the fewest that have this probability together; all for None.
          sequential_guidance: guided and unguided one after another: less memory, more time.

        Returns:
          Audio `[B, S, C]`; a row is silent after its own seconds.

        Raises:
          ValueError: what does not fit the model, or each other.
        """
        settings = SamplingSettings(
            guidance_scale, text_guidance_scale, temperature, top_k, top_p, sequential_guidance
        )
        checks.guidance_scales(self.config, guidance_scale, text_guidance_scale)
        request = self._request(captions, seconds, prompt, stride)
        keys = row_keys(checks.key(key, rows_of(captions)), rows_of(captions))
        conditions_at = self._conditions_at(captions, melody)
        model = self.config, self.params, self.pattern
        codes = windows.sample_all(*model, request, conditions_at, keys, settings)
        return sound.decode(self.codec, codes, request.lengths, self._ways)

    def stream(
        self,
        captions: Captions,
        seconds: float,
        key: Key,
        *,
        chunk: float = 1.0,
        prompt: Codes | Audio | None = None,
        melody: Audio | None = None,
        stride: float | None = None,
        guidance_scale: float = 3.0,
        text_guidance_scale: float | None = None,
        temperature: float = 1.0,
        top_k: int | None = 250,
        top_p: float | None = None,
        sequential_guidance: bool = False,
    ) -> Iterator[Audio]:
        """Yields the audio of `generate` as it is generated, `chunk` seconds at a time.

        Args as of `generate`; seconds are the same for all rows.

        Raises:
          ValueError: as `generate`; and for a codec that codes segments apart.
        """
        settings = SamplingSettings(
            guidance_scale, text_guidance_scale, temperature, top_k, top_p, sequential_guidance
        )
        checks.guidance_scales(self.config, guidance_scale, text_guidance_scale)
        checks.seconds(chunk, "chunk")
        request = self._request(captions, seconds, prompt, stride)
        if self.codec.config.segment:
            raise ValueError("a codec that codes segments apart cannot stream: use generate")
        keys = row_keys(checks.key(key, rows_of(captions)), rows_of(captions))
        conditions_at = self._conditions_at(captions, melody)
        frames = max(1, round(chunk * self.codec.config.frame_rate))
        model = self.config, self.params, self.pattern
        pieces = windows.sample(*model, request, conditions_at, keys, settings, frames)
        yield from sound.decode_pieces(self.codec, pieces, request.lengths, frames, self._ways)

    def score(
        self,
        codes: Codes,
        captions: Captions,
        mask: Array | None = None,
        *,
        melody: Audio | None = None,
        guidance_scale: float | None = None,
    ) -> Array:
        """Bits of each code; equal to those of stepwise decoding.

        Args:
          codes: `[B, K, F]`.
          captions: as of `generate`.
          mask: `[B, F]` bool, False for padding; all frames count by default.
          melody: audio `[B, S, C]`, for models that follow one.
          guidance_scale: weight of classifier-free guidance; the model's own logits by default.

        Returns:
          Bits `[B, K, F]`, 0 where the mask is False.

        Raises:
          ValueError: codes outside of [0, N) where the mask is True (traced, they are taken for the
            nearest code), and what does not fit the model, or each other.
        """
        checks.codes(self.config, codes, mask=mask)
        checks.guidance_scales(self.config, guidance_scale, None)
        pattern = patterns.named(self.pattern, self.config.levels, codes.shape[2])
        conditions = self.encode_conditions(captions, melody)
        if len(codes) != len(next(iter(conditions.values())).kept):
            raise ValueError(f"{len(codes)} rows of codes need as many captions")
        rows = Rows.of(self.params, len(codes))
        codes, conditions, mask = rows.place((codes, conditions, mask))
        model = self.config, self.params, pattern
        with rows.running():
            found = programs.score_codes(*model, codes, conditions, mask, guidance_scale)
        return found[: rows.count]

    def encode_conditions(self, captions: Captions, melody: Audio | None = None) -> Conditions:
        """Conditions as the model reads them, to be used again: states of captions, a melody.

        Raises ValueError for no caption at all, or a melody that the model cannot follow.
        """
        if encoded(captions):
            if melody is not None:
                raise ValueError("conditions are encoded: give the melody to encode_conditions")
            return captions
        found = {"text": encode(captions, self.config, self.text)}
        bins = self._melody(melody, len(found["text"].kept))
        return found if bins is None else found | {"melody": bins}

    def frames(self, seconds: float | Sequence[float]) -> np.ndarray:
        """Frames of so many seconds, at least one; raises ValueError unless they are positive."""
        return checks.frames(seconds, self.codec.config.frame_rate)

    @property
    def channels(self) -> int:
        """Of the audio it makes: two of a stereo model of a mono codec."""
        return self.codec.config.channels * self._ways

    @property
    def _ways(self) -> int:
        """Channels that have levels of their own: a stereo pattern of a mono codec has two."""
        stereo = self.pattern.startswith("stereo") and self.codec.config.channels == 1
        return 2 if stereo else 1

    def _melody(self, melody: Audio | None, rows: int, begin: int = 0):
        """Condition of one-hot chroma from sample `begin` on, the clip repeated; or of none."""
        c = self.config
        if c.melody_bins is None:
            if melody is not None:
                raise ValueError("this model follows no melody; load a melody model")
            return None
        if melody is None:
            bins_BPN = np.zeros((rows, c.melody_frames, c.melody_bins), np.float32)
            bins_BPN[:, :, 0] = 1.0
            return condition(bins_BPN)
        checks.melody(melody, rows)
        melody = np.broadcast_to(melody, (rows, *np.shape(melody)[1:]))
        melody = np.roll(melody, -begin, axis=1)
        found = chroma.chroma(melody, self.codec.config.rate, c.melody_bins)
        return condition(chroma.fit(found, c.melody_frames))

    def _conditions_at(
        self, captions: Captions, melody: Audio | None
    ) -> Callable[[int], Conditions]:
        """From the frame that a window begins at to its conditions: a melody moves on."""
        conditions = self.encode_conditions(captions, melody)

        def at(begin: int) -> Conditions:
            if melody is None or begin == 0:
                return conditions
            hop = self.codec.config.hop
            return conditions | {"melody": self._melody(melody, rows_of(captions), begin * hop)}

        return at

    def _request(
        self, captions: Captions, seconds, prompt, stride: float | None
    ) -> GenerationRequest:
        """What is asked for, in frames; raises ValueError for what cannot be done."""
        if self.codec is None:
            raise ValueError("this model has no codec: sample codes by systems.decoding.programs")
        if self.config.end:
            raise ValueError(
                "this model ends rows itself: use programs.generate_codes for the lengths"
            )
        checks.seconds(stride, "stride")
        rows, rate = rows_of(captions), self.codec.config.frame_rate
        if np.shape(seconds) not in ((), (1,), (rows,)):
            raise ValueError(f"seconds must be one number, or {rows}, one for each row")
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
            prompt = np.asarray(prompt)
            checks.prompt(prompt, rows, self.channels)
            codes = self._prompt(prompt)
            checks.codes(self.config, codes, least=-1)
            if codes.shape[2] > total:
                raise ValueError(f"the prompt has {codes.shape[2]} frames, the audio {total}")
            forced[:, :, : codes.shape[2]] = codes
        return GenerationRequest(forced, lengths, window, step)

    def _prompt(self, prompt: np.ndarray) -> Codes:
        """Codes of a prompt that may be audio."""
        if np.issubdtype(prompt.dtype, np.integer):
            return prompt
        return channels.encode(self.codec, prompt, self._ways, self.config.levels // self._ways)
