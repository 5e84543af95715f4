"""What held-out clips give token models to read beside codes: captions, melodies, tokens."""

from collections.abc import Callable, Sequence

import numpy as np

from rvq_jax.data.codes import CodeSet
from rvq_jax.data.melodies import MelodyCut
from rvq_jax.errors import UserError
from rvq_jax.lm.conditions import Conditions, condition
from rvq_jax.systems.generators import Generator
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.semantic import SemanticModel
from rvq_jax.systems.soundstorm import SoundStorm
from rvq_jax.systems.valle import VALLE


def caption_conditions(
    model: Generator | SemanticModel, captions: list[str]
) -> Callable[[Sequence[int]], Conditions]:
    """A function from indices of captions to their conditions, in shapes that are always the same:
    tokens of a frozen encoder are padded to the longest caption of all.

    Of a SoundStorm it is the semantic model that reads them.
    """
    reader = model.semantic if isinstance(model, SoundStorm) else model
    if isinstance(reader, SemanticModel) and reader.spelling is None:
        reader = reader.lm
    if isinstance(reader, SemanticModel | VALLE):
        return lambda rows: _read(reader, [captions[i] for i in rows])
    if reader.config.text_dim is None:
        return lambda rows: reader.encode_conditions([captions[i] for i in rows])
    if reader.text is None:
        raise UserError("a model reads a frozen text encoder and has none; give its whole folder")
    ids, mask = reader.text.tokens(captions)
    return lambda rows: reader.encode_conditions(
        {"input_ids": ids[rows], "attention_mask": mask[rows]}
    )


def _read(reader: SemanticModel | VALLE, words: list[str]) -> Conditions:
    """Conditions of words; raises UserError for those that the model cannot read."""
    try:
        return reader.encode_conditions(words)
    except ValueError as error:
        raise UserError(f"held-out clips: {error}") from None


def melodies(
    model: Generator, heldout: CodeSet, rows: list[tuple[int, int]], frames: Sequence[int]
) -> Conditions:
    """The melody of windows as training cuts it, of a model that follows one; else nothing.

    Args:
      model: the token model.
      heldout: codes with their melodies.
      rows: clip and first frame of each window.
      frames: how many each window has.
    """
    config = model.config
    if not isinstance(model, MusicGen) or not config.melody_bins:
        return {}
    per_frame = heldout.melody_rate / heldout.frame_rate
    cut = MelodyCut(per_frame, config.melody_bins, config.melody_frames)
    found = [
        cut.conditions(heldout[i], begin, count)["melody"]
        for (i, begin), count in zip(rows, frames, strict=True)
    ]
    return {"melody": condition(np.stack(found))}


def semantic_conditions(
    model: SoundStorm, heldout: CodeSet, rows: list[tuple[int, int]], frames: int
) -> Conditions:
    """The semantic tokens of windows as training cuts them, 0 after a clip's end.

    Args:
      model: a SoundStorm.
      heldout: codes with their semantic tokens.
      rows: clip and first frame of each window, the first of a token.
      frames: of all windows.
    """
    config = model.config
    tokens = np.zeros((len(rows), config.semantic_tokens(frames)), np.int32)
    for row, (i, begin) in zip(tokens, rows, strict=True):
        piece = heldout.semantics[i][begin // config.semantic_ratio :][: len(row)]
        row[: len(piece)] = piece
    return model.conditions(tokens, frames)
