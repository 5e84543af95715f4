"""How token models begin: embeddings of all levels summed, and positions."""

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.axes import place
from rvq_jax.lm import transformer
from rvq_jax.typing import Array, Tokens


def code_table(rngs: nnx.Rngs, levels: int, codebook_size: int, dim: int) -> nnx.Param:
    """Embeddings `[K, N + 1, D]`, the last of each level of its empty place or its mask.

    Sums over levels begin as the codes do, each level half the one before, and empty places at
    nothing. All of one size, upper levels drown level 1 for hundreds of updates.

    Args:
      rngs: of the initial weights.
      levels: K.
      codebook_size: N.
      dim: D.

    Returns:
      The parameter.
    """
    shape, axes = (levels, codebook_size + 1, dim), (None, "vocab", "embed")
    table = transformer.weight(rngs, shape, axes, 1)
    words_KVD = table[...] * 0.5 ** jnp.arange(levels)[:, None, None]
    table.set_value(words_KVD.at[:, codebook_size].set(0.0))
    return table


def embed_codes(table: nnx.Param, tokens: Tokens, dtype) -> Array:
    """Embeddings `[B, T, D]` of tokens `[B, K, T]`, summed over levels."""
    table_KVD = place(table[...], None, None, None)
    x_KBTD = jax.vmap(lambda table_VD, tokens_BT: table_VD[tokens_BT])(
        table_KVD, tokens.swapaxes(0, 1)
    )
    return x_KBTD.sum(axis=0).astype(dtype)


def positions(config, places_BT: Array, length: int) -> tuple[Array, Array | None]:
    """What is added to embeddings `[B, T, D]`, and the rotary angles of heads, or None.

    config: with positions, dim, heads, rope_theta and dtype; places lie in [0, length).
    """
    if config.positions == "sinusoidal":
        sinusoids_TD = transformer.sinusoids(length, config.dim)
        return jnp.asarray(sinusoids_TD, config.dtype)[places_BT], None
    angles = transformer.rope_angles(length, config.dim // config.heads, config.rope_theta)
    return jnp.zeros((1, 1, config.dim), config.dtype), jnp.asarray(angles)[places_BT]
