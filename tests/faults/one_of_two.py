"""One process of a pair that trains the small codec or token model on eight devices together."""

import sys
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from small_runs import TUNED_SLOWLY, mesh_parts, one_window

from rvq_jax.train import hosts, joining, sharding
from rvq_jax.train.joining import Hosts
from rvq_jax.train.loop import LoopConfig, fit


def main(kind: str, folder: Path, coordinator: str, process: int) -> None:
    joining.join(Hosts(coordinator, 2, process, wait=60, heartbeat=10))
    mesh = sharding.make_mesh(2, 2, 2)
    task, batches = mesh_parts(kind, hosts.rows(mesh, 8))
    config = LoopConfig(steps=50, log_every=1, checkpoint_every=100)
    with one_window():
        state = fit(folder, task, batches, config, TUNED_SLOWLY, mesh=mesh)
    leaves = jax.tree.leaves(hosts.fetch((state.params, state.ema, state.aux)))
    if hosts.first():
        np.savez(folder / "state.npz", *leaves)
    hosts.together("written")


if __name__ == "__main__":
    kind, folder, coordinator, process = sys.argv[1:]
    main(kind, Path(folder), coordinator, int(process))
