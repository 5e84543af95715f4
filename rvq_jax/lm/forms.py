"""Token models as pytrees: the graph of a config, and their two forms.

Training stacks the layers' parameters and scans over them; all else has them as lists.
"""

import functools
import re

import jax
import numpy as np
from flax import nnx

from rvq_jax import files
from rvq_jax.lm.model import LMConfig, TokenLM
from rvq_jax.typing import Key

LAYER = re.compile(r"(?<=blocks/)\d+/")


@functools.lru_cache(maxsize=32)
def _parts(config: LMConfig, stacked: bool):
    """The graph of a model and the shapes of its parameters; computes nothing."""
    return nnx.split(nnx.eval_shape(lambda: config.build(nnx.Rngs(0), stacked=stacked)))


def init(config: LMConfig, key: Key) -> nnx.State:
    """Random parameters with stacked layers."""
    return nnx.state(config.build(nnx.Rngs(params=key), stacked=True), nnx.Param)


def abstract(config: LMConfig, stacked: bool = False) -> nnx.State:
    """Shapes of a model's parameters."""
    return _parts(config, stacked)[1]


def model(config: LMConfig, params: nnx.State, stacked: bool = False) -> TokenLM:
    """The module of parameters in either form."""
    return nnx.merge(_parts(config, stacked)[0], params)


def unstack(config: LMConfig, params: nnx.State) -> nnx.State:
    """Parameters with stacked layers as those with lists of layers."""
    have = files.named(params)

    def leaf(name: str):
        layer = LAYER.search(name)
        return have[LAYER.sub("", name)][int(layer[0][:-1])] if layer else have[name]

    return _like(abstract(config), leaf)


def stack(config: LMConfig, params: nnx.State) -> nnx.State:
    """Parameters with lists of layers as those with stacked layers."""
    parts: dict = {}
    for name, array in files.named(params).items():
        parts.setdefault(LAYER.sub("", name), []).append(array)
    lone = {name for name in files.named(params) if not LAYER.search(name)}

    def leaf(name: str):
        return parts[name][0] if name in lone else np.stack(parts[name])

    return _like(abstract(config, stacked=True), leaf)


def _like(shapes: nnx.State, leaf) -> nnx.State:
    return jax.tree.unflatten(jax.tree.structure(shapes), [leaf(n) for n in files.named(shapes)])
