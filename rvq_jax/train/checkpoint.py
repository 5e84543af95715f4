"""Checkpoints of a run: state and data position together, atomic; the one user of orbax."""

from pathlib import Path

import jax
from orbax.checkpoint import v1 as ocp

from rvq_jax.errors import UserError
from rvq_jax.train.state import TrainState


class Checkpoints:
    """A folder of checkpoints by step, the newest `keep` of them kept; use it in a `with`."""

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = Path(folder).absolute()
        try:
            # Both policies are given: orbax's own keep everything and save continuously.
            self._checkpointer = ocp.training.Checkpointer(
                self.folder,
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            )
        except OSError as error:
            raise UserError(
                f"cannot write checkpoints to {folder}: {error.strerror or error}"
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception) -> None:
        self._checkpointer.close()

    def latest(self) -> int | None:
        """The step of the newest checkpoint, None if there is none."""
        newest = self._checkpointer.latest
        return None if newest is None else newest.step

    def save(self, step: int, state: TrainState, data) -> None:
        """Starts to save; the checkpoint appears when it is whole, never before."""
        try:
            self._checkpointer.save_checkpointables_async(step, dict(state=state, data=data))
        except OSError as error:
            raise UserError(
                f"cannot write a checkpoint to {self.folder}: {error.strerror or error}"
            ) from error

    def restore(self, like: TrainState, data) -> TrainState:
        """The newest state, placed as `like` is; moves the data iterator to where it was."""
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        try:
            loaded = self._checkpointer.load_checkpointables(
                self.latest(), dict(state=abstract, data=data)
            )
        except (ValueError, KeyError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"{self.folder} holds checkpoints of another model ({first}); choose another --out"
            ) from error
        return loaded["state"]
