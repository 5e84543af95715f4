"""A mesh of devices, and where on it parameters and batches live by the table of axes."""

import jax
import numpy as np
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rvq_jax.axes import MESH, RULES, spec
from rvq_jax.errors import UserError


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices=None) -> Mesh:
    """A mesh of the axes data, fsdp and tensor.

    Args:
      data: devices that share the batch; -1 takes all that remain.
      fsdp: devices that share the batch and split parameters.
      tensor: devices that split heads, feed-forwards and the vocabulary.
      devices: all there are by default.

    Returns:
      The mesh.

    Raises:
      UserError: sizes that do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if data == -1:
        data = len(devices) // (fsdp * tensor)
    shape = (data, fsdp, tensor)
    if int(np.prod(shape)) != len(devices):
        raise UserError(
            f"mesh data × fsdp × tensor = {' × '.join(map(str, shape))} "
            f"does not use the {len(devices)} devices there are; change the mesh fields"
        )
    # Explicit axes, the default, refuse codebook lookups whose output sharding is not spelled out.
    # Where no axis of the torus fits one of ours it is cut, which jax.make_mesh refuses.
    placed = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(placed, MESH, axis_types=(AxisType.Auto,) * 3)


def of_params(params, mesh: Mesh):
    """A sharding for every array of a tree: of variables from the `axes` they were given, others
    whole."""

    def place(leaf):
        if not isinstance(leaf, nnx.Variable):
            return replicated(mesh)
        shape = leaf.get_value().shape
        return leaf.replace(NamedSharding(mesh, spec(leaf.axes, shape, mesh)))

    return jax.tree.map(place, params, is_leaf=lambda x: isinstance(x, nnx.Variable))


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
