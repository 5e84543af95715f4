"""Captions as conditions: a small encoder over their bytes, trained along with the model."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx

from rvq_jax.lm.transformer import Block, LayerNorm, scan, sinusoids, stack, weight
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

    def __init__(self, dim: int, heads: int, layers: int, rngs: nnx.Rngs):
        self.embed = weight(rngs, (257, dim), (None, "embed"), 1)
        self.blocks = stack(
            layers, lambda rngs: Block(dim, heads, 4 * dim, rngs, cross=False), rngs
        )
        self.norm = LayerNorm(dim)

    def __call__(self, text_BL: Array, dtype=jnp.float32) -> tuple[Array, Array]:
        """Features `[B, L, D]`, zero where the mask `[B, L]` is False, and the mask."""
        mask_BL = text_BL > 0
        x_BLD = self.embed[...][text_BL] + sinusoids(text_BL.shape[1], self.embed.shape[1])[None]
        seen = mask_BL[:, None, None, :]
        x_BLD = scan(self.blocks, x_BLD.astype(dtype), lambda block, x: block(x, mask=seen))
        return self.norm(x_BLD) * mask_BL[..., None].astype(dtype), mask_BL
