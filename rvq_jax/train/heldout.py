"""Held-out data of a run: that they are held out, and what the weights make of them."""

import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.train import sharding
from rvq_jax.train.hosts import warn

BATCHES = 8  # of an evaluation


def evaluate(program: Callable, params, aux, batches: Sequence[dict], mesh: Mesh) -> dict:
    """Means over held-out batches of what a model makes of them.

    Args:
      program: as of `Program.evaluate`.
      params: of the model.
      aux: as of `Task`.
      batches: this process's share of each.
      mesh: of devices.

    Returns:
      Fields of the log: `heldout`, means by name, lists of those by level, and `heldout_seconds`.
    """
    jax.block_until_ready((params, aux))  # of the update before, whose time is not this one's
    began = time.perf_counter()
    found = [program(params, aux, sharding.place_batch(x, mesh)) for x in batches]
    found = jax.device_get(found)
    # Sums of one batch are in float32, those of all in float64.
    weight = sum(float(weight) for _, weight in found)
    totals = jax.tree.map(lambda *x: np.sum(x, axis=0, dtype=np.float64), *(x for x, _ in found))
    means = {name: (x / (weight or np.nan)).tolist() for name, x in totals.items()}
    return {"heldout": means, "heldout_seconds": round(time.perf_counter() - began, 3)}


def check_codes(train: CodeSet, heldout: CodeSet) -> None:
    """Warns of held-out codes that are trained on too; raises UserError if all of them are, or if
    they are no codes of the same kind."""
    kinds = {(len(x.codes[0]), x.codebook_size, x.melody_bins) for x in (train, heldout)}
    codecs = {train.codec, heldout.codec} - {None}
    if len(kinds) > 1 or len(codecs) > 1:
        raise UserError(
            "the held-out codes are not of the codec and the kind of those trained on; make both "
            "by one `rvq-jax data build --codes`, or move them away"
        )
    apart = {x.tobytes() for x in heldout.codes}
    seen = {x.tobytes() for x in train.codes if x.tobytes() in apart}
    shared = sum(x.tobytes() in seen for x in heldout.codes)
    if shared == len(heldout):
        raise UserError("the held-out codes are trained on: give others, or none")
    if shared:
        warn(f"{shared} of {len(heldout)} held-out records are trained on too")


def check_records(train, heldout) -> None:
    """Raises UserError for held-out audio that is trained on, as far as its files say."""
    files = [set(getattr(x, "shards", ())) for x in (train, heldout)]
    if files[0] & files[1] or train is heldout or train.describe() == heldout.describe():
        raise UserError("the held-out audio is trained on: give other records, or none")
