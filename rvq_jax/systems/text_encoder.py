"""Prompts → the states of a frozen T5 encoder, as MusicGen is conditioned on them."""

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from rvq_jax import files, limits
from rvq_jax.convert import layout, t5, tensors
from rvq_jax.convert.fields import kind_of
from rvq_jax.errors import UserError, shown
from rvq_jax.lm.t5 import T5Config
from rvq_jax.systems.tokenizer import Tokenizer, load_tokenizer
from rvq_jax.typing import Array

STEP = 16  # lengths are multiples of it, so that they share compiled programs


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A frozen T5 encoder and its tokenizer: `encode` prompts to states (Raffel et al. 2020)."""

    config: T5Config
    params: nnx.State
    tokenizer: Tokenizer
    limit: int = 512  # tokens of a prompt, the closing one among them

    def __repr__(self) -> str:
        return f"TextEncoder({self.config.layers} layers of {self.config.dim})"

    @classmethod
    def load(cls, path: str | Path) -> "TextEncoder":
        """An encoder from a folder of transformers, of a whole T5 or of its encoder alone.

        Raises UserError if it is no T5, its weights do not fit its config.json, or its tokenizer
        cannot be read.
        """
        fields, where = files.load_config(path), f"{path}/config.json"
        if kind_of(fields) != "t5":
            said = shown(fields.get("model_type"))
            raise UserError(f"{path} holds a model of type {said}, not a t5")
        config = t5.from_fields(fields, where)
        return cls.of_tensors(config, tensors.load_folder(path), path)

    @classmethod
    def of_tensors(cls, config: T5Config, found: dict, path: str | Path) -> "TextEncoder":
        """An encoder of tensors under transformers' names, with the tokenizer of a folder.

        Raises UserError for tensors that do not fit the config, or a tokenizer that cannot be read.
        """
        leaves = limits.laid_out(lambda: leaf_shapes(config), f"{path}/config.json")
        places, tokenizer = t5.layout(config), load_tokenizer(path, config.vocab)
        found = tensors.take(t5.canonical(found), layout.shapes(places, leaves), path)
        return cls.of_leaves(config, layout.read(places, found), tokenizer)

    @classmethod
    def of_leaves(
        cls, config: T5Config, leaves: dict[str, Array], tokenizer: Tokenizer
    ) -> "TextEncoder":
        """An encoder of arrays by name, as `rvq_jax.convert.t5.layout` gives them."""
        structure = jax.tree.structure(_shapes(config))
        params = structure.unflatten(leaves[name] for name in leaf_shapes(config))
        return cls(config, params, tokenizer)

    def tokens(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids int32 `[B, L]` and mask bool `[B, L]`, padded with 0 to a multiple of 16.

        An empty prompt has a row without tokens, the null condition. A prompt of more than `limit`
        tokens is cut, with a warning, and closed again.
        """
        rows = [self._ids(i, prompt) if prompt else [] for i, prompt in enumerate(prompts)]
        longest = max([1, *map(len, rows)])
        ids_BL = np.zeros((len(rows), -(-longest // STEP) * STEP), np.int32)
        mask_BL = np.arange(ids_BL.shape[1])[None] < np.array([len(row) for row in rows])[:, None]
        for ids_L, row in zip(ids_BL, rows, strict=True):
            ids_L[: len(row)] = row
        return ids_BL, mask_BL

    def encode(self, prompts: Sequence[str]) -> tuple[Array, Array]:
        """States float32 `[B, L, D]`, zero where the mask is False, and the mask `[B, L]`."""
        ids_BL, mask_BL = self.tokens(prompts)
        return self.encode_tokens(ids_BL, mask_BL), mask_BL

    def encode_tokens(self, ids: Array, mask: Array) -> Array:
        """States float32 `[B, L, D]` of tokens `[B, L]`, zero where the mask `[B, L]` is False.

        Raises ValueError for ids outside of the vocabulary: they are another tokenizer's.
        """
        if np.size(ids) and not 0 <= np.min(ids) <= np.max(ids) < self.config.vocab:
            raise ValueError(
                f"ids must be in 0..{self.config.vocab - 1}, got {np.min(ids)}..{np.max(ids)}"
            )
        return states(self.config, self.prepared, ids, mask)

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """Arrays by transformers' names."""
        leaves = {name.removesuffix("/value"): x for name, x in files.named(self.params).items()}
        return layout.write(t5.layout(self.config), leaves)

    def save(self, path: str | Path) -> None:
        """Writes a folder that transformers reads, whole or not at all."""
        with files.writing_folder(path) as target:
            tensors.save_folder(target, t5.to_fields(self.config), self.tensors)
            self.save_tokenizer(target)

    def save_tokenizer(self, folder: str | Path) -> None:
        """Writes the tokenizer's files as they were read."""
        for name, data in self.tokenizer.files.items():
            with files.writing(Path(folder) / name) as target:
                target.write_bytes(data)

    @functools.cached_property
    def prepared(self) -> nnx.State:
        """On the device once; arrays of files would be copied there at every call."""
        # Kept: of a first call inside of a program they must not be that program's.
        with jax.ensure_compile_time_eval():
            return jax.device_put(self.params)

    def _ids(self, i: int, prompt: str) -> list[int]:
        ids = self.tokenizer.encode(prompt)
        if len(ids) <= self.limit:
            return ids
        warnings.warn(
            f"prompt {i} ({prompt[:40]!r}...) has {len(ids)} tokens and is cut to {self.limit}",
            stacklevel=3,
        )
        return ids[: self.limit - 1] + ids[-1:]


@functools.lru_cache(maxsize=32)
def _shapes(config: T5Config) -> nnx.State:
    return jax.eval_shape(lambda: nnx.state(config.build(nnx.Rngs(0)), nnx.Param))


def leaf_shapes(config: T5Config) -> dict:
    """Shapes of an encoder's arrays by name, 'embed', 'layers/0/qkv'."""
    return {
        name.removesuffix("/value"): leaf for name, leaf in files.named(_shapes(config)).items()
    }


@functools.lru_cache(maxsize=32)
def _graph(config: T5Config):
    return nnx.graphdef(nnx.eval_shape(lambda: config.build(nnx.Rngs(0))))


@functools.partial(jax.jit, static_argnames="config")
def states(config: T5Config, params: nnx.State, ids_BL: Array, mask_BL: Array) -> Array:
    """`T5Encoder` as one program per shape.

    Args:
      config: of the encoder.
      params: its parameters.
      ids_BL: tokens.
      mask_BL: where there is one.

    Returns:
      States `[B, L, D]` float32, zero where the mask is False.
    """
    return nnx.merge(_graph(config), params)(ids_BL, mask_BL)
