"""Depth transformer: heads whose levels depend on each other, a small transformer inside each step.

Level k reads the state of the temporal model and the codes of the levels below it in the same step
(RQ-Transformer, Lee et al. 2022; Moshi, Défossez et al. 2024; CSM, Sesame 2025). With the pattern
`parallel` codes of a frame are then predicted exactly in one temporal step; where a pattern puts
levels of several frames into a step, they are conditioned on each other as they stand there.
Training predicts all levels at once, causal over levels; decoding goes through them one by one with
a cache of K positions, inside the program of all steps.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.axes import meshed, place
from rvq_jax.lm import attention, transformer
from rvq_jax.lm.conditions import Guidance, guide
from rvq_jax.lm.heads import bits
from rvq_jax.lm.llama import LlamaBlock, RMSNorm
from rvq_jax.lm.sampling import Sampling, sample
from rvq_jax.lm.transformer import KVCache, product, project, weight
from rvq_jax.tracing import varying
from rvq_jax.typing import Array, Key, Remat, Tokens


@dataclass(frozen=True)
class DepthConfig:
    """Sizes of a depth transformer; Moshi's and CSM's shapes are in `systems.rq_transformer`.

    Raises ValueError for heads that do not divide.
    """

    dim: int = 64  # D, features
    layers: int = 2
    heads: int = 4  # H, of queries
    kv_heads: int | None = None  # of keys and values; None: as many as of queries
    mlp_dim: int = 128  # features inside the feed-forward
    shared: bool = True  # one set of matrices for all levels (CSM), or one for each (Moshi)
    positions: Literal["rotary", "none"] = "rotary"  # of levels
    # The temporal model's state is added at every level (Moshi), or is a position of its own before
    # the codes, from which the first of them is predicted directly (CSM).
    state: Literal["added", "first"] = "added"
    norm: bool = True  # before the output; Moshi has none
    rope_theta: float = 10_000.0
    eps: float = 1e-5  # of the norms

    def __post_init__(self):
        check_heads(self.dim, self.heads, self.kv_heads)
        if self.positions == "rotary" and self.dim // self.heads % 2:
            raise ValueError(f"heads of {self.dim // self.heads} features cannot be rotated: even")


def check_heads(dim: int, heads: int, kv_heads: int | None) -> None:
    """Raises ValueError unless features divide into heads, and these into groups."""
    if heads < 1 or dim % heads:
        raise ValueError(f"dim {dim} cannot be cut into {heads} heads")
    if kv_heads is not None and (kv_heads < 1 or heads % kv_heads):
        raise ValueError(f"{heads} heads cannot share kv_heads {kv_heads} evenly")


class LevelBlock(nnx.Module):
    """A `LlamaBlock` whose matrices each level has for itself; levels share the norms."""

    def __init__(
        self,
        levels: int,
        dim: int,
        heads: int,
        mlp_dim: int,
        rngs: nnx.Rngs,
        *,
        kv_heads: int | None,
        eps: float,
    ):
        """Arguments as of `LlamaBlock`, for K levels."""

        def make(rngs):
            return LlamaBlock(dim, heads, mlp_dim, rngs, kv_heads=kv_heads, eps=eps)

        self.each = transformer.layers(levels, make, rngs, stacked=True)
        self.each.norm_self, self.each.norm_mlp = RMSNorm(dim, eps), RMSNorm(dim, eps)

    def __call__(self, x_RKD: Array, cross_kv: None, angles: Array | None, **mask) -> Array:
        """All levels at once, as `LlamaBlock` has it."""
        block = self.each
        attend, out_KDHE = block.attend_self, block.attend_self.out[...]
        y_RKD = place(block.norm_self(x_RKD), "batch", None, None)
        queries = project_each(y_RKD, attend.query[...])
        keys, values = jnp.moveaxis(project_each(y_RKD, attend.key_value[...]), 2, 0)
        queries, keys = (
            transformer.rotate(x.swapaxes(1, 2), angles).swapaxes(1, 2) for x in (queries, keys)
        )
        y_RKHE = attention.attend(queries, keys, values, **mask)
        y_RKHE = place(y_RKHE, "batch", None, "heads", None)
        out_KDX = out_KDHE.reshape(*out_KDHE.shape[:2], -1)
        x_RKD = x_RKD + project_each(y_RKHE.reshape(x_RKD.shape), out_KDX)
        y_RKD = place(block.norm_mlp(x_RKD), "batch", None, None)
        y_RKF = block.inner(lambda w: place(project_each(y_RKD, w), "batch", None, "mlp"))
        return x_RKD + place(project_each(y_RKF, block.down[...]), "batch", None, None)

    def at(self, level: Array) -> LlamaBlock:
        """The block of one level."""
        graphdef, state = nnx.split(self.each)
        # Vectors are the norms'.
        return nnx.merge(graphdef, jax.tree.map(lambda x: x[level] if x.ndim > 1 else x, state))


def project_each(x_RKD: Array, weight: Array) -> Array:
    """`[R, K, …]`: each level projected by its own of weights `[K, …, D]`, as `project` does."""
    weight = weight.astype(x_RKD.dtype)
    together = weight if meshed() else weight.reshape(len(weight), -1, weight.shape[-1])
    dims = (((2,), (together.ndim - 1,)), ((1,), (0,)))
    y = jnp.moveaxis(jax.lax.dot_general(x_RKD, together, dims), 0, 1)
    return y.reshape(*x_RKD.shape[:2], *weight.shape[1:-1])


class DepthHeads(nnx.Module):
    """`Heads` whose level k reads the step's state and the codes of the levels below it."""

    def __init__(
        self,
        config: DepthConfig,
        levels: int,
        codebook_size: int,
        dim: int,
        rngs: nnx.Rngs,
        *,
        end: bool = False,
        remat: Remat = "nothing",
        stacked: bool = False,
    ):
        """Random weights.

        Args:
          config: sizes.
          levels: K.
          codebook_size: N.
          dim: features of the temporal model.
          rngs: of the weights.
          end: the first level may also say that the sequence ends, by the special id N.
          remat: what is recomputed in the backward pass.
          stacked: layers as one module, for training.
        """
        c = self.config = config
        self.levels, self.codebook_size, self.end, self.remat = levels, codebook_size, end, remat
        each = () if c.shared else (levels,)
        nowhere = (None,) * len(each)
        self.project = weight(rngs, (*each, c.dim, dim), (*nowhere, None, "embed"), dim)
        width = c.dim if c.state == "added" else dim
        # Nothing reads codes of the last level. Empty places, id N, begin at nothing.
        axes = (None, "vocab", "embed")
        self.embed = weight(rngs, (levels - 1, codebook_size + 1, width), axes, 1)
        self.embed.set_value(self.embed[...].at[:, codebook_size].set(0.0))

        def make(rngs):
            options = {"kv_heads": c.kv_heads, "eps": c.eps}
            if c.shared:
                return LlamaBlock(c.dim, c.heads, c.mlp_dim, rngs, **options)
            return LevelBlock(levels, c.dim, c.heads, c.mlp_dim, rngs, **options)

        self.blocks = transformer.layers(c.layers, make, rngs, stacked=stacked)
        self.norm = RMSNorm(c.dim, c.eps) if c.norm else None
        self.first = weight(rngs, (codebook_size + end, width), ("vocab", "embed"), width)
        self.weight = weight(rngs, (levels - 1, codebook_size, c.dim), axes, c.dim)

    def logits(self, hidden_RD: Array, tokens_RK: Array) -> tuple[Array, Array]:
        """Logits of all levels of R steps, each given the tokens of the levels below.

        Returns:
          Those of the first level, `[R, N]` or `[R, N + 1]`, and of the others, `[R, K - 1, N]`.
        """
        x_RKD = place(self._inputs(hidden_RD, tokens_RK), "batch", None, None)
        angles = self._angles()

        def body(block, x_RKD):
            return block(x_RKD, None, angles, causal=True)

        x_RKD = transformer.scan_layers(self.blocks, x_RKD, body, remat=self.remat)
        y_RKD = place(x_RKD if self.norm is None else self.norm(x_RKD), "batch", None, None)
        first_RD = y_RKD[:, 0] if self.config.state == "added" else hidden_RD
        first_RN = project(first_RD[:, None], self.first[...])[:, 0]
        others_RKN = project_each(y_RKD[:, 1:], self.weight[...])
        others_RKN = place(others_RKN, "batch", None, "vocab")
        return first_RN.astype(jnp.float32), others_RKN.astype(jnp.float32)

    def bits(self, hidden: Array, tokens: Tokens, guidance: Guidance = None) -> Array:
        """As of `Heads`."""
        branches, batch, levels, steps = len(hidden), *tokens.shape
        tokens_RK = jnp.tile(tokens.swapaxes(1, 2).reshape(-1, levels), (branches, 1))
        found = self.logits(hidden.reshape(-1, hidden.shape[-1]), tokens_RK)
        first_BTN, others_BTKN = (
            guide(x.reshape(branches, batch, steps, *x.shape[1:]), guidance) for x in found
        )
        within = jnp.minimum(tokens.swapaxes(1, 2), self.codebook_size - 1)
        first_BT = bits(first_BTN, jnp.minimum(tokens[:, 0], first_BTN.shape[-1] - 1))
        others_BTK = bits(others_BTKN, within[:, :, 1:])
        return jnp.concatenate([first_BT[..., None], others_BTK], axis=-1).swapaxes(1, 2)

    def sample(
        self,
        keys: Key,
        hidden: Array,
        forced: Array,
        valid: Array,
        sampling: Sampling,
        guidance: Guidance = None,
    ) -> tuple[Array, Array]:
        """As of `Heads`: level by level, each from the guided logits of all branches, which then
        all read the same code."""
        c, branches = self.config, len(hidden)
        state_DR = hidden.reshape(-1, hidden.shape[-1]).T
        rows, kv = state_DR.shape[1], c.kv_heads or c.heads
        values = jnp.zeros((rows, kv, self.levels, c.dim // c.heads), state_DR.dtype)
        caches = [KVCache(values.swapaxes(2, 3), values) for _ in range(c.layers)]

        def choose(k, logits_NR):
            """A token of level k in each row, and its bits."""
            logits_GBN = logits_NR.T.astype(jnp.float32).reshape(branches, len(keys), -1)
            logits_BN = guide(logits_GBN, guidance)
            level_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, k)
            drawn_B = jax.vmap(lambda key, x: sample(key, x, sampling))(level_keys, logits_BN)
            forced_B, valid_B = (
                jax.lax.dynamic_index_in_dim(x, k, 1, keepdims=False) for x in (forced, valid)
            )
            token_B = jnp.where(forced_B >= 0, forced_B, drawn_B).astype(jnp.int32)
            cost_B = bits(logits_BN, jnp.minimum(token_B, logits_BN.shape[-1] - 1))
            return jnp.where(valid_B, token_B, self.codebook_size), cost_B

        y_DR, caches = self._step(0, self._input(0, state_DR, None), caches)
        first_NR = product(self.first[...], y_DR if c.state == "added" else state_DR)
        token_B, cost_B = choose(0, first_NR)

        def level(carry, k):
            token_B, caches = carry
            below_DR = jnp.tile(self.embed[...][k - 1, token_B], (branches, 1)).T
            y_DR, caches = self._step(k, self._input(k, state_DR, below_DR), caches)
            token_B, cost_B = choose(k, product(self.weight[...][k - 1], y_DR))
            return (token_B, caches), (token_B, cost_B)

        carry = varying((token_B, caches), keys)[0]
        _, others = jax.lax.scan(level, carry, jnp.arange(1, self.levels))
        return tuple(
            jnp.concatenate([one_B[:, None], others_KB.T], axis=1)
            for one_B, others_KB in zip((token_B, cost_B), others, strict=True)
        )

    def _inputs(self, hidden_RD: Array, tokens_RK: Array) -> Array:
        """What the layers start from, `[R, K, D]`."""
        table_KVD = place(self.embed[...], None, None, None)
        below_RKD = jax.vmap(lambda table, tokens: table[tokens], (0, 1), 1)(
            table_KVD, tokens_RK[:, :-1]
        ).astype(hidden_RD.dtype)
        if self.config.state == "first":
            x_RKD = jnp.concatenate([hidden_RD[:, None], below_RKD], axis=1)
            return self._projected(x_RKD)
        below_RKD = jnp.pad(below_RKD, ((0, 0), (1, 0), (0, 0)))
        if self.config.shared:
            return self._projected(hidden_RD[:, None]) + below_RKD
        state_RKD = jnp.broadcast_to(
            hidden_RD[:, None], (len(hidden_RD), self.levels, hidden_RD.shape[1])
        )
        return self._projected(state_RKD) + below_RKD

    def _projected(self, x_RKD: Array) -> Array:
        made = project if self.config.shared else project_each
        return made(x_RKD, self.project[...])

    def _input(self, k: Array | int, state_DR: Array, below_DR: Array | None) -> Array:
        """`_inputs` of level k alone, as columns; below: features of the code below, if any."""
        matrix = self.project[...] if self.config.shared else self.project[...][k]
        if below_DR is None:
            return product(matrix, state_DR)
        below_DR = below_DR.astype(state_DR.dtype)
        if self.config.state == "first":
            return product(matrix, below_DR)
        return product(matrix, state_DR) + below_DR

    def _step(self, k: Array | int, x_DR: Array, caches: list) -> tuple[Array, list[KVCache]]:
        """Level k through all layers, and the caches with it."""
        past_1K = (jnp.arange(self.levels) <= k)[None]
        angles = self._angles()
        if angles is not None:
            angles = jax.lax.dynamic_slice_in_dim(angles, k, 1, axis=1)
        after = []
        for block, cache in zip(self.blocks, caches, strict=True):
            one = block if self.config.shared else block.at(k)
            x_DR, cache = one.step(x_DR, cache, k, past_1K, None, angles)
            after.append(cache)
        return x_DR if self.norm is None else self.norm(x_DR, axis=0), after

    def _angles(self) -> Array | None:
        """Rotary angles of levels, `[1, K, E / 2]`."""
        c = self.config
        if c.positions == "none":
            return None
        angles = transformer.rope_angles(self.levels, c.dim // c.heads, c.rope_theta)
        return jnp.asarray(angles)[None]
