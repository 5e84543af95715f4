"""Checkpoints of a run: state and data position together, atomic; the one user of orbax."""

import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
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
        self._check(like)
        try:
            loaded = self._checkpointer.load_checkpointables(
                self.latest(), dict(state=abstract, data=data)
            )
        except (ValueError, KeyError) as error:
            # orbax prints whole trees of shapes into its message.
            first = textwrap.shorten(str(error).strip().splitlines()[0], 200)
            raise UserError(
                f"{self.folder} holds checkpoints of another model ({first}); choose another --out"
            ) from error
        return loaded["state"]

    def _check(self, like: TrainState) -> None:
        """Raises UserError if the newest state has other arrays: orbax, in the middle of reading,
        would leave tasks behind that complain when they are collected."""
        place = self.folder / str(self.latest())
        try:
            saved = _shapes(ocp.metadata(place, checkpointable_name="state").metadata)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{place} cannot be read ({error}); delete it") from error
        want = _shapes(jax.eval_shape(_raw_keys, like))
        for name in sorted(saved.keys() | want.keys()):
            if saved.get(name) != want.get(name):
                raise UserError(
                    f"{self.folder} holds checkpoints of another model ({name}: "
                    f"{saved.get(name)} there, {want.get(name)} here); choose another --out"
                )


def _shapes(tree) -> dict[str, tuple]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(x.shape) for path, x in leaves
    }


def _raw_keys(tree):
    """Random keys as the integers that are stored."""
    return jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x,
        tree,
    )
