"""The masked token model: a bidirectional transformer or Conformer that predicts one level's codes.

SoundStorm (Borsos et al. 2023) is one of Conformer blocks, with semantic tokens added frame by
frame; MAGNeT (Ziv et al. 2024) is MusicGen's transformer without causality, with a restricted
context above the first level; the second stage of VALL-E (Wang et al. 2023) predicts whole levels
above the first, each with norms of its own, after a text. All read K levels of codes in which what
is to be predicted is the mask id N.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rvq_jax import config as configs
from rvq_jax.axes import place
from rvq_jax.lm import conditioner, masked, masking, stack
from rvq_jax.lm.conditioner import Features
from rvq_jax.lm.conditions import Conditions, ConditionSpec, branches, guide
from rvq_jax.lm.conformer import ConformerBlock
from rvq_jax.lm.decode import row_keys
from rvq_jax.lm.embedding import code_table, embed_codes, positions
from rvq_jax.lm.heads import IndependentHeads
from rvq_jax.lm.masked import Confidence, Parallel
from rvq_jax.lm.masking import Masks
from rvq_jax.lm.precision import logits_type
from rvq_jax.lm.sampling import PLAIN, Sampling
from rvq_jax.lm.schedule import Timetable
from rvq_jax.lm.transformer import Block, LayerNorm, project
from rvq_jax.typing import Array, Codes, Dtype, Key, Remat, Tokens


@dataclass(frozen=True)
class MaskedLMConfig:
    """Sizes of a masked token model, and how it is masked in training."""

    levels: int = 4  # K, codebooks
    codebook_size: int = 256  # N, codes per codebook; id N is the mask
    dim: int = 128  # D, features
    layers: int = 4  # blocks
    heads: int = 4  # H
    mlp_dim: int = 512  # features inside a feed-forward
    block: Literal["transformer", "conformer"] = "conformer"  # conformer is SoundStorm's
    conv_kernel: int = 5  # frames that a Conformer's convolution sees
    positions: Literal["rotary", "sinusoidal"] = "rotary"  # sinusoidal is MAGNeT's
    rope_theta: float = 10_000.0  # base of the wavelengths of rotary positions
    masking: Literal["prompts", "spans", "levels"] = "prompts"  # of SoundStorm, MAGNeT, VALL-E
    level_norms: bool = False  # norms have a scale and bias of each level
    tied: bool = False  # the head of a level is the table that embeds its codes
    span: int = 1  # frames that are masked together
    context: int | None = None  # levels above the first attend to |i - j| <= context; None: to all
    semantic_size: int | None = None  # of the vocabulary of semantic tokens; None: it reads none
    semantic_ratio: int = 2  # frames of one semantic token
    text: bool = False  # it reads a text
    text_as: Literal["cross", "prefix"] = "cross"  # by cross-attention, or before the codes
    text_dim: int | None = None  # features of a frozen text encoder; None: it reads texts itself
    caption_layers: int = 1  # of the model's own caption encoder
    caption_bytes: int = 64  # L, longest caption; longer ones are cut
    attend_padding: bool = False  # cross-attention sees the text's padding, as in audiocraft
    window: int | None = None  # frames of the longest crop it was trained on; None: any length goes
    dtype: Dtype = "float32"  # of activations; parameters stay float32
    # Recomputed in the backward pass: the more of a layer, the less memory and the more time.
    remat: Remat = "nothing"

    def __post_init__(self):
        object.__setattr__(self, "remat", configs.remat(self.remat))
        for name in ("context", "semantic_size", "text_dim", "window"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, or None for none; got {value}")
        for name in ("span", "semantic_ratio", "conv_kernel"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        if self.masking != "spans" and self.span > 1:
            raise ValueError(f"spans of {self.span} frames go with masking spans")
        if self.masking == "levels" and self.levels < 2:
            raise ValueError(f"masking levels needs 2 of them or more, there is {self.levels}")
        if self.block == "conformer" and (self.level_norms or self.text_as == "prefix"):
            raise ValueError("level_norms and text_as prefix go with block transformer")
        if self.context is not None and self.text_as == "prefix":
            raise ValueError("a restricted context goes with text_as cross")
        if self.text_dim and not self.text:
            raise ValueError("a frozen text encoder goes with text True")
        if self.heads < 1 or self.dim % self.heads:
            raise ValueError(f"dim {self.dim} cannot be cut into {self.heads} heads")
        # Positions are pairs of features.
        turned = self.dim // self.heads if self.positions == "rotary" else self.dim
        if turned % 2 or self.dim % 2:
            raise ValueError(f"dim {self.dim} must be even, and {turned} too with rotary positions")

    @property
    def conditions(self) -> tuple[ConditionSpec, ...]:
        """What the model is conditioned on beside codes."""
        # audio-MAGNeT small is as wide as its text encoder.
        text = ConditionSpec("text", self.text_as, self.text_dim, projected=True)
        semantic = ConditionSpec(
            "semantic", "frame", vocab=self.semantic_size, repeat=self.semantic_ratio
        )
        return (text,) * self.text + (semantic,) * (self.semantic_size is not None)

    def condition_shapes(self, frames: int, text: int) -> dict[str, tuple[int, ...]]:
        """Shapes `[L, E]` of conditions by name, `[L]` of bytes and tokens; text: tokens of it."""
        of_text = (self.caption_bytes,) if self.text_dim is None else (text, self.text_dim)
        shapes = {"text": of_text, "semantic": (self.semantic_tokens(frames),)}
        return {spec.name: shapes[spec.name] for spec in self.conditions}

    def semantic_tokens(self, frames: int) -> int:
        """Semantic tokens of so many frames, the last perhaps of fewer."""
        return -(-frames // self.semantic_ratio)

    def masks(self, keys: Key, lengths: Array, frames: int) -> Masks:
        """What training hides of rows of these keys and lengths `[B]`."""
        if self.masking == "spans":
            return masking.span_masks(keys, lengths, self.levels, frames, self.span)
        whole = self.masking == "levels"
        options = {"first": int(whole), "whole": whole}
        return masking.bernoulli_masks(keys, lengths, self.levels, frames, **options)

    def build(self, rngs: nnx.Rngs, *, stacked: bool = False) -> "MaskedLM":
        """The model of this config; stacked: layers as one module, for training."""
        return MaskedLM(self, rngs, stacked=stacked)


class MaskedLM(nnx.Module):
    """Predicts the masked codes of one level from the others, in both directions of time."""

    def __init__(self, config: MaskedLMConfig, rngs: nnx.Rngs, *, stacked: bool = True):
        """stacked: for training; else as lists of layers, for decoding (`stack.layers`)."""
        c = self.config = config
        self.embed = code_table(rngs, c.levels, c.codebook_size, c.dim)
        self.readers = conditioner.readers(c, rngs, stacked=stacked)

        def make(rngs):
            if c.block == "conformer":
                return ConformerBlock(c.dim, c.heads, c.mlp_dim, c.conv_kernel, rngs, cross=c.text)
            cross = c.text and c.text_as == "cross"
            return Block(c.dim, c.heads, c.mlp_dim, rngs, cross=cross, levels=norms)

        norms = c.levels if c.level_norms else None
        self.blocks = stack.layers(c.layers, make, rngs, stacked=stacked)
        # A Conformer's blocks end with one.
        self.norm = LayerNorm(c.dim, norms) if c.block == "transformer" else None
        self.heads = None if c.tied else IndependentHeads(c.levels, c.codebook_size, c.dim, rngs)

    def read(self, conditions: Conditions) -> Features:
        """Features of the conditions, to be read once for all iterations of a decode."""
        c = self.config
        return conditioner.read(
            self.readers, c.conditions, conditions, c.dtype, attend_padding=c.attend_padding
        )

    def logits(
        self, tokens: Tokens, level: Array, features: Features, lengths: Array | None = None
    ) -> Array:
        """Logits of the codes of one level.

        Args:
          tokens: `[B, K, F]` codes, the mask id N where there is none.
          level: the level, of all rows or `[B]` of each.
          features: what `read` gave.
          lengths: `[B]` frames of each row; what is after them is padding. All have F by default.

        Returns:
          Logits `[B, F, N]` float32, under the codes of a row's own frames and its conditions.

        Raises:
          ValueError: semantic tokens of another number of frames.
        """
        level = jnp.broadcast_to(level, len(tokens)) if jnp.ndim(level) else jnp.asarray(level)
        x_BFD = self.hidden(tokens, level, features, lengths)
        if self.heads is None:
            # Embeddings are as long as the square root of their width, heads' weights of one.
            weights = self.embed[...][:, :-1] * self.config.dim**-0.5
        else:
            weights = self.heads.weight[...]
        wide = logits_type(weights)
        if level.ndim:
            x_BFD = x_BFD.astype(wide or x_BFD.dtype)
            rows_BND = weights[level].astype(x_BFD.dtype)
            y_BFN = jnp.einsum("bfd,bnd->bfn", x_BFD, rows_BND)
        else:
            weight_ND = jax.lax.dynamic_index_in_dim(weights, level, 0, keepdims=False)
            y_BFN = project(x_BFD, weight_ND, wide)
        return place(y_BFN, "batch", None, "vocab").astype(jnp.float32)

    def hidden(
        self, tokens: Tokens, level: Array, features: Features, lengths: Array | None = None
    ) -> Array:
        """Hidden states `[B, F, D]` that heads read; arguments as of `logits`."""
        c, frames = self.config, tokens.shape[2]
        x_BFD = embed_codes(self.embed, tokens, c.dtype)
        if features.frames is not None:
            needed = c.semantic_tokens(frames) * c.semantic_ratio
            if features.frames.shape[1] != needed:
                have = features.frames.shape[1] // c.semantic_ratio
                raise ValueError(
                    f"{frames} frames need {c.semantic_tokens(frames)} semantic tokens, one of "
                    f"every {c.semantic_ratio} frames; got {have}"
                )
            x_BFD = x_BFD + features.frames[:, :frames]
        here_BF = None if lengths is None else jnp.arange(frames)[None] < lengths[:, None]
        extra = {"here_BT": here_BF} if c.block == "conformer" else {}
        own = {"level": level} if c.level_norms else {}
        places, before = jnp.arange(frames)[None], 0
        if c.text and c.text_as == "prefix":
            before = features.prefix.shape[1]
            x_BFD = jnp.concatenate([features.prefix, x_BFD], axis=1)
            inside_BF = jnp.ones((len(tokens), frames), bool) if here_BF is None else here_BF
            here_BF = jnp.concatenate([features.prefix_mask, inside_BF], axis=1)
            # Padding of the text takes no place: codes stand where they would without it.
            places = jnp.maximum(jnp.cumsum(here_BF, axis=1) - 1, 0)
        added, angles = positions(c, places, before + frames)
        mask = {"seen_BS": here_BF, "mask": self._near(level, frames)}

        def body(block, x_BTD):
            cross_kv = None if features.cross is None else block.cross_kv(*features.cross)
            return block(x_BTD, cross_kv, angles, **mask, **extra, **own)

        x_BTD = stack.scan_layers(self.blocks, x_BFD + added, body, remat=c.remat)
        x_BTD = x_BTD if self.norm is None else self.norm(x_BTD, **own)
        # Every frame where its part of the vocabulary is: else the heads would be gathered.
        return place(x_BTD[:, before:], "batch", None, None)

    def _near(self, level: Array, frames: int) -> Array | None:
        """Which frames self-attention sees, padding apart, `[B or 1, 1, F, F]`; None for all."""
        if self.config.context is None:
            return None
        f_F = np.arange(frames)
        near_FF = np.abs(f_F[:, None] - f_F[None]) <= self.config.context
        return near_FF[None, None] | (level.reshape(-1, 1, 1, 1) == 0)


def generate(
    model: MaskedLM,
    table: Timetable,
    conditions: Conditions,
    key: Key,
    forced: Codes,
    lengths: Array,
    *,
    sampling: Sampling = PLAIN,
    confidence: Confidence | None = None,
) -> Parallel:
    """Decodes the codes that are not given, all iterations in one program.

    Args:
      model: with lists of layers.
      table: the iterations, with weights of guidance or without; see `schedule.timetable`.
      conditions: of B rows.
      key: one key, from which every row folds its own, or keys `[B]`.
      forced: `[B, K, F]` codes to keep as they are, anywhere; -1 where one is to be sampled.
      lengths: `[B]` frames of each row; there are no codes after them.
      sampling: top-k and top-p; its temperature multiplies the timetable's.
      confidence: as of `masked.decode`.

    Returns:
      Codes and their bits.
    """
    c = model.config
    parts = branches(conditions, None if table.guidance is None else 1.0)
    together = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    features, rows = model.read(together), jnp.tile(lengths, len(parts))

    def logits_of(tokens: Tokens, level: Array, weight: Array | None) -> Array:
        tokens = jnp.tile(tokens, (len(parts), 1, 1))
        logits = model.logits(tokens, level, features, rows)
        return guide(logits.reshape(len(parts), -1, *logits.shape[1:]), weight)

    return masked.decode(
        logits_of,
        table,
        forced,
        lengths,
        row_keys(key, len(forced)),
        c.codebook_size,
        sampling=sampling,
        span=c.span,
        show_prompts=c.masking != "spans",
        confidence=confidence,
    )
