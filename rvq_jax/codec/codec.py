"""The codec: audio ↔ codes. An encoder, a residual quantizer, a decoder."""

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jax
from flax import nnx

from rvq_jax import config as configs
from rvq_jax import files, quantize
from rvq_jax.codec.seanet import Decoder, Encoder, SEANetConfig
from rvq_jax.errors import UserError
from rvq_jax.quantize import Codebooks
from rvq_jax.typing import Array, Audio, Codes, Key, Latents


@dataclass(frozen=True)
class CodecConfig:
    """A codec's sizes; `rvq_jax.systems.encodec` has the published ones by name."""

    rate: int = 16_000  # samples per second
    seanet: SEANetConfig = field(default_factory=SEANetConfig)
    levels: int = 4  # K, codebooks
    size: int = 256  # N, codes per codebook

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return self.seanet.hop

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.rate / self.hop


class Autoencoder(nnx.Module):
    """The learned halves around the quantizer."""

    def __init__(self, config: CodecConfig, rngs: nnx.Rngs):
        self.encoder = Encoder(config.seanet, rngs)
        self.decoder = Decoder(config.seanet, rngs)


@functools.lru_cache(maxsize=32)
def autoencoder_graph(config: CodecConfig):
    """The structure that `nnx.merge` joins with parameters; computes nothing."""
    return nnx.graphdef(nnx.eval_shape(lambda: Autoencoder(config, nnx.Rngs(0))))


class Coded(NamedTuple):
    """Audio as codes, with what decoding needs to give back its exact length."""

    codes: Codes  # [B, K, F]
    scales: Array | None  # [B], loudness taken out before encoding; None if the codec takes none
    samples: int  # S, before padding to whole frames


@dataclass(frozen=True, eq=False)
class Codec:
    """An encoder, codebooks and a decoder: `encode` audio to codes, `decode` codes to audio."""

    config: CodecConfig
    params: nnx.State
    codebooks: Codebooks

    @classmethod
    def init(cls, config: CodecConfig, key: Key) -> "Codec":
        """An untrained codec."""
        model_key, book_key = jax.random.split(key)
        params = nnx.state(Autoencoder(config, nnx.Rngs(params=model_key)), nnx.Param)
        books = quantize.init(book_key, config.levels, config.size, config.seanet.dim)
        return cls(config, params, books)

    @classmethod
    def load(cls, path: str | Path) -> "Codec":
        """A codec from a folder that `save` wrote; raises UserError if it is not one."""
        data = files.load_config(path)
        kind = data.pop("model", None)
        if kind != "codec":
            raise UserError(f"{path} holds a {kind or 'model of unknown kind'}, not a codec")
        config = configs.from_dict(CodecConfig, data, f"{path}/config.json")
        like = jax.eval_shape(lambda: cls.init(config, jax.random.key(0))._weights())
        return cls(config, *files.load_weights(path, like))

    def save(self, path: str | Path) -> None:
        """Writes a folder of config.json and weights, whole or not at all."""
        config = {"model": "codec", **configs.to_dict(self.config)}
        files.save_folder(path, config, self._weights())

    def _weights(self) -> tuple:
        return self.params, self.codebooks

    def encode(self, audio: Audio, levels: int | None = None) -> Coded:
        """Codes of audio `[B, S, C]` at the codec's rate; `levels` keeps a prefix of the levels.

        Raises ValueError if the channels or levels do not fit the codec.
        """
        channels = self.config.seanet.channels
        if audio.ndim != 3 or audio.shape[2] != channels:
            raise ValueError(f"audio must be [B, S, {channels}], got {audio.shape}")
        codes = _encode(self.config, self.params, self.codebooks, audio, levels)
        return Coded(codes, None, audio.shape[1])

    def decode(self, coded: Coded | Codes) -> Audio:
        """Audio `[B, S, C]`, exactly `coded.samples` long; bare codes give whole frames."""
        codes, samples = (coded.codes, coded.samples) if isinstance(coded, Coded) else (coded, None)
        return _decode(self.config, self.params, self.codebooks, codes)[:, :samples]


@functools.partial(jax.jit, static_argnames=("config", "levels"))
def _encode(config: CodecConfig, params, codebooks: Codebooks, audio: Audio, levels) -> Codes:
    return quantize.encode(codebooks, latents(config, params, audio), levels)


@functools.partial(jax.jit, static_argnames="config")
def _decode(config: CodecConfig, params, codebooks: Codebooks, codes: Codes) -> Audio:
    model = nnx.merge(autoencoder_graph(config), params)
    return model.decoder(quantize.decode(codebooks, codes))


@functools.partial(jax.jit, static_argnames="config")
def latents(config: CodecConfig, params, audio: Audio) -> Latents:
    """The encoder's latents `[B, F, D]` of audio `[B, S, C]`, before quantization."""
    return nnx.merge(autoencoder_graph(config), params).encoder(audio)


def tiny(filters: int = 8, dim: int = 64, levels: int = 4, size: int = 128) -> CodecConfig:
    """A causal codec small enough to train on a laptop: 16 kHz, 50 frames per second, no LSTM.

    Its encoder strides by 8 first, so that little is computed at the full rate: half the time of
    EnCodec's order at the same width. Zero padding, because reflection looks ahead.
    """
    seanet = SEANetConfig(
        filters=filters, dim=dim, ratios=(2, 4, 5, 8), lstm_layers=0, pad_mode="constant"
    )
    return CodecConfig(seanet=seanet, levels=levels, size=size)
