"""What every kind of run does with its batches: shared out over devices and processes."""

import itertools

import jax
from jax.sharding import Mesh

from rvq_jax.data import loader
from rvq_jax.errors import UserError
from rvq_jax.train import heldout, hosts, sharding


def batches_of(source, cut, run, mesh: Mesh, workers: int = 0):
    """This process's share of every batch of a run.

    Args:
      source: records, with random access.
      cut: (record, random generator) -> an example.
      run: its batch and seed.
      mesh: of devices, which says what rows this process feeds.
      workers: processes that make them.

    Returns:
      An endless iterator of batches with a state (see `rvq_jax.data.loader.batches`).
    """
    rows = hosts.rows(mesh, run.batch)
    return loader.batches(source, cut, run.batch, run.loop.seed, rows, workers)


def heldout_batches(source, cut, run, mesh: Mesh) -> list[dict]:
    """This process's share of what a run is evaluated on: the same crops of held-out records for
    every seed, as many as a few batches of it have, in batches the size of their parts.

    Args:
      source: held-out records, with random access; None where there are none.
      cut: as of `batches_of`.
      run: its batch, and in how many parts it is worked through.
      mesh: of devices.

    Returns:
      Batches.
    """
    if source is None:
        return []
    parts = run.optimizer.accumulate
    rows = run.batch // parts
    found = loader.batches(source, cut, rows, 0, hosts.rows(mesh, rows))
    return list(itertools.islice(found, heldout.BATCHES * parts))


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
