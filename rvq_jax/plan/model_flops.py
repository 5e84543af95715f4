"""FLOPs that a model needs, read off what is differentiated before any compiler sees it."""

import math
import re

import jax
from jax.extend import core
from jax.interpreters import partial_eval

from rvq_jax.lm.attention import CAUSAL
from rvq_jax.plan import kernels
from rvq_jax.plan.flops import pairs
from rvq_jax.train.runs import Run


def model_flops(run: Run) -> float:
    """FLOPs of one update of the whole batch: forward and backward, nothing recomputed.

    Products of matrices and convolutions, a multiply-add as two. Attention counts the pairs of
    positions that a causal mask shows: kernels leave out the others, and a model's FLOPs above
    those that are executed would be none.
    """
    run = run.computed("nothing", "xla")
    made = run.task()

    def update(batch, key):
        params = made.init(key)
        gradient = jax.value_and_grad(made.loss, has_aux=True)
        return gradient(params, made.aux, batch, key)

    key = jax.eval_shape(lambda: jax.random.key(0))
    return of_jaxpr(jax.make_jaxpr(update)(run.batch_shapes(), key).jaxpr, needed=True)


def of_jaxpr(jaxpr, needed: bool = False) -> float:
    """Counts the FLOPs of a program in JAX's own terms; a loop of unknown length counts as one,
    of branches the dearest.

    What nothing comes of does not count: a pullback computes all gradients, also those that are
    then thrown away, and no compiler leaves them in.

    Args:
      jaxpr: the program; kernels in it count by formula (see `kernels`).
      needed: leave out what a causal mask hides, which XLA's form of attention works out too.

    Returns:
      The FLOPs, of all devices together; of a kernel that is not known none.
    """
    return _count(partial_eval.dce_jaxpr(jaxpr, True)[0], needed, 1.0)


def _count(jaxpr, needed: bool, shown: float) -> float:
    """shown: the share of products of scores that counts."""
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            summed = params["dimension_numbers"][0][0]
            left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            total += shown * 2.0 * math.prod(out) * math.prod(left[axis] for axis in summed)
        elif name == "pallas_call":
            total += _kernel(equation)
            continue
        elif name == "conv_general_dilated":
            total += _convolution(equation)
        times = params["length"] if name == "scan" else 1
        times *= math.prod(params["mesh"].shape.values()) if name == "shard_map" else 1
        part = shown
        if needed and (named := re.search(CAUSAL + r"_(\d+)", str(params.get("name")))):
            part = (int(named[1]) + 1) / (2 * int(named[1]))
        counts = [_count(inner, needed, part) for inner in _inner(params)]
        # One branch runs, of those for several platforms as of all others.
        total += times * (max(counts, default=0.0) if name == "cond" else sum(counts))
    return total


def _kernel(equation) -> float:
    params = equation.params
    notes = f"{params.get('metadata')} {params.get('cost_estimate')}"
    operands = [
        (x.aval.dtype.kind not in "biu", x.aval.shape)
        for x in equation.invars
        if hasattr(x.aval, "dtype")
    ]
    results = [x.aval.shape for x in equation.outvars]
    name = f"{params.get('name')} {params.get('name_and_src_info')}"
    found = kernels.estimated(notes) or kernels.splash(name, notes, operands, results)
    return found.flops if found else 0.0


def _convolution(equation) -> float:
    params, numbers = equation.params, equation.params["dimension_numbers"]
    left, right = (x.aval.shape for x in equation.invars)
    out = equation.outvars[0].aval.shape
    batch, feature, *places = numbers.out_spec
    total = 2.0 * out[batch] * out[feature] * right[numbers.rhs_spec[1]]
    for axis, place in enumerate(places):
        total *= pairs(
            left[numbers.lhs_spec[2 + axis]],
            right[numbers.rhs_spec[2 + axis]],
            out[place],
            stride=params["window_strides"][axis],
            before=params["padding"][axis][0],
            hole=params["lhs_dilation"][axis],
            spread=params["rhs_dilation"][axis],
        )
    return total


def _inner(params: dict):
    """The programs that an equation runs."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item
