"""Low-rank adapters: a model is tuned by small matrices added to its frozen weights.

Adapters are a plain dict, weight's path -> {"a": [.., rank, fan_in], "b": [.., fan_out, rank]},
with the leading axes of stacked weights. Training differentiates through `merge`.
"""

import math
import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from rvq_jax import draws, files
from rvq_jax.typing import Array, Key

# Axes that come out and axes that go in of each weight: query maps D to (H, E), out (H, E) to D.
AXES = {
    "query": (2, 1),
    "key_value": (2, 1),
    "out": (1, 2),
    "gate": (1, 1),
    "up": (1, 1),
    "down": (1, 1),
}
# A variable of nnx adds a "value" of its own to the path of its array.
ADAPTED = re.compile(
    r"(?:^|/)(?:attend_(?:self|cross)/(query|key_value|out)|(gate|up|down))(?:/value)?$"
)


@dataclass(frozen=True)
class LoRAConfig:
    """Weights become w + alpha / rank · b @ a (Hu et al. 2021)."""

    rank: int | None = 8  # None: no adapters, all weights are trained
    alpha: float = 16.0  # what adapters add is scaled by alpha / rank


def init(key: Key, params, config: LoRAConfig) -> dict[str, dict[str, Array]]:
    """Adapters of every attention and feed-forward weight of the blocks in a tree of parameters.

    They begin by changing nothing: a is normal with standard deviation 1 / sqrt(fan_in), b is 0.
    Raises ValueError if rank is below 1 or params has no such weight.
    """
    if config.rank is None or config.rank < 1:
        raise ValueError(f"rank must be at least 1, it is {config.rank}")
    shapes = {path: as_matrix(path, leaf.shape) for path, leaf in files.named(params).items()}
    shapes = {path: shape for path, shape in shapes.items() if shape is not None}
    if not shapes:
        raise ValueError("params has no attention or feed-forward weight of a transformer block")

    def pair(key: Key, shape: tuple[int, ...]) -> dict[str, Array]:
        *layers, fan_out, fan_in = shape
        a = draws.normal(key, (*layers, config.rank, fan_in), fan_in**-0.5)
        return {"a": a, "b": jnp.zeros((*layers, fan_out, config.rank))}

    keys = jax.random.split(key, len(shapes))
    return {path: pair(key, shapes[path]) for path, key in zip(shapes, keys, strict=True)}


def merge(params, adapters: dict[str, dict[str, Array]], config: LoRAConfig):
    """Parameters with the adapters added in float32; all other leaves are the same objects.

    Raises ValueError for adapters of weights that params has not, or of another rank.
    """
    leaves = files.named(params)
    if unknown := adapters.keys() - leaves.keys():
        raise ValueError(f"params has no weight {min(unknown)!r} to adapt")
    for path, pair in adapters.items():
        if (rank := pair["a"].shape[-2]) != config.rank:
            raise ValueError(f"{path} has adapters of rank {rank}, the config says {config.rank}")
        leaves[path] = _moved(leaves[path], pair, config.alpha / config.rank)
    return jax.tree.unflatten(jax.tree.structure(params), list(leaves.values()))


@jax.jit
def _moved(weight: Array, pair: dict[str, Array], scale: float) -> Array:
    product = jnp.matmul(pair["b"], pair["a"], precision="highest").reshape(weight.shape)
    return (weight.astype(jnp.float32) + scale * product).astype(weight.dtype)


def as_matrix(path: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Shape `[fan_out, fan_in]` of a weight, or `[…, …]` if stacked; None if not adapted."""
    found = ADAPTED.search(path)
    if found is None:
        return None
    out, into = AXES[found[found.lastindex]]
    layers, split = len(shape) - into - out, len(shape) - into
    return (*shape[:layers], math.prod(shape[layers:split]), math.prod(shape[split:]))


def fan_axes(path: str, axes: tuple) -> tuple:
    """Names of the first axis that goes into an adapted weight, and the first that comes out."""
    found = ADAPTED.search(path)
    out, into = AXES[found[found.lastindex]]
    return axes[-into], axes[-into - out]
