"""Captions → semantic tokens: an autoregressive model of one level that says where a clip ends.

The first stage of AudioLM and SoundStorm (Borsos et al. 2022, 2023). What is made from its tokens
is made from no clip that was heard.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from rvq_jax import config as configs
from rvq_jax import files, patterns
from rvq_jax.errors import UserError
from rvq_jax.lm.conditions import Conditions
from rvq_jax.lm.decode import row_keys
from rvq_jax.lm.precision import Precision
from rvq_jax.systems import described
from rvq_jax.systems.captions import Captions, some
from rvq_jax.systems.decoding import programs
from rvq_jax.systems.decoding.devices import Rows
from rvq_jax.systems.decoding.windows import SamplingSettings
from rvq_jax.systems.musicgen import MusicGen, checks
from rvq_jax.systems.semantic_tokenizer import SemanticTokenizer
from rvq_jax.systems.spelling import Spelling
from rvq_jax.typing import Array, Key

KIND = "semantic"
PATTERN = "parallel"  # of one level all patterns are the same
LM, TOKENIZER = "lm", "semantic.npz"  # inside of a model's folder


@dataclass(frozen=True)
class _Fields:
    """What its config.json says."""

    frame_rate: float
    spelling: Spelling | None = None


class SemanticTokens(NamedTuple):
    """Tokens of B rows, and how many of them each has."""

    tokens: np.ndarray  # [B, T] int32, 0 after a row's end
    lengths: np.ndarray  # [B]
    ended: np.ndarray  # [B] bool, False for rows that were cut before they said that they end


@dataclass(frozen=True, eq=False)
class SemanticModel:
    """A token model of semantic tokens, and how many of them a second has."""

    lm: MusicGen  # of one level, without a codec
    frame_rate: float  # tokens per second
    tokenizer: SemanticTokenizer | None = None  # of prompts; None for tokens made elsewhere
    spelling: Spelling | None = None  # how words are written for it; None: it reads captions

    def __repr__(self) -> str:
        return f"SemanticModel({self.lm!r}, {self.frame_rate:g} tokens a second)"

    def __dir__(self) -> list[str]:
        return described.public(self)

    @classmethod
    def load(
        cls, path: str | Path, *, precision: Precision = "float32", mesh: Mesh | None = None
    ) -> "SemanticModel":
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
        data = files.load_config(path)
        if data.pop("model", None) != KIND:
            raise UserError(f"{path} holds no semantic model; name one that a SemanticRun trained")
        said = configs.from_dict(_Fields, data, f"{path}/config.json")
        lm = MusicGen.load(path / LM, precision=precision, mesh=mesh)
        if lm.config.levels != 1 or not lm.config.end:
            raise UserError(f"{path / LM}: a semantic model has one level, and an end")
        there = (path / TOKENIZER).exists()
        tokenizer = SemanticTokenizer.load(path / TOKENIZER) if there else None
        if tokenizer and (tokenizer.size, tokenizer.frame_rate) != (
            lm.config.codebook_size,
            said.frame_rate,
        ):
            raise UserError(f"{path / TOKENIZER} makes other tokens than the model beside it")
        return cls(lm, said.frame_rate, tokenizer, said.spelling)

    def save(self, path: str | Path) -> None:
        """Writes a folder, whole or not at all."""
        with files.writing_folder(path) as target:
            said = configs.to_dict(_Fields(self.frame_rate, self.spelling))
            files.write_json(target / "config.json", {"model": KIND, **said})
            self.lm.save(target / LM)
            if self.tokenizer is not None:
                self.tokenizer.save(target / TOKENIZER)

    @property
    def size(self) -> int:
        """N, how many different tokens there are."""
        return self.lm.config.codebook_size

    def sample(
        self,
        captions: Captions,
        seconds: float,
        key: Key,
        *,
        prompt: Array | None = None,
        guidance_scale: float = 1.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition: float | None = None,
    ) -> SemanticTokens:
        """Samples tokens for captions, until they say that they end.

        Args:
          captions: as of `MusicGen.generate`.
          seconds: at most; rows that have not ended by then are cut.
          key: one key, from which every row folds its own, or keys `[B]`.
          prompt: first tokens `[B, T']` of each row, -1 after the end of a shorter one; none for
            None.
          guidance_scale: weight of classifier-free guidance, 1 for none.
          temperature: of sampling; 0 takes the likeliest token.
          top_k: likeliest tokens to sample from; all for None.
          top_p: of these the fewest that have this probability together; all for None.
          repetition: share of the last tokens above which one of them is sampled again, from all
            (see `rvq_jax.lm.sampling.Sampling`); any for None.

        Returns:
          Tokens of every row.

        Raises:
          ValueError: a length beyond the crops that it was trained on, a prompt that is none or not
            shorter than the whole, and what does not fit the model.
        """
        checks.seconds(seconds, "seconds")
        checks.guidance_scales(self.lm.config, guidance_scale, None)
        conditions = self.encode_conditions(captions)
        rows = len(next(iter(conditions.values())).kept)
        steps = max(1, round(seconds * self.frame_rate))
        window = self.lm.config.window
        if window is not None and steps > window:
            raise ValueError(
                f"seconds is {seconds:g}, and the semantic model was trained on "
                f"{window / self.frame_rate:g}: ask for at most that"
            )
        forced = np.full((rows, 1, steps), -1, np.int32)
        if prompt is not None:
            prompt = np.asarray(prompt)
            if prompt.ndim != 2 or len(prompt) not in (1, rows) or prompt.shape[1] >= steps:
                raise ValueError(
                    f"a prompt must be tokens [{rows}, fewer than {steps}], got "
                    f"{list(prompt.shape)}"
                )
            checks.codes(self.lm.config, prompt[:, None], least=-1)
            if (np.diff((prompt >= 0).astype(int), axis=1) > 0).any():
                raise ValueError("a prompt must be the first tokens of its row: it has a hole")
            forced[:, 0, : prompt.shape[1]] = prompt
        keys = row_keys(checks.key(key, rows), rows)
        settings = SamplingSettings(
            guidance_scale, None, temperature, top_k, top_p, repetition=repetition
        )
        found = self._generate(conditions, keys, forced, settings)
        lengths = np.asarray(found.lengths)
        return SemanticTokens(np.asarray(found.codes)[:, 0, :steps], lengths, lengths < steps)

    def score(self, tokens: Array, captions: Captions, mask: Array | None = None) -> Array:
        """Bits of each token `[B, T]`, and of the end at the place after a row's last.

        Args:
          tokens: `[B, T]`.
          captions: as of `MusicGen.generate`.
          mask: `[B, T]` bool, False for padding, by which rows end; none end by default.

        Returns:
          Bits `[B, T]`.
        """
        conditions = self.encode_conditions(captions)
        return self.lm.score(np.asarray(tokens)[:, None], conditions, mask)[:, 0]

    def encode_conditions(self, captions: Captions) -> Conditions:
        """Captions as the model reads them, words written as it was trained on them; raises
        ValueError for none, or for words that it cannot read."""
        if self.spelling is not None and not isinstance(captions, dict):
            captions = self.spelling.written(some(captions), self.lm.config.caption_bytes)
        return self.lm.encode_conditions(captions)

    def _generate(self, conditions: Conditions, keys: Key, forced, settings: SamplingSettings):
        """All steps up to a multiple of a bucket in one program, those beyond without codes."""
        rows, _, steps = forced.shape
        pattern = patterns.padded_pattern(PATTERN, 1, steps, pad_frames=True)
        padded = np.full((rows, 1, pattern.frames), -1, np.int32)
        padded[:, :, :steps] = forced
        placed = Rows.of(self.lm.params, rows)
        lengths = np.full(rows, steps, np.int32)
        args = pattern, *placed.place((conditions, keys, padded, lengths))
        with placed.running():
            found = programs.generate_codes(
                self.lm.config, self.lm.params, *args, **settings.options
            )
        return jax.tree.map(lambda x: x[:rows], found)
