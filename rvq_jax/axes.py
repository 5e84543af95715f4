"""One table: over which axes of a mesh every named axis of an array is split."""

import jax
import numpy as np
from jax.sharding import PartitionSpec

from rvq_jax.typing import Array

MESH = ("data", "fsdp", "tensor")

# Logical axis of an array -> mesh axes it is split over. Codebooks have none: every device keeps
# them whole, and their statistics are reduced over the batch. Time is that of activations between
# the parts of a layer, which all devices of tensor would keep whole (Korthikanti et al. 2022).
RULES = {
    "batch": ("data", "fsdp"),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "time": ("tensor",),
}


def spec(axes: tuple, shape: tuple[int, ...], mesh) -> PartitionSpec:
    """Where an array of these logical axes and this shape lives on the mesh.

    Axes missing in front (stacked layers) are replicated, and so is an axis whose size the mesh
    does not divide (a first layer's one channel). Raises ValueError for an unknown name, or if two
    axes claim the same mesh axis.
    """
    axes = (None,) * (len(shape) - len(axes)) + tuple(axes)
    placed, used = [], set()
    for name, size in zip(axes, shape, strict=True):
        if name is None:
            placed.append(None)
            continue
        if name not in RULES:
            raise ValueError(f"no sharding rule for logical axis {name!r}; known: {list(RULES)}")
        mesh_axes = RULES[name]
        if used & set(mesh_axes):
            raise ValueError(f"axes {axes} claim mesh axis {mesh_axes} twice")
        used |= set(mesh_axes)
        ways = int(np.prod([mesh.shape[axis] for axis in mesh_axes]))
        placed.append(mesh_axes if size % ways == 0 else None)
    return PartitionSpec(*placed)


def place(x: Array, *axes: str | None) -> Array:
    """x, held by the mesh it is traced under as the table says; as it is where there is no mesh.

    Without this XLA may follow the parameters instead of the batch: with parameters split over
    fsdp it kept every example on every device and split their features.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not meshed() or not set(MESH) <= set(mesh.auto_axes):
        return x
    return jax.lax.with_sharding_constraint(x, spec(axes, x.shape, mesh))


def meshed() -> bool:
    """Whether XLA may split what is traced here over several devices of a mesh, whatever its axes.

    Not inside of `jax.shard_map`, where every device has arrays of its own.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return any(mesh.shape[axis] > 1 for axis in mesh.auto_axes)
