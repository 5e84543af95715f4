"""The token model: K embeddings summed, a transformer, K heads (MusicGen's shape)."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.lm import transformer
from rvq_jax.lm.conditioner import CaptionEncoder
from rvq_jax.lm.transformer import Block, Cache, LayerNorm, Memory
from rvq_jax.patterns import Pattern
from rvq_jax.typing import Array, Codes, Tokens


@dataclass(frozen=True)
class LMConfig:
    """Sizes of a token language model (Copet et al. 2023)."""

    levels: int = 4  # K, codebooks
    size: int = 256  # N, codes per codebook; id N is the special token
    dim: int = 128  # D, features
    layers: int = 4
    heads: int = 4  # H
    hidden: int = 512  # features inside the feed-forward
    positions: Literal["rotary", "sinusoidal"] = "rotary"  # sinusoidal is MusicGen's
    caption_layers: int = 1  # of the caption encoder
    caption_bytes: int = 64  # L, longest caption; longer ones are cut
    dtype: str = "float32"  # of activations; parameters stay float32
    remat: bool = False  # recompute layers in the backward pass: less memory, more time


class TokenLM(nnx.Module):
    """Predicts the tokens `[B, K, T]` of each step from all earlier steps and a caption."""

    def __init__(self, config: LMConfig, rngs: nnx.Rngs):
        c = self.config = config
        # Sums over levels begin as the codes do, each level half the one before, and empty places
        # at nothing. All of one size, upper levels drown level 1 for hundreds of updates.
        self.embed = transformer.weight(
            rngs, (c.levels, c.size + 1, c.dim), (None, "vocab", "embed"), 1
        )
        words_KVD = self.embed[...] * 0.5 ** jnp.arange(c.levels)[:, None, None]
        self.embed.set_value(words_KVD.at[:, c.size].set(0.0))
        self.captions = CaptionEncoder(c.dim, c.heads, c.caption_layers, rngs)
        self.blocks = transformer.stack(
            c.layers, lambda rngs: Block(c.dim, c.heads, c.hidden, rngs), rngs
        )
        self.norm = LayerNorm(c.dim)
        self.heads = transformer.weight(
            rngs, (c.levels, c.dim, c.size), (None, "embed", "vocab"), c.dim
        )

    def __call__(self, inputs: Tokens, text_BL: Array) -> Array:
        """Logits `[B, K, T, N]`, float32; inputs at step t are the tokens of step t - 1."""
        condition_BLD, mask_BL = self.captions(text_BL, self.config.dtype)
        added, turn = self._positions(inputs.shape[2])
        x_BTD = self._embed(inputs) + added[None]

        def body(block, x_BTD):
            return block(x_BTD, block.remember(condition_BLD, mask_BL), turn, is_causal=True)

        x_BTD = transformer.scan(self.blocks, x_BTD, body, remat=self.config.remat)
        return self._logits(x_BTD)

    def begin(self, steps: int, text_BL: Array) -> tuple[list, list[Memory], list[Cache]]:
        """What decoding `steps` steps needs: layers, condition memories, empty caches."""
        c = self.config
        layers = transformer.unstack(self.blocks)
        condition = self.captions(text_BL, c.dtype)
        memories = [layer.remember(*condition) for layer in layers]
        shape = (text_BL.shape[0], steps, c.heads, c.dim // c.heads)
        empty = Cache(jnp.zeros(shape, c.dtype), jnp.zeros(shape, c.dtype))
        return layers, memories, [empty] * c.layers

    def step(
        self, inputs_BK: Array, t: Array, layers: list, memories: list[Memory], caches: list[Cache]
    ) -> tuple[Array, list[Cache]]:
        """Logits `[B, K, N]` of step t alone, and the caches with it: equal to the whole at t."""
        steps = caches[0].keys.shape[1]
        added, turn = jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, t, 1), self._positions(steps)
        )
        x_B1D = self._embed(inputs_BK[:, :, None]) + added[None]
        updated = []
        for layer, memory, cache in zip(layers, memories, caches, strict=True):
            x_B1D, cache = layer.step(x_B1D, cache, t, memory, turn)
            updated.append(cache)
        return self._logits(x_B1D)[:, :, 0], updated

    def _embed(self, tokens: Tokens) -> Array:
        table_KVD = self.embed[...]
        x_KBTD = jax.vmap(lambda table_VD, tokens_BT: table_VD[tokens_BT])(
            table_KVD, tokens.swapaxes(0, 1)
        )
        return x_KBTD.sum(axis=0).astype(self.config.dtype)

    def _positions(self, steps: int) -> tuple[Array, Array | None]:
        """What is added to the embeddings `[T, D]`, and the angles heads turn by, or None."""
        c = self.config
        if c.positions == "sinusoidal":
            return jnp.asarray(transformer.sinusoids(steps, c.dim), c.dtype), None
        angles = jnp.asarray(transformer.angles(steps, c.dim // c.heads), jnp.float32)
        return jnp.zeros((steps, c.dim), c.dtype), angles

    def _logits(self, x_BTD: Array) -> Array:
        heads_KDN = self.heads[...].astype(x_BTD.dtype)
        return jnp.einsum("btd,kdn->bktn", self.norm(x_BTD), heads_KDN).astype(jnp.float32)


def teacher_inputs(tokens: Tokens, special: int) -> Tokens:
    """Tokens `[B, K, T]` moved one step later, the special id first: step t reads step t - 1."""
    return jnp.concatenate([jnp.full_like(tokens[:, :, :1], special), tokens[:, :, :-1]], axis=2)


def score(
    model: TokenLM, pattern: Pattern, codes: Codes, text_BL: Array, mask_BF: Array | None = None
) -> Array:
    """Bits `[B, K, F]` each code costs, -log2 p(code | codes of earlier steps, caption).

    One teacher-forced pass; the sum over K is bits per frame and compares patterns exactly.
    Frames where mask `[B, F]` is False count 0 and are fed as empty places.
    """
    special = model.config.size
    mask_B1F = (
        jnp.ones((codes.shape[0], 1, codes.shape[2]), bool)
        if mask_BF is None
        else (mask_BF[:, None, :])
    )
    known = jnp.where(mask_B1F, codes, special)
    inputs = teacher_inputs(pattern.interleave(known, fill=special), special)
    logits_BKFN = pattern.deinterleave(model(inputs, text_BL))
    return jnp.where(mask_B1F, bits(logits_BKFN, codes), 0.0)


def bits(logits: Array, codes: Array) -> Array:
    """-log2 of the softmax probability of codes `[...]` under logits `[..., N]`."""
    chosen = jnp.take_along_axis(logits, codes[..., None], axis=-1)[..., 0]
    return (jax.nn.logsumexp(logits, axis=-1) - chosen) / jnp.log(2.0)
