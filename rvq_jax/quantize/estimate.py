"""How a gradient passes the choice of a code, which has none: functions of input and codeword."""

import jax
import jax.numpy as jnp

from rvq_jax.typing import Array, Key


def straight_through(input_MD: Array, code_MD: Array) -> Array:
    """The codeword `[M, D]`, with the gradient of the input. Bengio et al. 2013."""
    return input_MD + jax.lax.stop_gradient(code_MD - input_MD)


def rotation(input_MD: Array, code_MD: Array) -> Array:
    """The codeword `[M, D]` as a rotation and scaling of the input, held constant in the gradient.

    So the gradient keeps its angle to the codeword. Fifty et al. 2024 (rotation trick). Where the
    input or the codeword is zero there is no rotation: straight through.
    """
    e_MD, q_MD = (jax.lax.stop_gradient(x) for x in (input_MD, code_MD))
    e_M1, q_M1 = (jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (e_MD, q_MD))
    fine_M1 = (e_M1 > 1e-6) & (q_M1 > 1e-6)
    from_MD, to_MD = e_MD / jnp.where(fine_M1, e_M1, 1.0), q_MD / jnp.where(fine_M1, q_M1, 1.0)
    half_MD = from_MD + to_MD
    length_M1 = jnp.linalg.norm(half_MD, axis=-1, keepdims=True)
    # Opposite directions have no shortest rotation between them.
    fine_M1 &= length_M1 > 1e-4
    half_MD = half_MD / jnp.where(fine_M1, length_M1, 1.0)

    def dot(a, b):
        return jnp.sum(a * b, axis=-1, keepdims=True)

    turned_MD = input_MD - 2 * half_MD * dot(half_MD, input_MD) + 2 * to_MD * dot(from_MD, input_MD)
    turned_MD = turned_MD * (q_M1 / jnp.where(fine_M1, e_M1, 1.0))
    # The value is the codeword itself, to the bit; only the gradient is the rotation's.
    turned_MD = turned_MD + jax.lax.stop_gradient(q_MD - turned_MD)
    return jnp.where(fine_M1, turned_MD, straight_through(input_MD, code_MD))


def sample(keys_M: Key, input_ME: Array, table_NE: Array, temperature: float, size=None) -> Array:
    """Draws codes with probability proportional to exp(-|input - codeword|² / temperature).

    Gumbel-max: as the temperature falls to 0, the nearest codeword. Memory `[M, N]`. Maddison et
    al. 2014; Takida et al. 2022 (SQ-VAE) for its use in training.

    Args:
      keys_M: `[M]`, a key for each vector.
      input_ME: `[M, E]`, vectors in code space.
      table_NE: `[N, E]`, the codewords.
      temperature: above 0, in the units of a squared distance.
      size: scalar; codes from it on are never drawn. None for all N.

    Returns:
      Codes `[M]` int32.
    """
    product_MN = jnp.matmul(input_ME, table_NE.T, precision=jax.lax.Precision.HIGHEST)
    logits_MN = (2.0 * product_MN - jnp.sum(table_NE**2, axis=-1)[None]) / temperature
    if size is not None:
        logits_MN = jnp.where((jnp.arange(table_NE.shape[0]) < size)[None], logits_MN, -jnp.inf)
    noise_MN = jax.vmap(lambda key: jax.random.gumbel(key, table_NE.shape[:1], jnp.float32))(keys_M)
    return jnp.argmax(logits_MN + noise_MN, axis=-1).astype(jnp.int32)
