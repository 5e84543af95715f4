"""MAGNeT (Ziv et al. 2024): captions → codes, in parallel by spans → audio."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from rvq_jax import files, patterns
from rvq_jax.errors import UserError
from rvq_jax.lm.conditions import Conditions
from rvq_jax.lm.decode import row_keys
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.lm.precision import Precision
from rvq_jax.lm.schedule import timetable
from rvq_jax.patterns import BUCKET
from rvq_jax.systems import captions as texts
from rvq_jax.systems import described, masked
from rvq_jax.systems.captions import Captions
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.decoding import audio as sound
from rvq_jax.systems.decoding import windows
from rvq_jax.systems.decoding.masked import Rescorer
from rvq_jax.systems.decoding.windows import GenerationRequest, SamplingSettings
from rvq_jax.systems.masked import Parts, Request
from rvq_jax.systems.musicgen import MusicGen, checks, sizes
from rvq_jax.systems.text_encoder import TextEncoder
from rvq_jax.typing import Audio, Codes, Key

KIND = "magnet"
FIRST, OTHERS = 20, 10  # iterations of the first level, of each other, as published
GUIDANCE = (10.0, 1.0)  # while all is masked, while nothing is


@dataclass(frozen=True)
class Decoding:
    """How a model decodes where nothing else is asked for.

    These are the published models' of 10 seconds of music. Those of 30 seconds have 60 iterations
    of the first level; those of sounds guidance from 20 to 1, temperature 3.5 and top-p 0.8.
    """

    iterations: tuple[int, ...] | None = None  # of each level; None: 20 of the first, 10 of others
    guidance_scale: tuple[float, float] = GUIDANCE
    temperature: float = 3.0
    top_k: int = 0  # likeliest codes to sample from; 0: all
    top_p: float = 0.9  # of these the fewest that have this probability together; 0: all


def magnet_small() -> MaskedLMConfig:
    """The model called 300M, of 10 seconds: MusicGen small's sizes."""
    return _sized_as(sizes.musicgen_small())


def magnet_medium() -> MaskedLMConfig:
    """The 1.5B model, of 10 seconds: MusicGen medium's sizes."""
    return _sized_as(sizes.musicgen_medium())


def _sized_as(lm: LMConfig) -> MaskedLMConfig:
    names = "levels codebook_size dim layers heads mlp_dim positions text_dim".split()
    return MaskedLMConfig(
        **{name: getattr(lm, name) for name in names},
        block="transformer",
        masking="spans",
        span=3,
        context=5,
        text=True,
        window=500,
    )


def default_iterations(config: MaskedLMConfig) -> tuple[int, ...]:
    """Iterations of each level, as published."""
    return (FIRST, *[OTHERS] * (config.levels - 1))


@dataclass(frozen=True, eq=False)
class MAGNeT:
    """A masked token model conditioned on captions, its codec, its text encoder if it has one."""

    config: MaskedLMConfig
    params: nnx.State  # with lists of layers (`rvq_jax.lm.forms`)
    codec: Codec | None
    text: TextEncoder | None = None  # None: the model reads captions itself, or states alone
    defaults: Decoding = Decoding()

    def __repr__(self) -> str:
        return described.one_line(self, *described.parts(self, "codec", "text"))

    def __dir__(self) -> list[str]:
        return described.public(self)

    @classmethod
    def load(
        cls, path: str | Path, *, precision: Precision = "float32", mesh: Mesh | None = None
    ) -> "MAGNeT":
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
        made = cls(*masked.load(path, KIND, Decoding, precision, mesh))
        try:
            masked.checked(made.config, made.iterations)
        except ValueError as error:
            raise UserError(f"{path}/config.json: {masked.GENERATION}: {error}") from None
        return made

    def save(self, path: str | Path) -> None:
        """Writes a folder, whole or not at all."""
        with files.writing_folder(path) as target:
            parts = Parts(self.config, self.params, self.codec, self.text, self.defaults)
            masked.save(target, KIND, parts)

    def generate(
        self,
        captions: Captions,
        seconds: float | Sequence[float],
        key: Key,
        *,
        prompt: Codes | Audio | None = None,
        iterations: Sequence[int] | None = None,
        guidance_scale: float | tuple[float, float] | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        autoregressive: MusicGen | None = None,
        rescore: float = 0.0,
        hybrid: float = 0.0,
    ) -> Audio:
        """Generates audio for captions.

        What is None is as of `defaults`.

        Args:
          captions: as of `MusicGen.generate`.
          seconds: length, the same for all rows or one for each.
          key: one key, from which every row folds its own, or keys `[B]`: what a row samples does
            not depend on the others.
          prompt: what is kept: audio `[B, S, C]` of the beginning, or codes `[B, K', F']` of all
            levels or of the first ones, -1 where one is to be sampled.
          iterations: of each level.
          guidance_scale: weight of classifier-free guidance, 1 for none; two: while all is masked,
            while nothing is.
          temperature: of sampling at first; falls to 0 within each level.
          top_k: likeliest codes to sample from; 0 for all.
          top_p: of these the fewest that have this probability together; 0 for all.
          autoregressive: a model of the same codes and captions, for `rescore` and `hybrid`.
          rescore: weight of its probabilities in what is kept, in [0, 1].
          hybrid: seconds at the beginning that it generates, the rest being decoded in parallel.

        Returns:
          Audio `[B, S, C]`; a row is silent after its own seconds.

        Raises:
          ValueError: what does not fit the model, or each other.
        """
        rows = texts.rows_of(captions)
        asked = masked.request(self.config, self.codec, rows, seconds, prompt)
        keys = row_keys(checks.key(key, rows), rows)
        conditions = self.encode_conditions(captions)
        self._check_other(autoregressive, rescore, hybrid)
        rescorer = None
        if hybrid:
            asked = self._begun(autoregressive, captions, asked, hybrid, keys)
        if rescore:
            rescorer = self._rescorer(autoregressive, captions, asked, rescore)
        own = self.defaults
        scale = own.guidance_scale if guidance_scale is None else guidance_scale
        table = timetable(
            masked.checked(self.config, iterations or self.iterations),
            endpoint=True,
            temperature=own.temperature if temperature is None else temperature,
            anneal=True,
            greedy_last=False,
            tempered_confidence=True,
            guidance=None if scale == 1.0 else scale,
        )
        # The timetable has the temperature.
        top_k, top_p = own.top_k if top_k is None else top_k, own.top_p if top_p is None else top_p
        sampling = SamplingSettings(temperature=1.0, top_k=top_k, top_p=top_p).options["sampling"]
        codes = masked.sample(
            self.config, self.params, table, conditions, keys, asked, sampling, rescorer
        )
        return sound.decode(self.codec, codes, asked.lengths)

    def stream(
        self, captions: Captions, seconds: float, key: Key, *, chunk: float = 1.0, **options
    ) -> Iterator[Audio]:
        """Yields the audio of `generate` in pieces of `chunk` seconds, once all of it is there."""
        yield from masked.pieces(
            self.generate(captions, seconds, key, **options), self.codec, chunk
        )

    def encode_conditions(self, captions: Captions) -> Conditions:
        """Conditions as the model reads them, to be used again; raises ValueError for none."""
        if not self.config.text:
            return {}
        if texts.encoded(captions):
            return captions
        return {"text": texts.encode(captions, self.config, self.text)}

    @property
    def iterations(self) -> tuple[int, ...]:
        """Of each level, where no others are asked for."""
        return self.defaults.iterations or default_iterations(self.config)

    @property
    def channels(self) -> int:
        """Of the audio it makes."""
        return self.codec.config.channels

    def frames(self, seconds: float | Sequence[float]) -> np.ndarray:
        """Frames of so many seconds, at least one; raises ValueError unless they are positive."""
        return checks.frames(seconds, self.codec.config.frame_rate)

    def _check_other(self, other: MusicGen | None, rescore: float, hybrid: float) -> None:
        if not 0 <= rescore <= 1:
            raise ValueError(f"rescore must be in 0..1, got {rescore}")
        if not (np.isfinite(hybrid) and hybrid >= 0):
            raise ValueError(f"hybrid must be seconds of at least 0, got {hybrid}")
        if (other is None) != (not rescore and not hybrid):
            raise ValueError(
                "an autoregressive model goes with rescore or hybrid, and they with it"
            )
        if other is None:
            return
        mine, its = ((x.config.levels, x.config.codebook_size) for x in (self, other))
        if mine != its:
            raise ValueError(
                f"the autoregressive model has {its[0]} levels of {its[1]} codes, this one "
                f"{mine[0]} of {mine[1]}"
            )
        if other.codec and other.codec.fingerprint() != self.codec.fingerprint():
            raise ValueError("the autoregressive model is of the codes of another codec")

    def _begun(
        self, other: MusicGen, captions: Captions, asked: Request, seconds: float, keys: Key
    ) -> Request:
        """The request with its first seconds generated by another model, where nothing is given."""
        frames = min(int(self.frames(seconds)), asked.forced.shape[2])
        forced = asked.forced[:, :, :frames]
        lengths = np.minimum(asked.lengths, frames)
        conditions = other.encode_conditions(captions)
        codes = windows.sample_all(
            other.config,
            other.params,
            other.pattern,
            GenerationRequest(forced, lengths, frames, frames),
            lambda begin: conditions,
            jax.vmap(jax.random.fold_in, (0, None))(keys, 1),
            SamplingSettings(),
        )
        inside_BF = np.arange(frames)[None] < lengths[:, None]
        begun = asked.forced.copy()
        begun[:, :, :frames] = np.where(inside_BF[:, None], codes, forced)
        return asked._replace(forced=begun)

    def _rescorer(
        self, other: MusicGen, captions: Captions, asked: Request, weight: float
    ) -> Rescorer:
        frames = asked.forced.shape[2]
        padded = frames + -frames % BUCKET
        pattern = patterns.padded_pattern(other.pattern, other.config.levels, padded)
        read = other.encode_conditions(captions)
        return Rescorer(other.config, other.params, pattern, read, weight)
