"""FLOPs that a model needs, read off what is differentiated before any compiler sees it."""

import math

import jax
from jax.extend import core
from jax.interpreters import partial_eval

from rvq_jax.plan.flops import pairs
from rvq_jax.train.runs import Run


def model_flops(run: Run) -> float:
    """FLOPs of one update of the whole batch: forward and backward, nothing recomputed.

    Products of matrices and convolutions, a multiply-add as two; attention counts every pair of
    positions, those too that a causal mask hides.
    """
    run = run.without_remat()
    made = run.task()

    def update(batch, key):
        params = made.init(key)
        gradient = jax.value_and_grad(made.loss, has_aux=True)
        return gradient(params, made.aux, batch, key)

    key = jax.eval_shape(lambda: jax.random.key(0))
    return of_jaxpr(jax.make_jaxpr(update)(run.batch_shapes(), key).jaxpr)


def of_jaxpr(jaxpr) -> float:
    """FLOPs of a program in JAX's own terms; a loop of unknown length counts as one.

    What nothing comes of does not count: a pullback computes all gradients, also those that are
    then thrown away, and no compiler leaves them in.
    """
    return _count(partial_eval.dce_jaxpr(jaxpr, True)[0])


def _count(jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            summed = params["dimension_numbers"][0][0]
            left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            total += 2.0 * math.prod(out) * math.prod(left[axis] for axis in summed)
        elif name == "conv_general_dilated":
            total += _convolution(equation)
        times = params["length"] if name == "scan" else 1
        for inner in _inner(params):
            total += times * _count(inner)
    return total


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
