"""The ways to run a stack of layers: it is described once, as calls of `run(layer, x)`.

Whole(edges)    every layer sees all of time, or items marked by edges inside it
Stream(states)  the next block of a stream: every layer has a state, and gives its next one
Survey()        how far the stack sees, without computing it
"""

from fractions import Fraction

from rvq_jax.codec.edges import Edges
from rvq_jax.typing import Array


def through(half, x: Array, run=None) -> Array:
    """An encoder or decoder from end to end; by default over a whole array."""
    run = run or Whole()
    x = half.front(x, run)
    x = x if half.middle is None else run(half.middle, x)
    return half.back(x, run)


class Whole:
    """Layers over whole arrays, or over the items that `edges` mark in them."""

    def __init__(self, edges: Edges | None = None):
        self.edges = edges

    def __call__(self, layer, x: Array) -> Array:
        y = layer(x, self.edges)
        self.edges = layer.moves(self.edges) if self.edges else None
        return y


class Stream:
    """Layers over the next block of a stream; `states` are those of the block before.

    None for the first block. edges: where the stream ends, if it ends in this block. `next` is a
    tuple of the states after this block, in the order in which the layers ran.
    """

    def __init__(self, states: tuple | None, edges: Edges | None = None):
        self.states, self.edges = states, edges
        self.next = ()

    def __call__(self, layer, x: Array) -> Array:
        state = None if self.states is None else self.states[len(self.next)]
        y, state = layer.step(x, state, self.edges)
        self.next += (state,)
        self.edges = layer.moves(self.edges) if self.edges else None
        return y


class Survey:
    """What a stack needs, at the rate of its input; run it under `jax.eval_shape`.

    sides: steps that an output sees to either side, an upper bound (of two branches both count).
    start: steps from which every layer can mirror its beginning.
    """

    edges = None

    def __init__(self):
        self.sides, self.start, self.rate = Fraction(0), Fraction(1), Fraction(1)

    def __call__(self, layer, x: Array) -> Array:
        before = x.shape[1]
        y = layer(x)
        self.sides += (layer.reach - 1) / self.rate
        self.start = max(self.start, (layer.reach - layer.stride + 1) / self.rate)
        self.rate *= Fraction(y.shape[1], before)
        return y
