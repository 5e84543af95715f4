"""What public functions need to work wherever they are traced: meshes, shard_map, x64, old keys."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from rvq_jax.typing import Array, Key


def portable(run: Callable, given: str, out) -> Callable:
    """A function that can also be traced on a mesh with explicit axes, or inside `jax.shard_map`.

    Explicit axes ask every lookup and scatter how its result is split: inside of it they are
    automatic, so that XLA decides. `jax.shard_map` asks that what a loop carries varies over the
    same devices before and after: all arguments vary over what any does.

    Args:
      run: function of arrays and trees of arrays, the first an array.
      given: the letters of the first argument's shape, 'BFD'.
      out: those of the results, a tree that begins as theirs; each axis is split as the first
        argument's of that letter, or whole.

    Returns:
      The function.
    """

    def call(*args):
        args = varying(*args)
        mesh = _explicit_mesh(args)
        if mesh is None:
            return run(*args)
        split = dict(zip(given, jax.typeof(args[0]).sharding.spec, strict=False))
        placed = jax.tree.map(
            lambda letters: NamedSharding(mesh, PartitionSpec(*map(split.get, letters))), out
        )
        # A program of its own knows its mesh also when a gradient goes back through it.
        return jax.sharding.auto_axes(jax.jit(run), out_sharding=placed)(*args)

    return call


def varying(*trees):
    """The trees, every array of which varies over the devices that any of them varies over.

    Only inside of `jax.shard_map` with its checks does an array say so; elsewhere they are as
    they were.
    """
    leaves, structure = jax.tree.flatten(trees)
    axes = [_varies(x) for x in leaves]
    every = frozenset().union(*axes)
    if every:
        missing = [tuple(sorted(every - own, key=str)) for own in axes]
        leaves = [
            jax.lax.pcast(x, m, to="varying") if m else x
            for x, m in zip(leaves, missing, strict=True)
        ]
    return jax.tree.unflatten(structure, leaves)


def typed(key: Key, name: str = "key") -> Key:
    """A typed key, or keys `[B]`, of one that may be of the old kind (`jax.random.PRNGKey`).

    Raises ValueError for what is no key.
    """
    if not isinstance(key, jax.Array | np.ndarray):
        raise ValueError(f"{name} must be made by jax.random.key, got {type(key).__name__}")
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    if key.dtype != jnp.uint32 or key.ndim < 1:
        raise ValueError(f"{name} must be made by jax.random.key, got an array of {key.dtype}")
    return jax.random.wrap_key_data(key)


def concrete(*trees) -> bool:
    """Whether all values can be looked at: none is traced, none lies on another machine."""
    return all(
        not isinstance(x, jax.core.Tracer) and getattr(x, "is_fully_addressable", True)
        for x in jax.tree.leaves(trees)
    )


def check_concrete(what: str, *trees) -> None:
    """Raises ValueError if `what`, which loops outside of programs, is asked of traced values."""
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(trees)):
        raise ValueError(f"{what} runs block by block on the host: call it outside of jax.jit")


def _varies(x: Array) -> frozenset:
    return jax.typeof(x).manual_axis_type.varying


def _explicit_mesh(args: tuple):
    """The mesh with explicit axes that is set, or that an array lies on; None without one."""
    meshes = [jax.sharding.get_abstract_mesh()]
    meshes += [jax.typeof(x).sharding.mesh for x in jax.tree.leaves(args)]
    explicit = (mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types)
    return next(explicit, None)
