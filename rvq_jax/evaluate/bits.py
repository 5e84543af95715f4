"""Bits of held-out codes under a token model, clip by clip."""

from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from rvq_jax import patterns
from rvq_jax.data.codes import CodeSet
from rvq_jax.data.melodies import MelodyCut
from rvq_jax.errors import UserError
from rvq_jax.lm.conditions import Conditions, condition
from rvq_jax.systems.decoding.programs import score_codes
from rvq_jax.systems.musicgen import MusicGen


def clip_bits(
    model: MusicGen, heldout: CodeSet, frames: int | None = None, batch: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """Scores a token model on held-out codes, clip by clip.

    Args:
      model: the token model; its codec is not needed.
      heldout: held-out codes, which are scored in consecutive windows.
      frames: of a window, those of the crops that the model was trained on; None for its
        config.window, or for whole clips if it has none.
      batch: windows that are scored at a time.

    Returns:
      Bits of each clip and level, summed over its frames, `[M, K]`, and its frames `[M]`.

    Raises:
      UserError: codes that are not the model's, or lack the melody that it follows.
    """
    check_codes(model, heldout)
    lengths = np.array([codes.shape[1] for codes in heldout.codes])
    longest = int(lengths.max())
    frames = min(model.config.window or longest, longest) if frames is None else frames
    pattern = patterns.padded_pattern(model.pattern, model.config.levels, frames)
    windows = [(i, begin) for i, n in enumerate(lengths) for begin in range(0, n, frames)]
    conditions_of = caption_conditions(model, heldout.captions)
    bits_MK = np.zeros((len(heldout), model.config.levels))
    bar = tqdm(total=len(windows), desc="bits", unit="window", delay=2, leave=False)
    with bar:
        for first in range(0, len(windows), batch):
            part = windows[first : first + batch]
            # What fills the last batch is a copy, and counts for nothing.
            rows = part + part[-1:] * (batch - len(part))
            pieces = [heldout.codes[i][:, begin : begin + frames] for i, begin in rows]
            counts = [piece.shape[1] for piece in pieces]
            codes = np.stack([_padded(piece, frames) for piece in pieces])
            mask = np.arange(frames) < np.array(counts)[:, None]
            conditions = conditions_of([i for i, _ in rows])
            conditions = conditions | melodies(model, heldout, rows, counts)
            found = score_codes(model.config, model.params, pattern, codes, conditions, mask)
            found = np.asarray(found, np.float64).sum(2)
            for row, (i, _) in enumerate(part):
                bits_MK[i] += found[row]
            bar.update(len(part))
    return bits_MK, lengths


def caption_conditions(model: MusicGen, captions: list[str]) -> Callable[[list[int]], Conditions]:
    """A function from indices of captions to their conditions, in shapes that are always the same:
    tokens of a frozen encoder are padded to the longest caption of all."""
    if model.config.text_dim is None:
        return lambda rows: model.encode_conditions([captions[i] for i in rows])
    if model.text is None:
        raise UserError("a model reads a frozen text encoder and has none; give its whole folder")
    ids, mask = model.text.tokens(captions)
    return lambda rows: model.encode_conditions(
        {"input_ids": ids[rows], "attention_mask": mask[rows]}
    )


def check_codes(model: MusicGen, heldout: CodeSet, name: str = "the model") -> None:
    """Raises UserError unless a model, of this name, can score the codes."""
    config, levels = model.config, len(heldout.codes[0])
    if (levels, heldout.codebook_size) != (config.levels, config.codebook_size):
        raise UserError(
            f"the held-out codes have {levels} levels of {heldout.codebook_size}, {name} "
            f"{config.levels} of {config.codebook_size}; give the codes of its codec"
        )
    if config.melody_bins not in (None, heldout.melody_bins):
        raise UserError(
            f"{name} follows a melody: build the held-out codes with --melody {config.melody_bins}"
        )
    if config.end:
        raise UserError("{name} ends rows itself, and windows of clips do not end as it says")


def _padded(codes_KF: np.ndarray, frames: int) -> np.ndarray:
    return np.pad(codes_KF, ((0, 0), (0, frames - codes_KF.shape[1])))


def melodies(
    model: MusicGen, heldout: CodeSet, rows: list[tuple[int, int]], frames: list[int]
) -> Conditions:
    """The melody of windows as training cuts it, of a model that follows one; else nothing.

    Args:
      model: the token model.
      heldout: codes with their melodies.
      rows: clip and first frame of each window.
      frames: how many each window has.
    """
    config = model.config
    if not config.melody_bins:
        return {}
    per_frame = heldout.melody_rate / heldout.frame_rate
    cut = MelodyCut(per_frame, config.melody_bins, config.melody_frames)
    found = [
        cut.conditions(heldout[i], begin, count)["melody"]
        for (i, begin), count in zip(rows, frames, strict=True)
    ]
    return {"melody": condition(np.stack(found))}
