"""Codes of speech with the words that are said in it: whole utterances, written as models read."""

import dataclasses

from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.systems.spelling import Spelling
from rvq_jax.train import hosts


def utterances(
    codes: CodeSet, frames: int, spelling: Spelling, most: int, name: str = "train"
) -> CodeSet:
    """Utterances that fit a crop together with their end.

    Args:
      codes: of whole utterances, their words as captions.
      frames: F, of a crop; records of so many or more are left out, and said to be.
      spelling: how words are written.
      most: bytes that the model reads of one text.
      name: of the codes, for messages.

    Returns:
      The codes, with captions as the model reads them.

    Raises:
      UserError: none fits, one has no words, or more than the model reads.
    """
    rows = [i for i, codes_KF in enumerate(codes.codes) if codes_KF.shape[1] < frames]
    if not rows:
        shortest = min(codes_KF.shape[1] for codes_KF in codes.codes)
        raise UserError(
            f"the shortest utterance of {name} has {shortest} frames: set --frames to more"
        )
    if len(rows) < len(codes):
        hosts.warn(
            f"{len(codes) - len(rows)} of {len(codes)} utterances of {name} have {frames} frames "
            "or more, and are left out"
        )
    kept = codes.rows(rows)
    for i, caption in enumerate(kept.captions):
        if not caption.strip():
            raise UserError(f"{name}: {kept.names[i]} has no words: put them into its caption")
    try:
        return dataclasses.replace(kept, captions=spelling.written(kept.captions, most))
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
