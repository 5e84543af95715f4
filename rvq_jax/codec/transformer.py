"""The causal transformer Mimi puts before its quantizer and again before its decoder.

Layers are pre-norm, with rotary positions, a window of past frames and a learned scale on what each
adds. There is a form for whole sequences and one for streams, and they compute the same. Parameters
of all layers are stacked, so that the whole form compiles one layer whatever their number.

Défossez et al. 2024 (Mimi, in Moshi), §3.3; Su et al. 2021 (rotary positions); Touvron et al. 2021
(LayerScale).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rvq_jax import draws
from rvq_jax.codec.edges import Edges
from rvq_jax.tracing import varying
from rvq_jax.typing import Array, Dtype, Latents


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a causal transformer over frames; the defaults are Mimi's.

    Raises ValueError if kv_heads does not divide heads, head_dim is odd, or context is below 1.
    """

    dim: int = 512  # D, features of a frame
    layers: int = 8  # blocks
    heads: int = 8  # H, of the queries
    kv_heads: int = 8  # of keys and values; each serves heads / kv_heads neighbouring queries
    head_dim: int = 64  # features of a head
    mlp_dim: int = 2048  # features inside the feed-forward
    context: int = 250  # frames a frame sees, itself among them
    rope_theta: float = 10_000.0  # base of the wavelengths of rotary positions
    layer_scale: float = 0.01  # at the start of training
    eps: float = 1e-5  # of the layer norms
    dtype: Dtype = "float32"  # of the computation; parameters and latents stay float32
    # One array for all layers, scanned: a program does not grow with them. Apart, a short step
    # reads each where it lies, instead of first copying all of them.
    stacked: bool = True

    def __post_init__(self):
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} key heads evenly")
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even, got {self.head_dim}")
        if self.context < 1:
            raise ValueError(f"context must be at least 1, got {self.context}")


class Layer(NamedTuple):
    """One layer's parameters, or those of all with a leading axis of layers."""

    attention_norm_scale: Array  # [D]
    attention_norm_bias: Array  # [D]
    qkv: Array  # [D, (heads + 2 · kv_heads) · head_dim], queries then keys then values
    out: Array  # [heads · head_dim, D]
    attention_scale: Array  # [D]
    mlp_norm_scale: Array  # [D]
    mlp_norm_bias: Array  # [D]
    up: Array  # [D, hidden]
    down: Array  # [hidden, D]
    mlp_scale: Array  # [D]


class Cache(NamedTuple):
    """One layer's keys and values of the last frames; frame p lies at p modulo context."""

    keys: Array  # [B, kv_heads, context, head_dim], turned by their positions
    values: Array  # [B, kv_heads, context, head_dim]


class State(NamedTuple):
    """All that a stream remembers."""

    position: Array  # int32, of the next frame
    caches: tuple[Cache, ...]  # one per layer


class Transformer(nnx.Module):
    """Latents `[B, F, D]` to latents `[B, F, D]`, each frame from its last `context` frames."""

    def __init__(self, config: TransformerConfig, rngs: nnx.Rngs):
        c = self.config = config

        def draw(inner: int, outer: int) -> Array:
            return draws.normal(rngs.params(), (c.layers, inner, outer), inner**-0.5)

        def vector(value: float) -> nnx.Param:
            return nnx.Param(jnp.full((c.layers, c.dim), value), axes=(None, None))

        inner, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
        self.attention_norm_scale, self.attention_norm_bias = vector(1.0), vector(0.0)
        # One product for the three: fewer calls, up to a tenth of a short step on CPU.
        self.qkv = nnx.Param(draw(c.dim, inner + 2 * kv), axes=(None, "embed", "heads"))
        self.out = nnx.Param(draw(inner, c.dim), axes=(None, "heads", "embed"))
        self.attention_scale = vector(c.layer_scale)
        self.mlp_norm_scale, self.mlp_norm_bias = vector(1.0), vector(0.0)
        self.up = nnx.Param(draw(c.dim, c.mlp_dim), axes=(None, "embed", "mlp"))
        self.down = nnx.Param(draw(c.mlp_dim, c.dim), axes=(None, "mlp", "embed"))
        self.mlp_scale = vector(c.layer_scale)
        if not c.stacked:
            self.prepare()

    def prepare(self) -> None:
        """Keeps the parameters of every layer apart."""
        for name in Layer._fields:
            stacked = getattr(self, name)
            apart = [nnx.Param(x, axes=stacked.axes[1:]) for x in stacked[...]]
            setattr(self, name, nnx.List(apart))

    def moves(self, edges: Edges) -> Edges:
        """Where an item lies after this layer."""
        return edges

    def __call__(self, latents: Latents, edges: Edges | None = None) -> Latents:
        """The whole sequence; memory grows with F, not with its square.

        Items must begin with their row; no frame sees what follows, so `edges` do not matter.
        """
        x_BFD = latents.astype(self.config.dtype)
        # Up to here, one square of frames costs no more than blocks with their windows.
        if x_BFD.shape[1] > 2 * self.config.context:
            return self._in_blocks(x_BFD).astype(jnp.float32)
        positions_F = jnp.arange(x_BFD.shape[1])
        turn = self._turn(positions_F)
        seen_FF = self._sees(positions_F, positions_F)

        def one(x_BFD, layer):
            queries, keys, values = self._project(layer, x_BFD, turn)
            y = attend(queries, [(keys, values, seen_FF)])
            return self._add(layer, x_BFD, y), None

        if self.config.stacked:
            x_BFD, _ = jax.lax.scan(one, x_BFD, self._stacked())
        else:
            for layer in self._layers():
                x_BFD, _ = one(x_BFD, layer)
        return x_BFD.astype(jnp.float32)

    def state(self, batch: int) -> State:
        """A stream's beginning: nothing to see yet."""
        c = self.config
        shape = (batch, c.kv_heads, c.context, c.head_dim)
        caches = [
            Cache(jnp.zeros(shape, c.dtype), jnp.zeros(shape, c.dtype)) for _ in range(c.layers)
        ]
        return State(jnp.zeros((), jnp.int32), tuple(caches))

    def step(
        self, latents: Latents, state: State | None, edges: Edges | None = None
    ) -> tuple[Latents, State]:
        """The next frames of a stream, any number, as in the whole; and the state after them."""
        state = self.state(latents.shape[0]) if state is None else state
        slots = self.config.context
        x_BFD = latents.astype(self.config.dtype)
        frames = x_BFD.shape[1]
        new_F = state.position + jnp.arange(frames)
        # The last frame each slot was given, negative if none was yet.
        old_F = state.position - 1 - (state.position - 1 - jnp.arange(slots)) % slots
        turn = self._turn(new_F)
        seen_old = self._sees(new_F, old_F) & (old_F >= 0)[None]
        seen_new = self._sees(new_F, new_F)
        kept = new_F[-slots:] % slots
        caches = []
        for layer, cache in zip(self._layers(), state.caches, strict=True):
            queries, keys, values = self._project(layer, x_BFD, turn)
            # Old and new apart, so that the cache is read where it lies and written only where
            # frames are new.
            y = attend(queries, [(*cache, seen_old), (keys, values, seen_new)])
            x_BFD = self._add(layer, x_BFD, y)
            update = (
                old.at[:, :, kept].set(new[:, :, -slots:], unique_indices=True)
                for old, new in zip(cache, (keys, values), strict=True)
            )
            caches.append(Cache(*update))
        return x_BFD.astype(jnp.float32), State(state.position + frames, tuple(caches))

    def _layers(self) -> list[Layer]:
        """The parameters layer by layer."""
        params = [getattr(self, name) for name in Layer._fields]
        return [Layer(*(x[i][...] for x in params)) for i in range(self.config.layers)]

    def _stacked(self) -> Layer:
        return Layer(*(getattr(self, name)[...] for name in Layer._fields))

    def _in_blocks(self, x_BFD: Array) -> Array:
        """A long sequence as a stream of equal blocks, none longer than the context."""
        batch, frames, dim = x_BFD.shape
        blocks = -(-frames // self.config.context)
        length = -(-frames // blocks)
        # Nothing looks at what is added behind the last frame.
        x_BFD = jnp.pad(x_BFD, ((0, 0), (0, blocks * length - frames), (0, 0)))

        def one(state, x_BFD):
            y_BFD, state = self.step(x_BFD, state)
            return state, y_BFD

        x, state = varying(
            x_BFD.reshape(batch, blocks, length, dim).swapaxes(0, 1), self.state(batch)
        )
        y = jax.lax.scan(one, state, x)[1]
        return y.swapaxes(0, 1).reshape(batch, -1, dim)[:, :frames]

    def _turn(self, positions_F: Array) -> tuple[Array, Array]:
        """Cosine and sine `[F, head_dim / 2]` of the angles at int32 positions, however large.

        Turns count in units of 2⁻³² in int32, whose overflow is a full turn: angles stay exact
        multiples of the position for ever, and differences, all that attention sees, are the same
        anywhere in a stream. In float32 they would be off by 0.004 after an hour.
        """
        half = self.config.head_dim // 2
        rate = self.config.rope_theta ** (-np.arange(half) / half)
        units = np.round(rate / (2 * math.pi) * 2**32).astype(np.int32)
        angles = (positions_F[:, None] * units[None]).astype(jnp.float32) * (2 * math.pi / 2**32)
        return jnp.cos(angles), jnp.sin(angles)

    def _sees(self, query_F: Array, key_F: Array) -> Array:
        """Which positions see which: themselves and the context - 1 before."""
        distance = query_F[:, None] - key_F[None]
        return (distance >= 0) & (distance < self.config.context)

    def _project(self, layer: Layer, x_BFD: Array, turn: tuple[Array, Array]) -> list[Array]:
        """Queries, keys and values `[B, heads or kv_heads, F, head_dim]`, the first two turned."""
        c = self.config
        y = self._norm(x_BFD, layer.attention_norm_scale, layer.attention_norm_bias)
        y = (y @ layer.qkv.astype(y.dtype)).reshape(*y.shape[:2], -1, c.head_dim).swapaxes(1, 2)
        turned, values = jnp.split(y, [c.heads + c.kv_heads], axis=1)
        return [*jnp.split(rotate(turned, *turn), [c.heads], axis=1), values]

    def _add(self, layer: Layer, x_BFD: Array, heads_BFD: Array) -> Array:
        """What is left of a layer once its heads have attended."""

        def add(x_BFD, y_BFD, matrix, scale):
            return (
                x_BFD + (y_BFD @ matrix.astype(x_BFD.dtype)) * scale.astype(x_BFD.dtype)[None, None]
            )

        x_BFD = add(x_BFD, heads_BFD, layer.out, layer.attention_scale)
        y = self._norm(x_BFD, layer.mlp_norm_scale, layer.mlp_norm_bias)
        y = jax.nn.gelu(y @ layer.up.astype(y.dtype), approximate=False)
        return add(x_BFD, y, layer.down, layer.mlp_scale)

    def _norm(self, x_BFD: Array, scale: Array, bias: Array) -> Array:
        """Layer normalization, statistics in float32 (Ba et al. 2016)."""
        y = x_BFD.astype(jnp.float32)
        y = y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y**2, -1, keepdims=True) + self.config.eps)
        return (y * scale[None, None] + bias[None, None]).astype(x_BFD.dtype)


def attend(queries: Array, memories: list[tuple[Array, Array, Array]]) -> Array:
    """Softmax attention `[B, F, heads · E]` over several sets of keys as if they were one.

    queries `[B, heads, F, E]`; each memory is keys and values `[B, kv_heads, M, E]` with the mask
    `[F, M]` of what is seen, at least one key over all memories.
    """
    batch, heads, frames, features = queries.shape
    groups = memories[0][0].shape[1]
    queries = (queries * features**-0.5).reshape(batch, groups, -1, frames, features)
    logits = [
        jnp.where(
            seen[None, None, None],
            jnp.einsum("bghfe,bgme->bghfm", queries, keys, preferred_element_type=jnp.float32),
            -jnp.inf,
        )
        for keys, _, seen in memories
    ]
    weights = jax.nn.softmax(jnp.concatenate(logits, axis=-1), axis=-1).astype(queries.dtype)
    ends = np.cumsum([keys.shape[2] for keys, _, _ in memories])[:-1]
    y = sum(
        jnp.einsum("bghfm,bgme->bghfe", part, values)
        for part, (_, values, _) in zip(jnp.split(weights, ends, axis=-1), memories, strict=True)
    )
    return y.reshape(batch, heads, frames, features).swapaxes(1, 2).reshape(batch, frames, -1)


def rotate(x: Array, cos_FE: Array, sin_FE: Array) -> Array:
    """Heads `[B, heads, F, 2E]` turned frame by frame, feature i with feature i + E."""
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos_FE[None, None], sin_FE[None, None]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
