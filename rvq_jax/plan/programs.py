"""The training step that a plan compiles: a run's own, of shapes alone."""

from typing import NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rvq_jax.axes import RULES
from rvq_jax.train.runs import Run, check_batch
from rvq_jax.train.state import Task, TrainState, abstract_state, make_program


class Step(NamedTuple):
    """A training step and the shapes it takes."""

    task: Task
    run: Run
    mesh: Mesh
    state: TrainState
    batch: dict

    def lower(self):
        """The step, traced for its mesh and ready to compile."""
        program = make_program(self.task, self.run.optimizer, self.run.loop.steps, self.mesh)
        return program.step.lower(self.state, self.batch)


def step(run: Run, mesh: Mesh) -> Step:
    """The training step of a run, of shapes alone; raises UserError for a batch that the mesh
    cannot share out, or for a run that starts from a model."""
    check_batch(run, mesh)
    task = run.task()
    split = NamedSharding(mesh, PartitionSpec(RULES["batch"]))
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split), run.batch_shapes()
    )
    state = abstract_state(task, run.optimizer, run.loop.steps, mesh)
    return Step(task, run, mesh, state, batch)
