"""Heads: from the hidden states of a step to its K codes.

Heads score codes and sample them. They take the hidden states of all branches of guidance and
combine logits inside, level by level: where levels depend on each other, the logits of one are
known only when the codes before it are.
"""

from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.axes import place
from rvq_jax.lm.conditions import Guidance, guide
from rvq_jax.lm.precision import logits_type
from rvq_jax.lm.sampling import Sampling, sample
from rvq_jax.lm.transformer import product, project, weight
from rvq_jax.typing import Array, Key, Tokens


class Heads(Protocol):
    """What decoding and scoring ask of heads; G counts branches of guidance."""

    def bits(self, hidden: Array, tokens: Tokens, guidance: Guidance = None) -> Array:
        """Bits `[B, K, T]` of tokens `[B, K, T]` under hidden states `[G, B, T, D]`."""

    def sample(
        self,
        keys: Key,
        hidden: Array,
        forced: Array,
        valid: Array,
        sampling: Sampling,
        guidance: Guidance = None,
        recent: Array | None = None,
    ) -> tuple[Array, Array]:
        """Samples the tokens of one step.

        Args:
          keys: `[B]`, one of each row.
          hidden: `[G, B, D]` states of every branch of guidance.
          forced: `[B, K]` tokens to keep as they are, -1 where one is sampled.
          valid: `[B, K]`, where there is a token; elsewhere it is the special id.
          sampling: how a token is taken from logits.
          guidance: weights that combine the branches, see `conditions.guide`.
          recent: `[B, K, W]` tokens of the steps before, where sampling asks for them.

        Returns:
          Tokens `[B, K]` int32, and their bits `[B, K]`.
        """


class IndependentHeads(nnx.Module):
    """One linear map for each level, whose codes are independent given the hidden state."""

    def __init__(self, levels: int, codebook_size: int, dim: int, rngs: nnx.Rngs, *, end=False):
        """end: the first level may also say that the sequence ends, by the special id N."""
        self.codebook_size, self.end = codebook_size, end
        outputs = codebook_size + end
        self.weight = weight(rngs, (levels, outputs, dim), (None, "vocab", "embed"), dim)

    def logits(self, hidden_BTD: Array) -> Array:
        """Logits `[B, K, T, N]` float32."""
        weight_KND = self.weight[...]
        y_BTKN = project(hidden_BTD, weight_KND, logits_type(weight_KND))
        y_BTKN = place(y_BTKN, "batch", None, None, "vocab")
        return y_BTKN.swapaxes(1, 2).astype(jnp.float32)

    def bits(self, hidden: Array, tokens: Tokens, guidance: Guidance = None) -> Array:
        """As of `Heads`."""
        logits_BKTN = guide([self.logits(branch_BTD) for branch_BTD in hidden], guidance)
        logits_BKTN = self._ends(logits_BKTN.swapaxes(1, 2)).swapaxes(1, 2)
        return bits(logits_BKTN, jnp.minimum(tokens, logits_BKTN.shape[-1] - 1))

    def sample(
        self,
        keys: Key,
        hidden: Array,
        forced: Array,
        valid: Array,
        sampling: Sampling,
        guidance: Guidance = None,
        recent: Array | None = None,
    ) -> tuple[Array, Array]:
        """As of `Heads`: all levels of a row with one key."""
        branches, batch, dim = hidden.shape
        # Columns, and all branches in one product: the weights are read once. Behind a barrier, or
        # XLA would take the transpose for one of the weights.
        columns_DC = jax.lax.optimization_barrier(hidden.reshape(-1, dim).T)
        logits_KNC = product(self.weight[...], columns_DC, jnp.float32)
        logits_CKN = logits_KNC.transpose(2, 0, 1)
        logits_GBKN = logits_CKN.reshape(branches, batch, *logits_CKN.shape[1:])
        logits_BKN = self._ends(guide(logits_GBKN, guidance))
        draw = jax.vmap(lambda key, logits, recent: sample(key, logits, sampling, recent))
        drawn_BK = draw(keys, logits_BKN, recent)
        tokens_BK = jnp.where(forced >= 0, forced, drawn_BK)
        cost_BK = bits(logits_BKN, jnp.minimum(tokens_BK, logits_BKN.shape[-1] - 1))
        return jnp.where(valid, tokens_BK, self.codebook_size), cost_BK

    def _ends(self, logits: Array) -> Array:
        """Guided logits `[…, K, N + 1]` in which only the first level can end a sequence."""
        if not self.end:
            return logits
        levels, outputs = logits.shape[-2:]
        is_end_N = jnp.arange(outputs) == self.codebook_size
        never_KN = (jnp.arange(levels) > 0)[:, None] & is_end_N[None]
        return jnp.where(jnp.broadcast_to(never_KN, logits.shape), -jnp.inf, logits)


def bits(logits: Array, codes: Array) -> Array:
    """-log2 of the softmax probability of codes `[...]` under logits `[..., N]`."""
    chosen = jnp.take_along_axis(logits, codes[..., None], axis=-1)[..., 0]
    return (jax.nn.logsumexp(logits, axis=-1) - chosen) / jnp.log(2.0)
