"""Every lookup and every arrangement of the quantizer family, small."""

import jax
import jax.numpy as jnp

from rvq_jax import quantize as q

DIM = 8


LEVELS = 3


LOOKUPS = {
    "euclidean": lambda key, k, d: q.init(key, k, 16, d),
    "sizes": lambda key, k, d: q.init(key, k, [16, 7, 4][:k], d),
    "cosine": lambda key, k, d: q.Cosine.init(key, k, 16, d),
    "projected": lambda key, k, d: q.Projected.init(key, k, 16, d, code_dim=3),
    "projected fsq": lambda key, k, d: q.Projected.around(key, d, q.FSQ.init(k, (4, 3))),
    "simvq": lambda key, k, d: q.SimVQ.init(key, k, 16, d),
    "shared": lambda key, k, d: q.Shared.init(key, k, 16, d),
    "fsq": lambda key, k, d: q.FSQ.init(k, (3, 4, 2, 3, 2, 2, 2, 2)[:d]),
    "lfq": lambda key, k, d: q.LFQ.init(k, d),
    "qinco": lambda key, k, d: moved(q.QINCo.init(key, k, 16, d, hidden=8)),
}


def moved(state):
    """Maps that do something: at its start a QINCo is plain."""
    noise = [
        0.1 * jax.random.normal(jax.random.key(i), x.shape, jnp.float32)
        for i, x in enumerate(jax.tree.leaves(state))
    ]
    return jax.tree.map(jnp.add, state, jax.tree.unflatten(jax.tree.structure(state), noise))


def grouped(make, key):
    return q.Grouped.of([make(k, LEVELS, DIM // 2) for k in jax.random.split(key)])


def split(make, key):
    return q.Split(make(key, 1, DIM), make(jax.random.fold_in(key, 1), 2, DIM))


def mimi(make, key):
    inner = split(lambda k, levels, d: make(k, levels, DIM // 2), key)
    return q.Split(*(q.Bottleneck.init(key, DIM, part) for part in (inner.first, inner.rest)))


ARRANGEMENTS = {
    "residual": lambda make, key: make(key, LEVELS, DIM),
    "grouped": grouped,
    "split": split,
    "mimi": mimi,
    "strided": lambda make, key: q.Strided(make(key, LEVELS, DIM), (4, 2, 1)),
}
