"""A mesh of devices, and where on it parameters and rows live by the table of axes."""

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
        value = leaf.get_value()
        split = spec(leaf.axes, value.shape, mesh)
        # Of a weight in several arrays, the others have its first axes.
        return leaf.replace(
            jax.tree.map(lambda x: NamedSharding(mesh, PartitionSpec(*split[: x.ndim])), value)
        )

    return jax.tree.map(place, params, is_leaf=lambda x: isinstance(x, nnx.Variable))


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def of_rows(mesh: Mesh) -> NamedSharding:
    """Rows `[B, …]` split over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def of(params) -> Mesh | None:
    """The mesh of several devices that parameters live on; None for one device, or numpy."""
    for leaf in jax.tree.leaves(params)[:1]:
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1:
            return sharding.mesh
    return None
