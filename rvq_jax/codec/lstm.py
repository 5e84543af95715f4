"""The recurrent layers between EnCodec's convolutions."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax import draws
from rvq_jax.codec.edges import Edges
from rvq_jax.typing import Array

Carry = tuple[Array, Array]  # hidden and cell [layers, B, D]


class LSTM(nnx.Module):
    """Stacked LSTM layers with a skip around them all (Hochreiter & Schmidhuber 1997).

    Gates in the order input, forget, cell, output; two biases, as published weights have.
    """

    def __init__(self, dim: int, layers: int, rngs: nnx.Rngs):
        self.dim, self.layers = dim, layers
        bound = 1.0 / math.sqrt(dim)

        def draw(*shape):
            return draws.uniform(rngs.params(), shape, bound)

        self.input = nnx.Param(draw(layers, dim, 4 * dim), axes=(None, "embed", "mlp"))
        self.hidden = nnx.Param(draw(layers, dim, 4 * dim), axes=(None, "embed", "mlp"))
        self.bias = nnx.Param(draw(layers, 2, 4 * dim), axes=(None, None, None))

    def moves(self, edges: Edges) -> Edges:
        """Where an item lies after this layer."""
        return edges

    def __call__(self, x_BSD: Array, edges: Edges | None = None) -> Array:
        return self.step(x_BSD, None, edges)[0]

    def step(self, x_BSD: Array, carry: Carry | None, edges: Edges | None = None):
        """The next S outputs `[B, S, D]`, and what the layers carry on; None for the beginning.

        Steps before an item's begin leave the carry as it is.
        """
        if carry is None:
            zeros_LBD = jnp.zeros_like(x_BSD, shape=(self.layers, x_BSD.shape[0], self.dim))
            carry = zeros_LBD, zeros_LBD
        y_SBD = x_BSD.swapaxes(0, 1)
        begun_SB1 = None
        if edges is not None:
            begun_SB1 = (jnp.arange(len(y_SBD))[:, None] >= edges.begin[None])[..., None]
        last = []
        for layer in range(self.layers):
            # All inputs in one product; only the recurrence is sequential.
            bias = self.bias[layer].sum(0).astype(x_BSD.dtype)
            gates_SBG = y_SBD @ self.input[layer].astype(x_BSD.dtype) + bias[None, None]
            hidden_DG = self.hidden[layer].astype(x_BSD.dtype)
            start = carry[0][layer], carry[1][layer]
            end, y_SBD = _recurrence(hidden_DG, start, gates_SBG, begun_SB1)
            last.append(end)
        hidden, cell = zip(*last, strict=True)
        return y_SBD.swapaxes(0, 1) + x_BSD, (jnp.stack(hidden), jnp.stack(cell))


@jax.custom_jvp
def _recurrence(hidden_DG: Array, start: Carry, gates_SBG: Array, begun_SB1: Array | None):
    """One layer's last carry and its outputs `[S, B, D]`, from the inputs' share of the gates."""
    end, (h_SBD, _) = _scan(hidden_DG, start, gates_SBG, begun_SB1)
    return end, h_SBD


@_recurrence.defjvp
def _recurrence_jvp(primals, tangents):
    # A scan's own gradient adds to that of the whole kernel at every step, which is what takes its
    # time on CPU. Here it is one product over all steps, and only what is sequential is scanned.
    hidden_DG, start, gates_SBG, begun_SB1 = primals
    d_hidden_DG, d_start, d_gates_SBG, _ = tangents
    end, (h_SBD, c_SBD) = _scan(hidden_DG, start, gates_SBG, begun_SB1)
    h_before_SBD = jnp.concatenate([start[0][None], h_SBD[:-1]])
    c_before_SBD = jnp.concatenate([start[1][None], c_SBD[:-1]])
    i, f, g, o = jnp.split(gates_SBG + h_before_SBD @ hidden_DG, 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    out = jnp.tanh(f * c_before_SBD + i * g)
    slopes = i * (1 - i) * g, f * (1 - f) * c_before_SBD, i * (1 - g**2), o * (1 - o) * out
    slopes_SBG = jnp.concatenate(slopes, axis=-1)
    # In the layout in which the gradient's steps read it row by row.
    hidden_GD = hidden_DG.T

    def step(carry, inputs):
        d_gates_BG, slopes_BG, forget_BD, through_BD, begun_B1 = inputs
        dh, dc = carry
        d_gates_BG = d_gates_BG + jax.lax.dot_general(dh, hidden_GD, (((1,), (1,)), ((), ())))
        di, df, dg, do = jnp.split(slopes_BG * d_gates_BG, 4, axis=-1)
        dc_new = forget_BD * dc + di + df + dg
        dh_new = do + through_BD * dc_new
        if begun_B1 is not None:
            dh_new, dc_new = jnp.where(begun_B1, dh_new, dh), jnp.where(begun_B1, dc_new, dc)
        return (dh_new, dc_new), dh_new

    d_gates_SBG = d_gates_SBG + h_before_SBD @ d_hidden_DG
    inputs = d_gates_SBG, slopes_SBG, f, o * (1 - out**2), begun_SB1
    return (end, h_SBD), jax.lax.scan(step, d_start, inputs)


def _scan(hidden_DG: Array, start: Carry, gates_SBG: Array, begun_SB1: Array | None):
    """The last carry, and hidden and cell `[S, B, D]` of every step."""

    def step(carry, inputs):
        gates_BG, begun_B1 = inputs
        h, c = carry
        # XLA's product of one row runs on one CPU core, that of two on all.
        recurrent_BG = (jnp.repeat(h, 2, 0) if len(h) == 1 else h) @ hidden_DG
        i, f, g, o = jnp.split(gates_BG + recurrent_BG[: len(h)], 4, axis=-1)
        c_new = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h_new = jax.nn.sigmoid(o) * jnp.tanh(c_new)
        if begun_B1 is not None:
            h_new, c_new = jnp.where(begun_B1, h_new, h), jnp.where(begun_B1, c_new, c)
        return (h_new, c_new), (h_new, c_new)

    return jax.lax.scan(step, start, (gates_SBG, begun_SB1))
