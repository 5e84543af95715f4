"""Layers alike: as one stack that is scanned over in training, else as lists."""

import jax
from flax import nnx

from rvq_jax.lm import attention
from rvq_jax.typing import Remat

policies = jax.checkpoint_policies
# What the backward pass keeps of a layer, by what it recomputes.
KEEP = {
    "everything": policies.nothing_saveable,
    "attention": policies.save_from_both_policies(
        policies.dots_with_no_batch_dims_saveable, policies.save_only_these_names(attention.NAME)
    ),
}


def layers(count: int, make, rngs: nnx.Rngs, *, stacked: bool):
    """Builds several layers alike.

    Args:
      count: how many.
      make: from nnx.Rngs to a layer.
      rngs: of the initial weights; every layer has its own.
      stacked: as one module of parameters `[count, …]`, to be scanned over in training; else as a
        list of modules for inference.

    Returns:
      The module or nnx.List.
    """
    if not stacked:
        return nnx.List([make(rngs) for _ in range(count)])
    keys = jax.random.split(rngs.params(), count)
    state = jax.vmap(lambda key: nnx.state(make(nnx.Rngs(params=key))))(keys)
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    return nnx.merge(graphdef, state)


def scan_layers(blocks, x, body, *, remat: Remat = "nothing"):
    """Passes x through all layers; a stack of them compiles once for all.

    Args:
      blocks: what `layers` gave.
      x: what the first layer takes.
      body: (layer, x) -> x.
      remat: what of each layer of a stack the backward pass works out again. Everything: only its
        input is kept. Attention: scores, and all else that is no product with a weight; products
        with weights and what attention gives are kept.

    Returns:
      What the last layer gives.
    """
    if isinstance(blocks, nnx.List):
        for block in blocks:
            x = body(block, x)
        return x
    graphdef, state = nnx.split(blocks)

    def one(x, layer):
        return body(nnx.merge(graphdef, layer), x), None

    if remat != "nothing":
        one = jax.checkpoint(one, policy=KEEP[remat])
    return jax.lax.scan(one, x, state)[0]
