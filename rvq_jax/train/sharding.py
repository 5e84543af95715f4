"""How training lays out what it trains: batches of every process, what devices keep whole."""

import jax
import numpy as np
from jax.sharding import Mesh

from rvq_jax.meshes import make_mesh, of_params, of_rows, replicated

__all__ = ["make_mesh", "of_params", "place_batch", "replicated", "whole"]


def whole(placed) -> list[tuple[str, int]]:
    """(name, bytes) of the arrays of a tree that every device keeps whole, the largest first.

    placed: arrays or shapes with shardings. On one device none is called whole.
    """
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(placed):
        if len(leaf.sharding.device_set) > 1 and leaf.sharding.is_fully_replicated:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            size = leaf.dtype.itemsize * int(np.prod(leaf.shape))
            found.append((name.removesuffix("/value"), size))
    return sorted(found, key=lambda item: -item[1])


def place_batch(batch: dict, mesh: Mesh) -> dict:
    """This process's rows `[B, …]` of a batch as global arrays, split over data and fsdp."""
    sharding = of_rows(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(value))
        for name, value in batch.items()
    }
