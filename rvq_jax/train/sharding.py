"""One mesh and one table: where every axis of every array lives."""

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rvq_jax.errors import UserError

AXES = ("data", "fsdp", "model")

# Logical axis of an array -> mesh axes it is split over. Codebooks have none: every device keeps
# them whole, and their statistics are reduced over the batch.
RULES = {
    "batch": ("data", "fsdp"),
    "embed": ("fsdp",),
    "heads": ("model",),
    "mlp": ("model",),
    "vocab": ("model",),
}


def make_mesh(data: int = -1, fsdp: int = 1, model: int = 1, devices=None) -> Mesh:
    """A mesh of axes data, fsdp, model; -1 for data takes all remaining devices.

    Raises UserError if the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if data == -1:
        data = len(devices) // (fsdp * model)
    shape = (data, fsdp, model)
    if int(np.prod(shape)) != len(devices):
        raise UserError(
            f"mesh data × fsdp × model = {' × '.join(map(str, shape))} "
            f"does not use the {len(devices)} devices there are; change the mesh fields"
        )
    # Explicit axes, the default, refuse codebook lookups whose output sharding is not spelled out.
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def spec(axes: tuple, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
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


def of_params(params, mesh: Mesh):
    """A sharding for every array of a tree: of variables from the `axes` they were given, others
    whole."""

    def place(leaf):
        if not isinstance(leaf, nnx.Variable):
            return replicated(mesh)
        shape = leaf.get_value().shape
        return leaf.replace(NamedSharding(mesh, spec(leaf.axes, shape, mesh)))

    return jax.tree.map(place, params, is_leaf=lambda x: isinstance(x, nnx.Variable))


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place_batch(batch: dict, mesh: Mesh) -> dict:
    """This process's rows `[B, …]` of a batch as global arrays, split over data and fsdp."""
    sharding = NamedSharding(mesh, PartitionSpec(RULES["batch"]))
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(value))
        for name, value in batch.items()
    }
