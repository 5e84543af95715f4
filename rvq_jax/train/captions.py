"""Captions to the states of a frozen text encoder, once and before training."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from rvq_jax import files, progress
from rvq_jax.data.captions import CaptionStates
from rvq_jax.systems.text_encoder import TextEncoder

ROWS = 32  # captions encoded at once


def caption_states(path: str | Path, text: TextEncoder, captions: Sequence[str]) -> CaptionStates:
    """States of the distinct captions, kept in the file `path`.

    Read from it if this encoder made them of these captions, else computed and written. Raises
    UserError if the file is damaged or cannot be written.
    """
    path = Path(path)
    # Shorter ones first: rows of like length need little padding.
    distinct = sorted(set(captions), key=lambda caption: (len(caption), caption))
    key = _key(text, distinct)
    if path.exists() and (kept := CaptionStates.load(path)).key == key:
        return kept
    found = CaptionStates(distinct, _encode(text, distinct), key)
    if jax.process_index() == 0:
        found.save(path)
    return found


def _encode(text: TextEncoder, captions: list[str]) -> list[np.ndarray]:
    found = []
    for begin in progress.bar(range(0, len(captions), ROWS), desc="captions", unit="batch"):
        part = captions[begin : begin + ROWS]
        # Full batches: one program for every length.
        states, mask = text.encode([*part, *[""] * (ROWS - len(part))])
        lengths = mask.sum(axis=1)[: len(part)]
        found += [row[:n] for row, n in zip(np.asarray(states), lengths, strict=False)]
    return found


def _key(text: TextEncoder, captions: list[str]) -> str:
    """Of all that the states depend on: weights, tokenizer, captions."""
    weights = files.fingerprint(text.tensors).hex()
    tokenizer = {name: hashlib.sha256(x).hexdigest() for name, x in text.tokenizer.files.items()}
    words = json.dumps([weights, tokenizer, text.limit, captions])
    return hashlib.sha256(words.encode()).hexdigest()
