"""What every kind of run does with its batches: shared out over devices and processes."""

import jax
from jax.sharding import Mesh

from rvq_jax.data import loader
from rvq_jax.errors import UserError
from rvq_jax.train import hosts, sharding


def batches_of(source, cut, run, mesh: Mesh):
    """This process's share of every batch of a run.

    Args:
      source: records, with random access.
      cut: (record, random generator) -> an example.
      run: its batch and seed.
      mesh: of devices, which says what rows this process feeds.

    Returns:
      An endless iterator of batches with a state (see `rvq_jax.data.loader.batches`).
    """
    return loader.batches(source, cut, run.batch, run.loop.seed, hosts.rows(mesh, run.batch))


def check_batch(run, mesh: Mesh) -> None:
    """Raises UserError for a batch that devices and parts cannot share out evenly."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"] * run.optimizer.accumulate
    if run.batch < 1 or run.batch % ways:
        raise UserError(
            f"batch is {run.batch} and must be a multiple of {ways}: of the devices that share it, "
            "and of optimizer.accumulate"
        )


def one_device() -> Mesh:
    """The first device alone."""
    return sharding.make_mesh(devices=jax.devices()[:1])
