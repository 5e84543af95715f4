"""A loss balancer: gradients at a decoder's output, each scaled by a running mean of its norm."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax.numpy as jnp

from rvq_jax.typing import Array, Audio

EPSILON = 1e-12  # beside the mean norms, in the published code


class Balancer(NamedTuple):
    """Running means of each loss's gradient norm; part of a run's state."""

    totals: dict[str, Array]  # decayed sums of norms
    counts: dict[str, Array]  # decayed number of norms: the means begin unbiased

    def norms(self) -> dict[str, Array]:
        """The mean norm of each loss's gradient; 0 for one that had none yet."""
        return {name: x / jnp.maximum(self.counts[name], 1e-9) for name, x in self.totals.items()}


def init(names: Iterable[str]) -> Balancer:
    """A balancer of these losses that has seen no gradient."""
    names = list(names)
    return Balancer(*({name: jnp.zeros(()) for name in names} for _ in range(2)))


def balance(
    state: Balancer,
    gradients: Mapping[str, Audio],
    weights: Mapping[str, float | Array],
    decay: float = 0.999,
    norm: float = 1.0,
    per_item: bool = True,
) -> tuple[Audio, Balancer]:
    """Sums gradients so that each loss has its share, whatever its scale.

    The sum of norm · weight / (sum of weights) · gradient / (mean norm), where the mean runs over
    updates. Défossez et al. 2022 (EnCodec), §3.4.

    A loss of weight 0 counts as absent: its mean stays, and the others share what it would have.
    So one that starts late, or is not used in every update, is scaled by its own norms alone, which
    zeros would make small, and its first gradients large.

    Args:
      state: the balancer, of these losses or more.
      gradients: of each loss at the decoder's output, `[B, S, C]`, over the global batch.
      weights: of each loss; a traced one may be 0 in some updates.
      decay: of the running means.
      norm: norm that the sum would have if all gradients were as long as their means, and parallel.
      per_item: whether norms are those of items, averaged over the batch, or that of the batch.

    Returns:
      The balanced gradient `[B, S, C]`, and the balancer after it.
    """
    used = {name: jnp.asarray(weights[name], jnp.float32) for name in gradients}
    share = norm / jnp.maximum(sum(used.values()), EPSILON)
    totals, counts, balanced = dict(state.totals), dict(state.counts), 0.0
    for name, gradient in gradients.items():
        axes = tuple(range(1, gradient.ndim)) if per_item else None
        found = jnp.sqrt(jnp.sum(gradient**2, axis=axes)).mean()
        keep = used[name] == 0
        totals[name] = jnp.where(keep, totals[name], decay * totals[name] + found)
        counts[name] = jnp.where(keep, counts[name], decay * counts[name] + 1.0)
        mean = totals[name] / jnp.maximum(counts[name], EPSILON)
        balanced += used[name] * share / (mean + EPSILON) * gradient
    return balanced, Balancer(totals, counts)
