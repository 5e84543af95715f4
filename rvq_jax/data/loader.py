"""Batches, which depend on their place in the run only: by grain's threads, or by processes."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rvq_jax.data.captions import CaptionStates
from rvq_jax.data.features import FeatureCut
from rvq_jax.data.melodies import MelodyCut
from rvq_jax.data.stored import floats
from rvq_jax.data.workers import Workers
from rvq_jax.lm.text_bytes import to_bytes

if TYPE_CHECKING:
    import grain

Cut = Callable[[dict, np.random.Generator], dict]
# Batches read ahead of the step that uses them; grain's 500 would fill memory with audio.
AHEAD = {"num_threads": 4, "prefetch_buffer_size": 8}
# Endless to any run, while the number of examples still fits an index of 64 bits.
EPOCHS = 2**31


def batches(
    source,
    cut: Cut,
    batch: int,
    seed: int,
    rows: np.ndarray | None = None,
    workers: int = 0,
) -> "grain.DatasetIterator | Workers":
    """Iterates endlessly over batches of crops of records, in a new order in every epoch.

    A record's crop depends on (seed, index, epoch), not on its batch. `get_state` and `set_state`
    of the iterator resume it exactly: the state counts batches, whatever the rows and the workers.

    Args:
      source: random access to records, which are dicts.
      cut: function that makes a crop, a dict of arrays, of a record with a random generator.
      batch: rows of a batch, over all processes that share it.
      seed: seed of the order and of the crops.
      rows: `[b]`, which rows of every batch to make; None for all. Processes that share a batch
        each take theirs.
      workers: processes that make batches, each with the source in its memory; 0 for threads of
        this one.

    Returns:
      An iterator over dicts of arrays `[b, …]`: what `cut` gives, and each record's `index`.
    """
    rows = np.arange(batch) if rows is None else rows
    make = Making(source, cut, batch, seed, rows)
    if workers:
        return Workers(make, workers)
    import grain

    dataset = grain.MapDataset.range(EPOCHS * len(source) // batch).map(make)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(**AHEAD)))


@dataclass(frozen=True, eq=False)
class Making:
    """The batch of a place in the run; arguments as of `batches`."""

    source: Sequence[dict]
    cut: Cut
    batch: int
    seed: int
    rows: np.ndarray

    def __call__(self, at: int, out: dict | None = None) -> dict:
        """out: arrays to fill, where they are of the batch's shapes and types."""
        # Audio as it is stored, where the source has that: a crop's samples alone become floats.
        read = getattr(self.source, "stored", self.source.__getitem__)
        made = []
        for row in self.rows:
            epoch, place = divmod(at * self.batch + int(row), len(self.source))
            index = int(_order(self.seed, epoch, len(self.source))[place])
            rng = np.random.default_rng((self.seed, index, epoch))
            made.append({**self.cut(read(index), rng), "index": np.int32(index)})
        return _stack(made, out)


# grain's own shuffle costs milliseconds a record where there are few: it walks a cycle of 2^16
# places and more until it meets one of them.
@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, 0, 1)).permutation(count)


def cut_audio(samples: int, features: FeatureCut | None = None) -> Cut:
    """Makes a function that cuts random crops of records of audio.

    Args:
      samples: S, samples of a crop; shorter records end in padding.
      features: how the features of a crop are cut beside it; crops then begin with a frame of the
        codec, and are whole frames. None gives no features.

    Returns:
      A function of a record and a random generator that gives a dict: audio `[S, C]` and mask
      `[S]`, and with `features` features `[F, D]`, 0 beyond the record's end.
    """
    step = 1 if features is None else features.hop
    if samples % step:
        raise ValueError(f"crops of {samples} samples are not whole frames of {step}")

    def cut(record: dict, rng: np.random.Generator) -> dict:
        audio_SC = record["audio"]
        first = rng.integers(0, max(1, (len(audio_SC) - samples) // step + 1))
        beside = {} if features is None else features.conditions(record, first, samples // step)
        audio_SC, mask_S = _window(audio_SC, first * step, samples)
        if audio_SC.dtype == np.int16:
            audio_SC = floats(audio_SC)
        return {"audio": audio_SC, "mask": mask_S, **beside}

    return cut


def cut_codes(
    frames: int,
    caption_bytes: int,
    states: CaptionStates | None = None,
    melody: MelodyCut | None = None,
    semantic_ratio: int | None = None,
) -> Cut:
    """Makes a function that cuts random crops of records of codes and adds their conditions.

    Args:
      frames: F, frames of a crop; shorter records are padded.
      caption_bytes: L, bytes that a caption is cut or padded to; not used with `states`.
      states: states of a frozen text encoder for all captions; None gives captions as bytes.
      melody: how the melody of a crop is cut from its record; None gives no melody.
      semantic_ratio: r, frames for each semantic token of a record; crops then begin with a token,
        and are whole tokens. None gives none.

    Returns:
      A function of a record and a random generator that gives a dict: codes `[K, F]` and mask
      `[F]`; the caption's bytes as text `[L]`, or with `states` states `[L, E]` and text_mask `[L]`
      in their place; with `melody` the crop's melody `[P, bins]`; with `semantic_ratio` its
      semantic tokens `[F / r]` as condition/semantic, 0 beyond the record's end.
    """
    step = semantic_ratio or 1
    if frames % step:
        raise ValueError(f"crops of {frames} frames are not whole semantic tokens of {step}")

    def conditions(caption: str) -> dict:
        if states is not None:
            return states.conditions(caption)
        return {"text": to_bytes([caption], caption_bytes)[0]}

    def cut(record: dict, rng: np.random.Generator) -> dict:
        codes_FK = record["codes"].T
        begin = step * rng.integers(0, max(1, (len(codes_FK) - frames) // step + 1))
        codes_FK, mask_F = _window(codes_FK, begin, frames)
        beside = {} if melody is None else melody.conditions(record, begin, mask_F.sum())
        if semantic_ratio is not None:
            beside["condition/semantic"] = _window(
                record["semantic"], begin // step, frames // step
            )[0]
        return {"codes": codes_FK.T, "mask": mask_F, **conditions(record["caption"]), **beside}

    return cut


def segments(source, samples: int, batch: int) -> Iterator[dict]:
    """All records in order as consecutive windows: audio `[batch, samples, C]`, mask, index.

    The last window of a record and the last batch are padded, with a mask of False.
    """
    rows = []
    for index in range(len(source)):
        audio_SC = source[index]["audio"]
        for begin in range(0, len(audio_SC), samples):
            audio, mask = _window(audio_SC, begin, samples)
            rows.append({"audio": audio, "mask": mask, "index": np.int32(index)})
            if len(rows) == batch:
                yield _stack(rows)
                rows = []
    if rows:
        empty = {name: np.zeros_like(value) for name, value in rows[0].items()}
        yield _stack(rows + [empty] * (batch - len(rows)))


def _window(array: np.ndarray, begin: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    piece = array[begin : begin + size]
    mask = np.zeros(size, bool)
    mask[: len(piece)] = True
    if len(piece) == size:
        return piece, mask
    padded = np.zeros((size, *array.shape[1:]), array.dtype)
    padded[: len(piece)] = piece
    return padded, mask


def _stack(rows: list[dict], out: dict | None = None) -> dict:
    found = {}
    for name in rows[0]:
        values = [np.asarray(row[name]) for row in rows]
        place = (out or {}).get(name)
        fits = place is not None and place.shape == (len(values), *values[0].shape)
        fits = fits and all(value.dtype == place.dtype for value in values)
        found[name] = np.stack(values, out=place if fits else None)
    return found
