"""Heads whose levels depend on each other: a small transformer over the levels of each step."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.lm import transformer
from rvq_jax.lm.conditions import guide
from rvq_jax.lm.heads import bits
from rvq_jax.lm.model import LMConfig
from rvq_jax.lm.sampling import sample
from rvq_jax.lm.transformer import Block, LayerNorm, weight


class DepthHeads(nnx.Module):
    """Level k reads the step's hidden state and the codes of the levels below it."""

    def __init__(self, config, rngs: nnx.Rngs, *, stacked: bool):
        c = self.config = config
        axes = (None, "vocab", "embed")
        self.embed = weight(rngs, (c.levels, c.codebook_size + 1, c.dim), axes, 1)
        self.blocks = transformer.layers(
            c.depth_layers,
            lambda rngs: Block(c.dim, c.heads, c.mlp_dim, rngs, cross=False),
            rngs,
            stacked=stacked,
        )
        self.norm = LayerNorm(c.dim)
        self.weight = weight(rngs, (c.levels, c.codebook_size, c.dim), axes, c.dim)

    def logits(self, hidden_RD, tokens_RK):
        """Logits `[R, K, N]` of all levels, each given the tokens of those below."""
        K = tokens_RK.shape[1]
        words_RKD = self.embed[...][jnp.arange(K)[None], tokens_RK]
        below_RKD = jnp.pad(words_RKD[:, :-1], ((0, 0), (1, 0), (0, 0)))
        x_RKD = hidden_RD[:, None] + below_RKD.astype(hidden_RD.dtype)
        angles = jnp.asarray(transformer.rope_angles(K, self.config.dim // self.config.heads))[None]
        x_RKD = transformer.scan_layers(
            self.blocks, x_RKD, lambda block, x: block(x, None, angles, is_causal=True)
        )
        return jnp.einsum("rkd,knd->rkn", self.norm(x_RKD), self.weight[...])

    def guided(self, hidden, tokens_BKT, guidance):
        """Guided logits `[B, T, K, N]` of hidden states `[G, B, T, D]`."""
        branches, batch, steps, dim = hidden.shape
        tokens = jnp.broadcast_to(
            tokens_BKT.swapaxes(1, 2), (branches, batch, steps, tokens_BKT.shape[1])
        )
        logits = self.logits(hidden.reshape(-1, dim), tokens.reshape(-1, tokens.shape[-1]))
        return guide(logits.reshape(branches, batch, steps, *logits.shape[1:]), guidance)

    def bits(self, hidden, tokens, guidance=None):
        logits_BTKN = self.guided(hidden, tokens, guidance)
        within = jnp.minimum(tokens, self.config.codebook_size - 1).swapaxes(1, 2)
        return bits(logits_BTKN, within).swapaxes(1, 2)

    def sample(self, keys, hidden, forced, valid, sampling, guidance=None):
        special = self.config.codebook_size
        tokens_BK = jnp.full_like(forced, special)
        cost_BK = jnp.zeros(forced.shape)

        def level(carry, k):
            tokens_BK, cost_BK = carry
            logits_BKN = self.guided(hidden[:, :, None], tokens_BK[:, :, None], guidance)[:, 0]
            logits_BN = jax.lax.dynamic_index_in_dim(logits_BKN, k, 1, keepdims=False)
            drawn_B = jax.vmap(lambda key, x: sample(jax.random.fold_in(key, k), x, sampling))(
                keys, logits_BN
            )
            token_B = jnp.where(forced[:, k] >= 0, forced[:, k], drawn_B)
            cost_BK = cost_BK.at[:, k].set(bits(logits_BN, jnp.minimum(token_B, special - 1)))
            token_B = jnp.where(valid[:, k], token_B, special)
            return (tokens_BK.at[:, k].set(token_B), cost_BK), None

        (tokens_BK, cost_BK), _ = jax.lax.scan(
            level, (tokens_BK, cost_BK), jnp.arange(forced.shape[1])
        )
        return tokens_BK, cost_BK


@dataclass(frozen=True)
class DepthConfig(LMConfig):
    """A token model with a depth transformer in place of independent heads."""

    depth_layers: int = 2

    def build_heads(self, rngs: nnx.Rngs, *, stacked: bool = False) -> DepthHeads:
        return DepthHeads(self, rngs, stacked=stacked)
