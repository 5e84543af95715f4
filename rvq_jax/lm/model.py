"""The token model: K embeddings summed, a transformer, and heads for K levels.

With its defaults it has MusicGen's shape.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax import config as configs
from rvq_jax.axes import place
from rvq_jax.lm import conditioner, stack
from rvq_jax.lm.attention import Form
from rvq_jax.lm.conditioner import Features
from rvq_jax.lm.conditions import Conditions, ConditionSpec, Guidance, branches
from rvq_jax.lm.depth import DepthConfig, DepthHeads, check_heads
from rvq_jax.lm.embedding import code_table, embed_codes, positions
from rvq_jax.lm.heads import Heads, IndependentHeads
from rvq_jax.lm.llama import LlamaBlock, RMSNorm
from rvq_jax.lm.transformer import Block, CrossKV, KVCache, LayerNorm
from rvq_jax.patterns import Pattern
from rvq_jax.typing import Array, Codes, Dtype, Remat, Tokens


@dataclass(frozen=True)
class LMConfig:
    """Sizes of a token language model (Copet et al. 2023)."""

    levels: int = 4  # K, codebooks
    codebook_size: int = 256  # N, codes per codebook; id N is the special token
    dim: int = 128  # D, features
    layers: int = 4  # blocks of the temporal transformer
    heads: int = 4  # H
    mlp_dim: int = 512  # features inside the feed-forward
    positions: Literal["rotary", "sinusoidal"] = "rotary"  # sinusoidal is MusicGen's
    block: Literal["musicgen", "llama"] = "musicgen"  # llama: RMSNorm, SwiGLU
    kv_heads: int | None = None  # of keys and values; None: as many as of queries
    rope_theta: float = 10_000.0  # base of the wavelengths of rotary positions
    eps: float = 1e-5  # of RMSNorm
    depth: DepthConfig | None = None  # a transformer over levels; None: they are independent
    caption_layers: int = 1  # of the model's own caption encoder
    caption_bytes: int = 64  # L, longest caption; longer ones are cut
    text_dim: int | None = None  # features of a frozen text encoder; None: it reads captions itself
    text_as: Literal["cross", "prefix"] = "cross"  # or before the codes, as with a melody
    # Of chroma: [melody, text, codes] in one sequence, no cross-attention; None: no melody.
    melody_bins: int | None = None
    melody_frames: int = 235  # P, of a melody; shorter ones are repeated
    window: int | None = None  # frames of the longest crop it was trained on; None: any length goes
    attend_padding: bool = False  # cross-attention sees the text's padding, as in audiocraft
    end: bool = False  # the first level may sample id N, which ends its row: lengths are outputs
    dtype: Dtype = "float32"  # of activations; parameters stay float32
    # Of whole sequences; auto: kernels where it is traced for TPUs or GPUs and sequences are long.
    attention: Form = "auto"
    # Recomputed in the backward pass: the more of a layer, the less memory and the more time.
    remat: Remat = "nothing"

    def __post_init__(self):
        object.__setattr__(self, "remat", configs.remat(self.remat))
        for name in ("text_dim", "melody_bins", "window"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, or None for none; got {value}")
        if self.melody_bins and not self.text_dim:
            raise ValueError("a melody goes with a frozen text encoder: give text_dim too")
        check_heads(self.dim, self.heads, self.kv_heads)
        if self.depth and self.levels < 2:
            raise ValueError(f"a depth transformer needs 2 levels or more, there is {self.levels}")
        # Positions are pairs of features.
        turned = self.dim // self.heads if self.positions == "rotary" else self.dim
        if turned % 2 or self.dim % 2:
            raise ValueError(f"dim {self.dim} must be even, and {turned} too with rotary positions")

    @property
    def conditions(self) -> tuple[ConditionSpec, ...]:
        """What the model is conditioned on, prefixes in their order."""
        if self.melody_bins is None:
            return (ConditionSpec("text", self.text_as, self.text_dim),)
        melody = ConditionSpec("melody", "prefix", self.melody_bins, null="first_bin")
        return melody, ConditionSpec("text", "prefix", self.text_dim)

    def condition_shapes(self, frames: int, text: int) -> dict[str, tuple[int, ...]]:
        """Shapes `[L, E]` of conditions by name, `[L]` of bytes; text: number of its tokens."""
        lengths = {"text": text, "melody": self.melody_frames}
        return {
            spec.name: (self.caption_bytes,)
            if spec.dim is None
            else (lengths.get(spec.name, frames), spec.dim)
            for spec in self.conditions
        }

    def build(self, rngs: nnx.Rngs, *, stacked: bool = False) -> "TokenLM":
        """The model of this config; stacked: layers as one module, for training."""
        return TokenLM(self, rngs, stacked=stacked)

    def build_heads(self, rngs: nnx.Rngs, *, stacked: bool = False) -> Heads:
        """From hidden states to codes."""
        sizes = self.levels, self.codebook_size, self.dim
        if self.depth is None:
            return IndependentHeads(*sizes, rngs, end=self.end)
        options = {"end": self.end, "remat": self.remat, "stacked": stacked}
        return DepthHeads(self.depth, *sizes, rngs, **options)


class ModelCache(NamedTuple):
    """What a step of decoding reads of the steps before it, layer by layer."""

    cross_kv: list[CrossKV | None]
    self_kv: list[KVCache]
    prefix_mask: Array  # [B, P]
    added: Array | None  # [B, T, D], of conditions that are added frame by frame


class TokenLM(nnx.Module):
    """Predicts the tokens `[B, K, T]` of each step from all earlier steps and the conditions."""

    def __init__(self, config: LMConfig, rngs: nnx.Rngs, *, stacked: bool = True):
        """stacked: for training; else as lists of layers, for decoding (`stack.layers`)."""
        c = self.config = config
        self.embed = code_table(rngs, c.levels, c.codebook_size, c.dim)
        self.readers = conditioner.readers(c, rngs, stacked=stacked)
        cross = any(spec.mechanism == "cross" for spec in c.conditions)

        def make(rngs):
            sizes, options = (c.dim, c.heads, c.mlp_dim), {"kv_heads": c.kv_heads, "cross": cross}
            if c.block == "llama":
                return LlamaBlock(*sizes, rngs, eps=c.eps, **options)
            return Block(*sizes, rngs, **options)

        self.blocks = stack.layers(c.layers, make, rngs, stacked=stacked)
        self.norm = RMSNorm(c.dim, c.eps) if c.block == "llama" else LayerNorm(c.dim)
        self.heads = c.build_heads(rngs, stacked=stacked)

    def __call__(self, inputs: Tokens, conditions: Conditions) -> Array:
        """Logits `[B, K, T, N]` of heads whose levels are independent; inputs as of `hidden`."""
        return self.heads.logits(self.hidden(inputs, conditions))

    def hidden(
        self, inputs: Tokens, conditions: Conditions, frame_of: Array | None = None
    ) -> Array:
        """Hidden states that heads read, of all steps at once.

        Args:
          inputs: `[B, K, T]` tokens; those of step t are the tokens of step t - 1.
          conditions: by name, of B rows.
          frame_of: `[T]` frame of each step, -1 for none (see `frames_of_steps`); for conditions
            that are added frame by frame. Step t is frame t by default.

        Returns:
          States `[B, T, D]`.
        """
        features = self._features(conditions)
        added_BTD = _at_steps(features.frames, frame_of, inputs.shape[2])
        x_BTD, angles, mask = self._sequence(inputs, features, added_BTD)

        def body(block, x_BTD):
            cross_kv = None if features.cross is None else block.cross_kv(*features.cross)
            return block(x_BTD, cross_kv, angles, form=self.config.attention, **mask)

        x_BTD = stack.scan_layers(self.blocks, x_BTD, body, remat=self.config.remat)
        # Every step where its part of the vocabulary is: else the heads would be gathered.
        return place(self.norm(x_BTD[:, features.prefix.shape[1] :]), "batch", None, None)

    def prefill(
        self,
        inputs: Tokens,
        steps: int,
        conditions: Conditions,
        frame_of: Array | None = None,
    ) -> tuple[Array, ModelCache]:
        """Reads the conditions and the first steps; decoding goes on from there by `step`.

        Args:
          inputs: `[B, K, n]` tokens of the first n steps, as of `hidden`.
          steps: T, of the whole sequence.
          conditions: by name, of B rows.
          frame_of: `[T]`, as of `hidden`.

        Returns:
          Hidden states `[B, n, D]`, and the cache for the steps after them.
        """
        features = self._features(conditions)
        added_BTD = _at_steps(features.frames, frame_of, steps)
        first = None if added_BTD is None else added_BTD[:, : inputs.shape[2]]
        x_BTD, angles, mask = self._sequence(inputs, features, first)
        c, length = self.config, features.prefix.shape[1] + steps
        kv = c.kv_heads or c.heads
        values = jnp.zeros((len(x_BTD), kv, length, c.dim // c.heads), x_BTD.dtype)
        values = place(values, "batch", "heads", None, None)
        cross, own = [], []
        for block in self.blocks:
            cross_kv = None if features.cross is None else block.cross_kv(*features.cross)
            self_kv = KVCache(values.swapaxes(2, 3), values)
            if x_BTD.shape[1]:
                x_BTD, filled = block.prefill(x_BTD, cross_kv, angles, **mask)
                self_kv = self_kv.update(filled, 0)
            cross.append(cross_kv)
            own.append(self_kv)
        hidden_BnD = self.norm(x_BTD[:, features.prefix.shape[1] :])
        return hidden_BnD, ModelCache(cross, own, features.prefix_mask, added_BTD)

    def step(self, inputs_BK: Array, t: Array, cache: ModelCache) -> tuple[Array, ModelCache]:
        """Hidden state `[B, D]` of step t alone, and the cache with it: equal to the whole at t."""
        before = cache.prefix_mask.shape[1]
        length = cache.self_kv[0].values.shape[2]
        added, angles = positions(self.config, cache.prefix_mask.sum(1, keepdims=True) + t, length)
        x_B1D = embed_codes(self.embed, inputs_BK[:, :, None], self.config.dtype) + added
        if cache.added is not None:
            x_B1D = x_B1D + jax.lax.dynamic_slice_in_dim(cache.added, t, 1, axis=1)
        x_DB = place(x_B1D[:, 0].T, None, "batch")
        past_BT = (jnp.arange(length - before) <= t)[None]
        past_BT = jnp.broadcast_to(past_BT, (len(inputs_BK), length - before))
        past_BT = jnp.concatenate([cache.prefix_mask, past_BT], axis=1)
        after = []
        for block, cross_kv, self_kv in zip(
            self.blocks, cache.cross_kv, cache.self_kv, strict=True
        ):
            x_DB, self_kv = block.step(x_DB, self_kv, before + t, past_BT, cross_kv, angles)
            after.append(self_kv)
        return self.norm(x_DB, axis=0).T, cache._replace(self_kv=after)

    def _features(self, conditions: Conditions) -> Features:
        c = self.config
        return conditioner.read(
            self.readers, c.conditions, conditions, c.dtype, attend_padding=c.attend_padding
        )

    def _sequence(
        self, inputs: Tokens, features: Features, added_BTD: Array | None
    ) -> tuple[Array, Array | None, dict]:
        """What the layers start from `[B, P + T, D]`, their angles, self-attention's mask."""
        prefix_BPD, mask_BP = features.prefix, features.prefix_mask
        before, steps = prefix_BPD.shape[1], inputs.shape[2]
        x_BTD = embed_codes(self.embed, inputs, self.config.dtype)
        if added_BTD is not None:
            x_BTD = x_BTD + added_BTD
        if not before:
            added, angles = positions(self.config, jnp.arange(steps)[None], steps)
            return x_BTD + added, angles, {"causal": True}
        # Padding of the text takes no place: codes stand where they would without it.
        here_BT = jnp.concatenate([mask_BP, jnp.ones((len(mask_BP), steps), bool)], axis=1)
        added, angles = positions(
            self.config, jnp.maximum(jnp.cumsum(here_BT, 1) - 1, 0), before + steps
        )
        x_BTD = jnp.concatenate([prefix_BPD, x_BTD], axis=1) + added
        return x_BTD, angles, {"causal": True, "seen_BS": here_BT}


def cache_bytes(config: LMConfig, rows: int, steps: int) -> int:
    """Bytes of keys and values that decoding keeps.

    Args:
      config: of the model.
      rows: with those of every branch of guidance.
      steps: of codes, those of a prefix left out.

    Returns:
      The bytes.
    """
    features = config.dim // config.heads * (config.kv_heads or config.heads)
    return 2 * config.layers * rows * features * steps * jnp.dtype(config.dtype).itemsize


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
    """Bits of each code: -log2 p(code | what the model has seen before it, conditions).

    One teacher-forced pass. The sum over K is bits per frame, by which patterns compare exactly.

    Args:
      model: with stacked layers or with lists of them.
      pattern: of F frames.
      codes: `[B, K, F]`; one outside of [0, N) is taken for the nearest code.
      conditions: of B rows.
      mask_BF: frames that count; the others are fed as empty places. All by default.
      guidance: weights of classifier-free guidance, under whose logits codes are scored; see
        `conditions.guide`.

    Returns:
      Bits `[B, K, F]`, 0 where the mask is False; of a model that ends rows itself (config.end)
      also those of the end, on the first level at the frame after a row's last.
    """
    special = model.config.codebook_size
    codes = jnp.clip(codes, 0, special - 1).astype(jnp.int32)
    mask_B1F = (
        jnp.ones((codes.shape[0], 1, codes.shape[2]), bool)
        if mask_BF is None
        else (mask_BF[:, None, :])
    )
    masked = jnp.where(mask_B1F, codes, special)
    tokens = pattern.interleave(masked, fill=special)
    inputs, frame_of = teacher_inputs(tokens, special), frames_of_steps(pattern)
    hidden = [model.hidden(inputs, branch, frame_of) for branch in branches(conditions, guidance)]
    bits_BKT = model.heads.bits(jnp.stack(hidden), tokens, guidance)
    if model.config.end:
        # The special id on the first level, after the last frame, says that the row ends.
        first_1K1 = (jnp.arange(len(codes[0])) == 0)[None, :, None]
        lengths_B11 = mask_B1F.sum(2, keepdims=True)
        after_B1F = jnp.arange(codes.shape[2])[None, None] == lengths_B11
        mask_B1F = mask_B1F | (first_1K1 & after_B1F)
    return jnp.where(mask_B1F, pattern.deinterleave(bits_BKT), 0.0)


def frames_of_steps(pattern: Pattern) -> Array:
    """The frame `[T]` of each step: of the first level that has a code there, -1 for none."""
    has_KT = pattern.frame_at >= 0
    level_T = jnp.argmax(has_KT, axis=0)
    return jnp.take_along_axis(jnp.asarray(pattern.frame_at), level_T[None], axis=0)[0]


def _at_steps(frames: Array | None, frame_of: Array | None, steps: int) -> Array | None:
    """Features `[B, F, D]` of frames at the steps `[B, T, D]` that are of them, zero elsewhere."""
    if frames is None:
        return None
    frame_of = jnp.arange(steps) if frame_of is None else frame_of
    inside = (frame_of >= 0) & (frame_of < frames.shape[1])
    return jnp.where(inside[None, :, None], frames[:, jnp.maximum(frame_of, 0)], 0)
