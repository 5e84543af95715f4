"""Where each of our arrays lies in another project's file: names and axes, read both ways.

A layout maps the name of one of our leaves ('encoder/first/bias') to the names of the tensors it is
made of and the order of axes that turns them into ours.
"""

from typing import NamedTuple

import numpy as np

CONV = (2, 1, 0)  # [out, in, width] to [width, in, out]
TRANSPOSED = (2, 0, 1)  # [in, out, width] to [width, in, out]
MATRIX = (1, 0)  # [out, in] to [in, out]
POINTWISE = (1, 0), (2,)  # [out, in, 1] to [in, out]
SAME = ()  # as it is


class Place(NamedTuple):
    """Names of tensors, and how they lie in ours.

    names: one name; a list: stacked along a new first axis; a tuple: side by side, `widths` wide,
    along our last axis. axes: their order in ours, once the axes `ones` that ours lack are gone.
    shape: of ours, if it has more axes than that gives; `flat` is what it gives then.
    """

    names: "str | list | tuple"
    axes: tuple[int, ...] = SAME
    ones: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    flat: tuple[int, ...] = ()


Layout = dict[str, Place]


def shapes(layout: Layout, leaves: dict) -> dict[str, tuple[int, ...]]:
    """The tensors that must be in a file, with their shapes, for leaves of given shapes."""
    return {name: array.shape for name, array in write(layout, _stand_ins(leaves)).items()}


def read(layout: Layout, tensors: dict) -> dict[str, np.ndarray]:
    """Our leaves from a file's tensors."""

    def gather(names, place):
        if isinstance(names, list):
            return np.stack([gather(name, place) for name in names])
        if isinstance(names, tuple):
            return np.concatenate([gather(name, place) for name in names], axis=-1)
        tensor = np.squeeze(tensors[names], place.ones)
        return np.ascontiguousarray(tensor.transpose(place.axes) if place.axes else tensor)

    found = {leaf: gather(place.names, place) for leaf, place in layout.items()}
    return {
        leaf: array.reshape(layout[leaf].shape) if layout[leaf].shape else array
        for leaf, array in found.items()
    }


def write(layout: Layout, leaves: dict) -> dict[str, np.ndarray]:
    """A file's tensors from our leaves, the inverse of `read`."""
    tensors = {}

    def scatter(names, place, array):
        if isinstance(names, list):
            for name, part in zip(names, array, strict=True):
                scatter(name, place, part)
        elif isinstance(names, tuple):
            ends = np.cumsum(place.widths)[:-1]
            for name, part in zip(names, np.split(array, ends, axis=-1), strict=True):
                scatter(name, place, part)
        else:
            tensor = array.transpose(np.argsort(place.axes)) if place.axes else array
            tensors[names] = np.expand_dims(tensor, place.ones)

    for leaf, place in layout.items():
        array = np.asarray(leaves[leaf])
        scatter(place.names, place, array.reshape(place.flat) if place.shape else array)
    return tensors


def _stand_ins(leaves: dict) -> dict[str, np.ndarray]:
    # One number seen as a whole array: shapes without the memory.
    return {name: np.broadcast_to(np.float32(0), leaf.shape) for name, leaf in leaves.items()}
