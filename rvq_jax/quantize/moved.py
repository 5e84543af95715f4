"""What of a quantizer an optimizer moves, and what follows running means or stays."""

import dataclasses

import jax
import jax.numpy as jnp

from rvq_jax.quantize.arrangements import State
from rvq_jax.quantize.learn import Frozen, Gradient, Learning
from rvq_jax.quantize.state import Codebooks
from rvq_jax.trees import named
from rvq_jax.typing import Array

# Fields of a state that no gradient reaches.
STATISTICS = ("sums", "counts", "sizes", "frozen")


def divide(state: State, learning: Learning) -> tuple[dict[str, Array], dict[str, Array]]:
    """The arrays of a state by name: those that an optimizer moves, and the others.

    Under `Gradient` it moves codewords and maps. Under `EMA` codewords follow running means, and
    it moves the maps alone, as Mimi's around its codebooks. Under `Frozen` it moves nothing.

    Args:
      state: the quantizer.
      learning: how its codebooks learn.

    Returns:
      Two dicts of arrays by path, which `unite` puts together again.
    """
    kept = STATISTICS if isinstance(learning, Gradient) else (*STATISTICS, "vectors")
    moved, others = {}, {}
    for name, leaf in named(state).items():
        still = isinstance(learning, Frozen) or name.rsplit("/", 1)[-1] in kept
        (others if still else moved)[name] = leaf
    return moved, others


def unite(like: State, *parts: dict[str, Array]) -> State:
    """A state of the structure of `like`, of arrays by path; of those that two parts have the
    later one's count."""
    arrays = {name: leaf for part in parts for name, leaf in part.items()}
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in named(like)])


def settled(state: State) -> State:
    """A state whose running means are those of its codewords, as if each had long been used.

    Their use is what `counts` say, or else the same for all: codewords that come without it would
    be taken for dead ones, and those of another project count vectors, not shares of them.
    """

    def settle(books):
        if not isinstance(books, Codebooks):
            return books
        total_K = books.counts.sum(-1, keepdims=True)
        shares_KN = jnp.where(
            total_K > 0, books.counts / jnp.maximum(total_K, 1e-30), 1 / books.size
        )
        sums_KND = books.vectors * shares_KN[..., None]
        return dataclasses.replace(books, sums=sums_KND, counts=shares_KN)

    return jax.tree.map(settle, state, is_leaf=lambda x: isinstance(x, Codebooks))
