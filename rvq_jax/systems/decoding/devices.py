"""Where generation runs: parameters and rows on one device, or over those of a mesh.

A model is loaded onto a mesh; whatever is asked of it then runs there. Codec and text encoder are
on the first device.
"""

import contextlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from rvq_jax import meshes
from rvq_jax.lm import precision as precisions
from rvq_jax.lm.precision import Precision


def place_params(
    params: nnx.State, precision: Precision = "float32", mesh: Mesh | None = None
) -> nnx.State:
    """Parameters that were read, on the devices that decode, in fewer bits there already.

    Args:
      params: of numpy, with lists of layers.
      precision: that they are kept in.
      mesh: of devices, over which they are split by the table of axes; None for one device.

    Returns:
      The parameters.

    Raises:
      UserError: a precision that there is not.
    """
    params = precisions.cast(params, precision)
    return jax.device_put(params, None if mesh is None else meshes.of_params(params, mesh))


class Rows(NamedTuple):
    """Rows of a request, on the devices that parameters live on."""

    mesh: Mesh | None  # None: one device
    count: int  # B

    @classmethod
    def of(cls, params: nnx.State, count: int) -> "Rows":
        """So many rows where these parameters are."""
        return cls(meshes.of(params), count)

    def place(self, tree):
        """Arrays `[B, …]` split over data and fsdp; up to a number that these divide the last row
        is there again, and what comes of that is to be left out."""
        if self.mesh is None:
            return tree
        ways = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        rows = jnp.minimum(jnp.arange(self.count + -self.count % ways), self.count - 1)
        return jax.device_put(
            jax.tree.map(lambda x: jnp.asarray(x)[rows], tree), meshes.of_rows(self.mesh)
        )

    def running(self) -> contextlib.AbstractContextManager:
        """What programs are called in."""
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)
