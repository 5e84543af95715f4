"""The token model: K embeddings summed, a transformer, K heads (MusicGen's shape)."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.axes import place
from rvq_jax.lm import transformer
from rvq_jax.lm.conditioner import CaptionEncoder, FrozenText, linear
from rvq_jax.lm.conditions import Conditions, Guidance, branches, guide
from rvq_jax.lm.transformer import Block, CrossKV, KVCache, LayerNorm
from rvq_jax.patterns import Pattern
from rvq_jax.typing import Array, Codes, Tokens


@dataclass(frozen=True)
class LMConfig:
    """Sizes of a token language model (Copet et al. 2023)."""

    levels: int = 4  # K, codebooks
    codebook_size: int = 256  # N, codes per codebook; id N is the special token
    dim: int = 128  # D, features
    layers: int = 4
    heads: int = 4  # H
    mlp_dim: int = 512  # features inside the feed-forward
    positions: Literal["rotary", "sinusoidal"] = "rotary"  # sinusoidal is MusicGen's
    caption_layers: int = 1  # of the model's own caption encoder
    caption_bytes: int = 64  # L, longest caption; longer ones are cut
    text_dim: int | None = None  # features of a frozen text encoder; None: it reads captions itself
    melody_bins: int | None = (
        None  # of chroma: [melody, text, codes] in one sequence, no cross-attention
    )
    melody_frames: int = 235  # P, of a melody; shorter ones are repeated
    window: int | None = None  # frames it was trained on at once; None: any length goes
    attend_padding: bool = False  # cross-attention sees the text's padding, as audiocraft's does
    dtype: str = "float32"  # of activations; parameters stay float32
    remat: bool = False  # recompute layers in the backward pass: less memory, more time

    def __post_init__(self):
        if self.melody_bins and not self.text_dim:
            raise ValueError("a melody goes with a frozen text encoder: give text_dim too")


class Features(NamedTuple):
    """The conditions as the layers read them: by cross-attention, or as a prefix of the codes."""

    prefix: Array  # [B, P, D], P = 0 without one
    prefix_mask: Array  # [B, P] bool
    cross: tuple[Array, Array] | None  # features [B, L, D] and mask [B, L]


class ModelCache(NamedTuple):
    """What a step of decoding reads of the steps before it, layer by layer."""

    cross_kv: list[CrossKV | None]
    self_kv: list[KVCache]
    prefix_mask: Array  # [B, P]


class TokenLM(nnx.Module):
    """Predicts the tokens `[B, K, T]` of each step from all earlier steps and the conditions."""

    def __init__(self, config: LMConfig, rngs: nnx.Rngs, *, stacked: bool = True):
        """stacked: for training; else as lists of layers, for decoding (`transformer.layers`)."""
        c = self.config = config
        # Sums over levels begin as the codes do, each level half the one before, and empty places
        # at nothing. All of one size, upper levels drown level 1 for hundreds of updates.
        self.embed = transformer.weight(
            rngs, (c.levels, c.codebook_size + 1, c.dim), (None, "vocab", "embed"), 1
        )
        words_KVD = self.embed[...] * 0.5 ** jnp.arange(c.levels)[:, None, None]
        self.embed.set_value(words_KVD.at[:, c.codebook_size].set(0.0))
        if c.text_dim:
            self.text = FrozenText(c.text_dim, c.dim, c.dtype, rngs)
        else:
            self.captions = CaptionEncoder(c.dim, c.heads, c.caption_layers, rngs, stacked=stacked)
        if c.melody_bins:
            self.melody = linear(c.melody_bins, c.dim, c.dtype, rngs)

        def make(rngs):
            return Block(c.dim, c.heads, c.mlp_dim, rngs, cross=not c.melody_bins)

        self.blocks = transformer.layers(c.layers, make, rngs, stacked=stacked)
        self.norm = LayerNorm(c.dim)
        self.heads = transformer.weight(
            rngs, (c.levels, c.codebook_size, c.dim), (None, "vocab", "embed"), c.dim
        )

    def __call__(self, inputs: Tokens, conditions: Conditions) -> Array:
        """Logits `[B, K, T, N]`, float32; inputs at step t are the tokens of step t - 1."""
        features = self._features(conditions)
        x_BTD, angles, mask = self._sequence(inputs, features)

        def body(block, x_BTD):
            cross_kv = None if features.cross is None else block.cross_kv(*features.cross)
            return block(x_BTD, cross_kv, angles, **mask)

        x_BTD = transformer.scan_layers(self.blocks, x_BTD, body, remat=self.config.remat)
        return self._logits(x_BTD[:, features.prefix.shape[1] :])

    def prefill(
        self, inputs: Tokens, steps: int, conditions: Conditions
    ) -> tuple[Array, ModelCache]:
        """Logits `[B, K, n, N]` of the first n of `steps` steps, and the cache for the others."""
        features = self._features(conditions)
        x_BTD, angles, mask = self._sequence(inputs, features)
        heads, length = self.config.heads, features.prefix.shape[1] + steps
        values = jnp.zeros((len(x_BTD), heads, length, self.config.dim // heads), x_BTD.dtype)
        cross, own = [], []
        for block in self.blocks:
            cross_kv = None if features.cross is None else block.cross_kv(*features.cross)
            self_kv = KVCache(values.swapaxes(2, 3), values)
            if x_BTD.shape[1]:
                x_BTD, filled = block.prefill(x_BTD, cross_kv, angles, **mask)
                self_kv = self_kv.update(filled, 0)
            cross.append(cross_kv)
            own.append(self_kv)
        logits = self._logits(x_BTD[:, features.prefix.shape[1] :])
        return logits, ModelCache(cross, own, features.prefix_mask)

    def step(self, inputs_BK: Array, t: Array, cache: ModelCache) -> tuple[Array, ModelCache]:
        """Logits `[B, K, N]` of step t alone, and the cache with it: equal to the whole at t."""
        before = cache.prefix_mask.shape[1]
        length = cache.self_kv[0].values.shape[2]
        added, angles = self._positions(cache.prefix_mask.sum(1, keepdims=True) + t, length)
        x_B1D = self._embed(inputs_BK[:, :, None]) + added
        x_DB = x_B1D[:, 0].T
        past_BT = (jnp.arange(length - before) <= t)[None]
        past_BT = jnp.broadcast_to(past_BT, (len(inputs_BK), length - before))
        past_BT = jnp.concatenate([cache.prefix_mask, past_BT], axis=1)
        after = []
        for block, cross_kv, self_kv in zip(
            self.blocks, cache.cross_kv, cache.self_kv, strict=True
        ):
            x_DB, self_kv = block.step(x_DB, self_kv, before + t, past_BT, cross_kv, angles)
            after.append(self_kv)
        logits_KNB = transformer.product(self.heads[...], self.norm(x_DB, axis=0))
        logits_BKN = logits_KNB.transpose(2, 0, 1).astype(jnp.float32)
        return logits_BKN, cache._replace(self_kv=after)

    def _features(self, conditions: Conditions) -> Features:
        c = self.config
        x_BLD, mask_BL = (self.text if c.text_dim else self.captions)(conditions, c.dtype)
        if c.attend_padding:
            mask_BL = jnp.ones_like(mask_BL)
        if not c.melody_bins:
            return Features(x_BLD[:, :0], mask_BL[:, :0], (x_BLD, mask_BL))
        melody_BPD = self.melody(conditions.melody.astype(c.dtype))
        heard_BP = jnp.ones(melody_BPD.shape[:2], bool)
        prefix = jnp.concatenate([melody_BPD, x_BLD], axis=1)
        return Features(prefix, jnp.concatenate([heard_BP, mask_BL], axis=1), None)

    def _sequence(self, inputs: Tokens, features: Features) -> tuple[Array, Array | None, dict]:
        """What the layers start from `[B, P + T, D]`, their angles, self-attention's mask."""
        prefix_BPD, mask_BP, _ = features
        before, steps = prefix_BPD.shape[1], inputs.shape[2]
        x_BTD = self._embed(inputs)
        if not before:
            added, angles = self._positions(jnp.arange(steps)[None], steps)
            return x_BTD + added, angles, {"is_causal": True}
        # Padding of the text takes no place: codes stand where they would without it.
        here_BT = jnp.concatenate([mask_BP, jnp.ones((len(mask_BP), steps), bool)], axis=1)
        added, angles = self._positions(jnp.maximum(jnp.cumsum(here_BT, 1) - 1, 0), before + steps)
        places = jnp.arange(before + steps)
        mask = here_BT[:, None, None] & (places[:, None] >= places[None])[None, None]
        return jnp.concatenate([prefix_BPD, x_BTD], axis=1) + added, angles, {"mask": mask}

    def _embed(self, tokens: Tokens) -> Array:
        table_KVD = place(self.embed[...], None, None, None)
        x_KBTD = jax.vmap(lambda table_VD, tokens_BT: table_VD[tokens_BT])(
            table_KVD, tokens.swapaxes(0, 1)
        )
        return x_KBTD.sum(axis=0).astype(self.config.dtype)

    def _positions(self, places_BT: Array, length: int) -> tuple[Array, Array | None]:
        """What is added to the embeddings `[B, T, D]`, and the rotary angles of heads, or None."""
        c = self.config
        if c.positions == "sinusoidal":
            return jnp.asarray(transformer.sinusoids(length, c.dim), c.dtype)[places_BT], None
        angles = jnp.asarray(transformer.rope_angles(length, c.dim // c.heads))[places_BT]
        return jnp.zeros((1, 1, c.dim), c.dtype), angles

    def _logits(self, x_BTD: Array) -> Array:
        # Every step where its part of the vocabulary is: else the heads would be gathered.
        y_BTD = place(self.norm(x_BTD), "batch", None, None)
        y_BTKN = transformer.project(y_BTD, self.heads[...])
        y_BTKN = place(y_BTKN, "batch", None, None, "vocab")
        return y_BTKN.swapaxes(1, 2).astype(jnp.float32)


def teacher_inputs(tokens: Tokens, special: int) -> Tokens:
    """Tokens `[B, K, T]` moved one step later, the special id first: step t reads step t - 1."""
    return jnp.concatenate([jnp.full_like(tokens[:, :, :1], special), tokens[:, :, :-1]], axis=2)


def score(
    model: TokenLM,
    pattern: Pattern,
    codes: Codes,
    conditions: Conditions,
    mask_BF: Array | None = None,
    guidance: Guidance = None,
) -> Array:
    """Bits that each code costs, -log2 p(code | codes of earlier steps, conditions).

    One teacher-forced pass; the sum over K is bits per frame and compares patterns exactly.

    Args:
      model: of either form.
      pattern: of F frames.
      codes: `[B, K, F]`.
      conditions: of B rows.
      mask_BF: frames that count; the others are fed as empty places. All by default.
      guidance: weights of classifier-free guidance, under whose logits codes are scored; see
        `conditions.guide`.

    Returns:
      Bits `[B, K, F]`, 0 where the mask is False.
    """
    special = model.config.codebook_size
    mask_B1F = (
        jnp.ones((codes.shape[0], 1, codes.shape[2]), bool)
        if mask_BF is None
        else (mask_BF[:, None, :])
    )
    masked = jnp.where(mask_B1F, codes, special)
    inputs = teacher_inputs(pattern.interleave(masked, fill=special), special)
    logits = [model(inputs, branch) for branch in branches(conditions, guidance)]
    logits_BKFN = pattern.deinterleave(guide(logits, guidance))
    return jnp.where(mask_B1F, bits(logits_BKFN, codes), 0.0)


def bits(logits: Array, codes: Array) -> Array:
    """-log2 of the softmax probability of codes `[...]` under logits `[..., N]`."""
    chosen = jnp.take_along_axis(logits, codes[..., None], axis=-1)[..., 0]
    return (jax.nn.logsumexp(logits, axis=-1) - chosen) / jnp.log(2.0)
