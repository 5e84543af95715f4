"""From conditions to features: captions read by an own encoder, or the states of a frozen one."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx

from rvq_jax.lm.conditions import EncodedConditions
from rvq_jax.lm.transformer import Block, LayerNorm, layers, scan_layers, sinusoids, weight
from rvq_jax.typing import Array


def to_bytes(captions: Sequence[str], length: int) -> np.ndarray:
    """Captions as int32 `[B, L]`: UTF-8 bytes plus 1, cut or padded with 0 to `length`.

    A caption cut inside a character keeps its whole bytes up to the cut.
    """
    text_BL = np.zeros((len(captions), length), np.int32)
    for row, caption in zip(text_BL, captions, strict=True):
        data = np.frombuffer(caption.encode()[:length], np.uint8)
        row[: len(data)] = data.astype(np.int32) + 1
    return text_BL


class CaptionEncoder(nnx.Module):
    """Bytes `[B, L]` to features `[B, L, D]`: embedding, positions, bidirectional blocks.

    Padding is masked, so a caption's features do not depend on the length it is padded to. An
    empty caption gives zeros: the null condition of classifier-free guidance.
    """

    def __init__(self, dim: int, heads: int, count: int, rngs: nnx.Rngs, *, stacked: bool):
        self.embed = weight(rngs, (257, dim), (None, "embed"), 1)

        def make(rngs):
            return Block(dim, heads, 4 * dim, rngs, cross=False)

        self.blocks = layers(count, make, rngs, stacked=stacked)
        self.norm = LayerNorm(dim)

    def __call__(self, text_BL: Array, dtype=jnp.float32) -> tuple[Array, Array]:
        """Features `[B, L, D]`, zero where the mask `[B, L]` is False, and the mask."""
        mask_BL = text_BL > 0
        x_BLD = self.embed[...][text_BL] + sinusoids(text_BL.shape[1], self.embed.shape[1])[None]
        seen = mask_BL[:, None, None, :]
        x_BLD = scan_layers(self.blocks, x_BLD.astype(dtype), lambda block, x: block(x, mask=seen))
        return self.norm(x_BLD) * mask_BL[..., None].astype(dtype), mask_BL


def linear(size: int, dim: int, dtype: str, rngs: nnx.Rngs) -> nnx.Linear:
    """A layer with a bias, its parameters with logical axis names; dtype of what it computes."""
    kernel = nnx.with_metadata(nnx.initializers.lecun_normal(), axes=(None, "embed"))
    bias = nnx.with_metadata(nnx.initializers.zeros_init(), axes=("embed",))
    return nnx.Linear(
        size, dim, dtype=jnp.dtype(dtype), kernel_init=kernel, bias_init=bias, rngs=rngs
    )


class FrozenText(nnx.Module):
    """States of a frozen text encoder to features, zero where there is no text or it is left out.

    States as wide as the model are taken as they are, as transformers does.
    """

    def __init__(self, size: int, dim: int, dtype: str, rngs: nnx.Rngs):
        self.project = linear(size, dim, dtype, rngs) if size != dim else None

    def __call__(self, conditions: EncodedConditions, dtype=jnp.float32) -> tuple[Array, Array]:
        """Features `[B, L, D]` and the mask `[B, L]`.

        Text that is left out stays in the mask: attention to zeros gives zeros, and in a prefix it
        keeps its places.
        """
        states_BLE = conditions.states.astype(dtype)
        x_BLD = states_BLE if self.project is None else self.project(states_BLE)
        there_BL1 = (conditions.mask & conditions.kept[:, None])[..., None]
        return jnp.where(there_BL1, x_BLD, 0), conditions.mask
