"""The codec that users hold: audio ↔ codes, from and to folders."""

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import GetAttrKey

from rvq_jax import builtin, files, limits, progress
from rvq_jax import config as configs
from rvq_jax.codec import autoencoder, segments, stream, windows
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.dac import DACConfig
from rvq_jax.codec.edges import Edges
from rvq_jax.codec.filterbank import FilterbankConfig
from rvq_jax.codec.mimi import MimiConfig
from rvq_jax.convert import folder
from rvq_jax.errors import UserError, reason_of
from rvq_jax.quantize import State
from rvq_jax.quantize.quantizer import check_codes
from rvq_jax.systems import checks, described
from rvq_jax.tracing import concrete
from rvq_jax.trees import one_line
from rvq_jax.typing import Array, Audio, Codes, Key

Config = CodecConfig | DACConfig | MimiConfig | FilterbankConfig
# In folders of our own format.
OWN = {"codec": CodecConfig, "dac": DACConfig, "mimi": MimiConfig, "filterbank": FilterbankConfig}
# What a quantizer learns from and no code depends on; some formats do not keep it.
UNUSED = ("sums", "counts")


class Coded(NamedTuple):
    """Audio as codes, with what decoding needs to give back its exact length.

    A pytree whose `samples` are structure: of another length is another program.
    """

    codes: Codes  # [B, K, F]
    scales: Array | None  # [B, segments], loudness taken out; None if the codec takes none
    samples: int  # S, before padding to whole frames
    lengths: Array | None = None  # [B], samples of each item, None if all have S

    __repr__ = one_line


jax.tree_util.register_pytree_with_keys(
    Coded,
    lambda coded: (
        [(GetAttrKey(name), getattr(coded, name)) for name in ("codes", "scales", "lengths")],
        coded.samples,
    ),
    lambda samples, arrays: Coded(arrays[0], arrays[1], samples, arrays[2]),
)


@dataclass(frozen=True, eq=False)
class Codec:
    """An encoder, a quantizer and a decoder: `encode` audio to codes, `decode` codes to audio."""

    config: Config
    params: nnx.State
    quantizer: State

    def __repr__(self) -> str:
        sound = f"{self.channels} × {self.rate} Hz, {self.frame_rate:g} frames a second"
        return described.one_line(self, _kind(self.config), sound)

    def __dir__(self) -> list[str]:
        return described.public(self)

    @classmethod
    def init(cls, config: Config, key: Key) -> "Codec":
        """An untrained codec."""
        return cls(config, **_weights(config, key))

    @classmethod
    def load(cls, path: str | Path) -> "Codec":
        """A codec from a folder that `save` wrote, its run's, or transformers' EnCodec, DAC, Mimi.

        The word "builtin" is the codec that comes with the library, "./builtin" a folder. Raises
        UserError if it is no codec, or its weights do not fit its config.json.
        """
        if not builtin.is_builtin(path):
            return cls._read(files.model_folder(path))
        try:
            return cls._read(builtin.FOLDER)
        except UserError as error:
            reason = reason_of(error, builtin.FOLDER)
            raise UserError(
                f"the built-in codec is damaged ({reason}); install rvq_jax again"
            ) from error

    @classmethod
    def _read(cls, path: str | Path) -> "Codec":
        data = files.load_config(path)
        if "model_type" in data:
            config, leaves = folder.load(data, path, leaf_shapes)
            return cls.of_leaves(config, leaves)
        kind = data.pop("model", None)
        if not isinstance(kind, str) or kind not in OWN:
            kind = kind if isinstance(kind, str) else "model of unknown kind"
            raise UserError(f"{path} holds a {kind}, not a codec")
        where = f"{path}/config.json"
        config = configs.from_dict(OWN[kind], data, where)
        limits.laid_out(lambda: leaf_shapes(config), where)
        return cls(config, **files.load_weights(path, _shapes(config)))

    @classmethod
    def of_leaves(cls, config: Config, leaves: dict[str, Array]) -> "Codec":
        """A codec of arrays by name, as `convert` gives them."""
        structure = jax.tree.structure(_shapes(config))
        return cls(config, **structure.unflatten(leaves[name] for name in leaf_shapes(config)))

    def save(self, path: str | Path, dtype: Literal["float32", "float16"] = "float32") -> None:
        """Writes a folder, whole or not at all: in transformers' format where it has one.

        Else config.json and weights.npz. A DAC's weight norm is folded in, as published ones have
        it.

        Args:
          path: of the folder.
          dtype: of its weights; float16 is half as large: they are rounded, and what a quantizer
            learns from and no code depends on becomes nothing learned yet.

        Raises:
          UserError: a place that cannot be written to, or weights too large for float16.
        """
        codec = Codec(*self.prepared) if isinstance(self.config, DACConfig) else self
        codec = codec if dtype == "float32" else codec._rounded(np.dtype(dtype))
        if not folder.save(codec.config, codec.leaves, path):
            config = {"model": _kind(self.config), **configs.to_dict(codec.config)}
            files.save_folder(path, config, {"params": codec.params, "quantizer": codec.quantizer})

    def _rounded(self, dtype: np.dtype) -> "Codec":
        def rounded(path, leaf):
            if leaf.dtype != np.float32:
                return leaf
            if jax.tree_util.keystr(path, simple=True, separator="/").endswith(UNUSED):
                return np.zeros(leaf.shape, dtype)
            if np.abs(leaf).max(initial=0.0) > np.finfo(dtype).max:
                raise UserError(f"weights beyond {np.finfo(dtype).max:g} have no {dtype.name}")
            return np.asarray(leaf).astype(dtype)

        halves = jax.tree_util.tree_map_with_path(rounded, (self.params, self.quantizer))
        return Codec(self.config, *halves)

    @property
    def leaves(self) -> dict[str, Array]:
        """Arrays by name, as `of_leaves` takes them."""
        weights = {"params": self.params, "quantizer": self.quantizer}
        return {_short(name): leaf for name, leaf in files.named(weights).items()}

    @property
    def coding_leaves(self) -> dict[str, Array]:
        """The arrays that decide codes and audio, by name: not what a quantizer learns from."""
        named = files.named({"params": self.params, "quantizer": self.quantizer})
        return {name: leaf for name, leaf in sorted(named.items()) if not name.endswith(UNUSED)}

    def fingerprint(self) -> bytes:
        """SHA-256 over `coding_leaves`: 32 bytes that differ between codecs."""
        return files.fingerprint(self.coding_leaves)

    @functools.cached_property
    def name(self) -> str:
        """Its kind and its rate, such as encodec_24khz; of the built-in one its version."""
        if version := builtin.version_of(self.fingerprint()):
            return version
        kinds = {module.CONFIG: kind for kind, module in folder.KINDS.items()}
        kind = kinds.get(type(self.config)) or _kind(self.config)
        return f"{kind}_{self.config.rate / 1000:g}khz"

    @property
    def rate(self) -> int:
        """Samples of audio per second."""
        return self.config.rate

    @property
    def channels(self) -> int:
        """C, channels of audio."""
        return self.config.channels

    @property
    def frame_rate(self) -> float:
        """Frames of codes per second."""
        return self.config.frame_rate

    @property
    def levels(self) -> int:
        """K, codes of a frame."""
        return self.config.levels

    @property
    def codebook_size(self) -> int:
        """N, codes that each level has."""
        return self.config.codebook_size

    def kbps(self, levels: int | None = None) -> float:
        """Bandwidth of codes of so many levels, all by default, before entropy coding."""
        bits = (levels or self.levels) * math.log2(self.codebook_size)
        return bits * self.frame_rate / 1000

    def encode(
        self,
        audio: Audio,
        levels: int | None = None,
        *,
        kbps: float | None = None,
        lengths: Array | None = None,
        chunk: float | None = None,
    ) -> Coded:
        """Encodes audio to codes.

        Args:
          audio: float `[B, S, C]` in [-1, 1] at the codec's rate.
          levels: a prefix of the levels; all by default.
          kbps: in place of levels: as many as fit into this bandwidth.
          lengths: `[B]` samples of each item; the rest of its row is padding and changes nothing.
            Traced, those outside of 1..S are taken for the nearest.
          chunk: seconds per step for long audio: the same codes, in memory that does not grow. Not
            for traced audio: its steps are a loop on the host.

        Returns:
          Codes `[B, K, F]`, with what decoding needs to give back the exact length.

        Raises:
          ValueError: shape, type, levels or lengths that do not fit, or audio that is not finite.
        """
        levels = self.levels_of(levels, kbps)
        checks.audio(audio, self.config.channels)
        checks.chunk(chunk, audio, lengths)
        lengths_B = checks.lengths(lengths, *audio.shape[:2])
        config, xp = self.config, np if concrete(audio, lengths) else jnp
        given_B = None if lengths is None else lengths_B
        if config.segment:
            codes, scales = segments.encode_all(*self.prepared, audio, lengths_B, levels)
            scales = scales if config.normalize else None
            return Coded(codes, scales, audio.shape[1], given_B)
        edges, scales = None if lengths is None else _edges(lengths_B), None
        if config.normalize:
            scales = xp.asarray(autoencoder.loudness(audio, edges))[:, None]
            audio = audio / scales[..., None]
        args = *self.prepared, audio
        if chunk is None:
            codes = autoencoder.encode(*args, levels, edges)
        else:
            frames = max(1, round(chunk * config.frame_rate))
            blocks = self._long.encode(*args, lengths_B, levels, frames)
            codes = np.concatenate(_done(blocks, audio.shape[1], frames * config.hop), axis=2)
        if lengths is not None:
            inside_BF = np.arange(codes.shape[2])[None] < -(-lengths_B[:, None] // config.hop)
            codes = jnp.where(inside_BF[:, None], codes, 0)
        return Coded(codes, scales, audio.shape[1], given_B)

    def decode(self, coded: Coded | Codes, *, chunk: float | None = None) -> Audio:
        """Audio `[B, S, C]`, exactly `coded.samples` long; bare codes give whole frames.

        Traced codes outside of [0, N) are taken for the nearest code, for there is no looking at
        them: audio is finite whatever they are.

        Args:
          coded: what `encode` gave, or codes `[B, K, F]`.
          chunk: seconds per step for long audio. Not for traced codes: its steps are a loop on the
            host.

        Raises:
          ValueError: codes outside of [0, N), scales, lengths or samples that do not fit them, or
            bare codes of a codec that codes segments apart: they do not say where segments end.
        """
        config, bare = self.config, not isinstance(coded, Coded)
        codes, scales, samples, lengths = (coded, None, None, None) if bare else coded
        check_codes(self.quantizer, codes)
        if bare:
            if config.segment:
                raise ValueError("codes of segments need their number of samples: give a Coded")
            samples = codes.shape[2] * config.hop
        batch, samples = len(codes), checks.samples(config, codes, samples)
        checks.chunk(chunk, codes, lengths)
        checks.scales(scales, batch, segments.count(config, samples))
        lengths_B = checks.lengths(lengths, batch, samples)
        args = *self.prepared, codes
        if config.segment:
            audio = segments.decode_all(*args, scales, lengths_B, samples)
        elif chunk is None:
            edges = None if lengths is None else _edges(-(-lengths_B // config.hop))
            audio = autoencoder.decode(*args, edges)
        else:
            frames_B = -(-lengths_B // config.hop)
            frames = max(1, round(chunk * config.frame_rate))
            blocks = self._long.decode(*args, frames_B, frames)
            audio = np.concatenate(_done(blocks, codes.shape[2], frames), axis=1)
        audio = audio[:, :samples]
        if scales is not None and not config.segment:
            audio = audio * scales[..., None]
        if lengths is not None:
            inside_BS = np.arange(samples)[None] < lengths_B[:, None]
            audio = jnp.where(inside_BS[..., None], audio, 0)
        return audio

    def levels_of(self, levels: int | None = None, kbps: float | None = None) -> int:
        """How many levels a prefix or a bandwidth means; raises ValueError outside 1..K."""
        if levels is not None and kbps is not None:
            raise ValueError("levels and kbps clash: give one of them")
        total = self.config.levels
        if kbps is not None:
            # As EnCodec counts: its frame rate as a whole number, its bandwidth not exceeded.
            per_level = (
                math.ceil(self.config.frame_rate) * math.log2(self.config.codebook_size) / 1000
            )
            # Nor is NaN at least one level's, and more than all is all.
            fits = kbps / per_level + 1e-6
            levels = int(min(fits, total)) if fits >= 1 else 0
            if levels < 1:
                raise ValueError(f"kbps must be at least {per_level:.2f}, one level, got {kbps}")
        checks.levels(levels, total)
        return levels or total

    def encode_stream(self, levels: int | None = None, batch: int = 1, frames: int = 1):
        """An `EncodeStream`: audio in pieces of any length, codes as soon as they are known.

        Raises ValueError if the codec is not causal.
        """
        self._check_causal()
        levels = self.levels_of(levels)
        return stream.EncodeStream(*self.prepared, levels, batch, frames)

    def decode_stream(self, batch: int = 1, frames: int = 1):
        """A `DecodeStream`: codes in pieces of any length, audio as soon as it is known.

        Raises ValueError if the codec is not causal.
        """
        self._check_causal()
        return stream.DecodeStream(*self.prepared, batch, frames)

    @functools.cached_property
    def prepared(self) -> tuple:
        """Config, parameters and quantizer to compute with, prepared and on the device once.

        Arrays of numpy, as files and training give them, would be copied there at every call.
        """
        if not concrete(self.params, self.quantizer):
            params = autoencoder.prepared_params(self.config, self.params)
            return self.config.prepared(), params, self.quantizer
        # Kept: what a first call computes must not be of the program or the mesh it is made in.
        with jax.ensure_compile_time_eval():
            params = autoencoder.prepared_params(self.config, self.params)
            if not jax.sharding.get_abstract_mesh().empty:
                params = jax.device_put(jax.tree.map(np.asarray, params))
            return self.config.prepared(), params, jax.device_put(self.quantizer)

    @property
    def _long(self):
        """The module that takes long audio in steps."""
        return stream if self.config.causal else windows

    def _check_causal(self) -> None:
        if not self.config.causal or self.config.segment:
            raise ValueError("only causal codecs stream; give encode and decode a chunk instead")


def _kind(config: Config) -> str:
    """What folders of our own format call a codec."""
    return next(kind for kind, cls in OWN.items() if isinstance(config, cls))


def _weights(config: Config, key: Key) -> dict:
    model_key, book_key = jax.random.split(key)
    params = nnx.state(config.build(nnx.Rngs(params=model_key)), nnx.Param)
    return {"params": params, "quantizer": config.quantizer(book_key)}


@functools.lru_cache(maxsize=32)
def _shapes(config: Config) -> dict:
    return jax.eval_shape(lambda: _weights(config, jax.random.key(0)))


def leaf_shapes(config: Config) -> dict:
    """Shapes of a codec's arrays by name, 'encoder/first/bias', 'quantizer/vectors'."""
    return {_short(name): leaf for name, leaf in files.named(_shapes(config)).items()}


def _short(name: str) -> str:
    return name.removeprefix("params/").removesuffix("/value")


def _done(blocks, size: int, step: int) -> list[np.ndarray]:
    """All blocks of something of a size, with a progress bar if they take long."""
    options = {"desc": "codec", "unit": "step", "delay": 2, "leave": False}
    return [np.asarray(x) for x in progress.bar(blocks, total=-(-size // step), **options)]


def _edges(ends_B: Array) -> Edges:
    return Edges(np.zeros(ends_B.shape, np.int32), ends_B)
