"""Texts as bytes; without JAX, as processes that make batches spell them."""

from collections.abc import Sequence

import numpy as np


def to_bytes(captions: Sequence[str], length: int) -> np.ndarray:
    """Captions as int32 `[B, L]`: UTF-8 bytes plus 1, cut or padded with 0 to `length`.

    A caption that is cut may end in an incomplete character: bytes are whole, UTF-8 may not be.
    """
    text_BL = np.zeros((len(captions), length), np.int32)
    for row, caption in zip(text_BL, captions, strict=True):
        data = np.frombuffer(caption.encode()[:length], np.uint8)
        row[: len(data)] = data.astype(np.int32) + 1
    return text_BL
