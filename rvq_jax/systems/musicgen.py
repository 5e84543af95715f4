"""MusicGen (Copet et al. 2023): captions → interleaved codes → audio."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rvq_jax import config as configs
from rvq_jax import files, patterns
from rvq_jax.errors import UserError
from rvq_jax.lm.conditioner import to_bytes
from rvq_jax.lm.generate import Decoded, decode
from rvq_jax.lm.model import LMConfig, TokenLM, score
from rvq_jax.patterns import Pattern
from rvq_jax.systems.codec import Codec
from rvq_jax.typing import Array, Audio, Codes, Key


@dataclass(frozen=True, eq=False)
class MusicGen:
    """A token model with its pattern and, to be heard, its codec."""

    config: LMConfig
    pattern: str
    params: nnx.State
    codec: Codec

    @classmethod
    def load(cls, path: str | Path) -> "MusicGen":
        """A model from a folder that `save` wrote; raises UserError if it is not one."""
        data = files.load_config(path)
        kind = data.pop("model", None)
        if kind != "musicgen":
            raise UserError(f"{path} holds a {kind or 'model of unknown kind'}, not a musicgen")
        pattern = patterns.canonical(data.pop("pattern", ""))
        config = configs.from_dict(LMConfig, data, f"{path}/config.json")
        like = nnx.state(nnx.eval_shape(lambda: TokenLM(config, nnx.Rngs(0))), nnx.Param)
        params = files.load_weights(path, like)
        return cls(config, pattern, params, Codec.load(Path(path) / "codec"))

    def save(self, path: str | Path) -> None:
        """Writes a folder of config.json, weights and the codec's folder, whole or not at all."""
        config = {"model": "musicgen", "pattern": self.pattern, **configs.to_dict(self.config)}
        with files.writing(path) as folder:
            files.save_folder(folder, config, self.params)
            self.codec.save(folder / "codec")

    def generate(
        self,
        captions: Sequence[str],
        seconds: float,
        key: Key,
        *,
        guidance: float = 3.0,
        temperature: float = 1.0,
        top_k: int = 250,
        top_p: float = 0.0,
        prompt: Codes | None = None,
    ) -> Audio:
        """Audio `[B, S, C]` of `seconds` for each caption; prompt `[B, K, F']` is continued.

        guidance: weight of classifier-free guidance, 1 for none. Raises ValueError if the prompt
        is longer than the audio.
        """
        frames = max(1, round(seconds * self.codec.config.frame_rate))
        forced = np.full((len(captions), self.config.levels, frames), -1, np.int32)
        if prompt is not None:
            if prompt.shape[2] > frames:
                raise ValueError(f"the prompt has {prompt.shape[2]} frames, the audio {frames}")
            forced[:, :, : prompt.shape[2]] = prompt
        drawn = generate_codes(
            self.config,
            self.params,
            self.layout(frames),
            to_bytes(captions, self.config.caption_bytes),
            key,
            forced,
            guidance=None if guidance == 1.0 else guidance,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
        )
        return self.codec.decode(drawn.codes)

    def score(self, codes: Codes, captions: Sequence[str], mask: Array | None = None) -> Array:
        """Bits `[B, K, F]` of each code of `[B, K, F]`; equal to those of stepwise decoding."""
        text_BL = to_bytes(captions, self.config.caption_bytes)
        return score_codes(
            self.config, self.params, self.layout(codes.shape[2]), codes, text_BL, mask
        )

    def layout(self, frames: int) -> Pattern:
        """This model's pattern for so many frames."""
        return patterns.named(self.pattern, self.config.levels, frames)


@functools.lru_cache(maxsize=32)
def _graph(config: LMConfig):
    return nnx.graphdef(nnx.eval_shape(lambda: TokenLM(config, nnx.Rngs(0))))


@functools.partial(jax.jit, static_argnames=("config", "top_k", "top_p"))
def generate_codes(
    config: LMConfig,
    params: nnx.State,
    pattern: Pattern,
    text_BL: Array,
    key: Key,
    forced: Codes,
    *,
    guidance: float | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 0.0,
) -> Decoded:
    """`rvq_jax.lm.generate.decode` as one program per shape; the pattern is an argument."""
    return decode(
        nnx.merge(_graph(config), params),
        pattern,
        text_BL,
        key,
        forced,
        guidance=guidance,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )


@functools.partial(jax.jit, static_argnames="config")
def score_codes(
    config: LMConfig,
    params: nnx.State,
    pattern: Pattern,
    codes: Codes,
    text_BL: Array,
    mask_BF: Array | None = None,
) -> Array:
    """`rvq_jax.lm.model.score` as one program per shape; the pattern is an argument."""
    model = nnx.merge(_graph(config), params)
    return score(model, pattern, jnp.asarray(codes), text_BL, mask_BF)
