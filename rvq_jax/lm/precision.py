"""Parameters in fewer bits, for decoding, which takes as long as reading them takes.

In bfloat16 all of them; in int8 the matrices of the blocks alone, with a scale for each output, as
embeddings, norms, heads and what reads conditions are few bytes and decide more. Activations and
the cache are bfloat16 in both; norms' statistics, attention's weights and logits float32.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from rvq_jax import files
from rvq_jax.errors import UserError
from rvq_jax.lm import lora
from rvq_jax.trees import pytree
from rvq_jax.typing import Array

Precision = Literal["float32", "bfloat16", "int8"]
STEPS = 127  # of int8 on each side of zero


@pytree
@dataclass(frozen=True)
class Int8:
    """A weight `[…, D]` as whole numbers, and how much one is worth in each of its outputs."""

    values: Array  # [..., D] int8, or [..., H, E] where heads go in
    scale: Array  # [...] float32, of the axes that come out

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's."""
        return self.values.shape

    def __getitem__(self, index) -> "Int8":
        """Of leading axes, as of an array."""
        return self if index is Ellipsis else Int8(self.values[index], self.scale[index])


def to_int8(weight: Array, axes_in: int) -> Int8:
    """A weight whose last axes go in, each output rounded to the nearest of 255 steps.

    Args:
      weight: `[…, D]`, of numpy or jax.
      axes_in: how many of its axes a sum runs over.

    Returns:
      The weight, within half a step of what it was.
    """
    xp = np if isinstance(weight, np.ndarray) else jnp
    weight, last = xp.asarray(weight, np.float32), tuple(range(-axes_in, 0))
    scale = xp.abs(weight).max(last) / STEPS
    scale = xp.where(scale > 0, scale, 1).astype(np.float32)
    values = xp.round(weight / xp.expand_dims(scale, last)).astype(np.int8)
    return Int8(values, scale)


def split(weight: Array | Int8) -> tuple[Array, Array | None]:
    """The numbers that a product is made of, and the scale of its outputs; None for none."""
    return (weight.values, weight.scale) if isinstance(weight, Int8) else (weight, None)


def cast(params, precision: Precision):
    """Parameters as they are kept for decoding.

    Args:
      params: with lists of layers, in float32; of numpy they stay where they are.
      precision: float32 leaves them as they are.

    Returns:
      The tree, in which matrices may be `Int8`.

    Raises:
      UserError: a precision that there is not.
    """
    if precision not in get_args(Precision):
        known = ", ".join(get_args(Precision))
        raise UserError(f"precision {precision!r} is none of {known}; choose one of these")
    if precision == "float32":
        return params

    def leaf(name: str, x):
        found = lora.ADAPTED.search(name) if precision == "int8" else None
        # What reads conditions runs once, not at every step.
        if found is None or name.startswith("readers/"):
            return x.astype(jnp.bfloat16) if x.dtype == np.float32 else x
        return to_int8(x, lora.AXES[found[found.lastindex]][1])

    leaves = [leaf(name, x) for name, x in files.named(params).items()]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def computed(config, precision: Precision):
    """The config of a model whose parameters are of a precision: of small ones in bfloat16."""
    return config if precision == "float32" else replace(config, dtype="bfloat16")


def of(params) -> Precision:
    """The precision of parameters."""
    kinds = {x.dtype.name for x in jax.tree.leaves(params)}
    return next((name for name in ("int8", "bfloat16") if name in kinds), "float32")


def check_whole(params, what: str) -> None:
    """Raises UserError for parameters in fewer bits, of which `what` cannot be done."""
    if (have := of(params)) != "float32":
        raise UserError(f"a model in {have} cannot be {what}: load it in float32 for that")


def logits_type(weight: Array) -> jnp.dtype | None:
    """float32 for heads kept in fewer bits, as no gradient has to come back through them."""
    return None if weight.dtype == np.float32 else jnp.dtype("float32")
