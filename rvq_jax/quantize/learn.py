"""How codebooks learn: running means with replacement of dead codes, or a gradient, or not."""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rvq_jax.axes import meshed
from rvq_jax.quantize.state import Codebooks
from rvq_jax.typing import Array, Key, Vectors


@dataclass(frozen=True)
class EMA:
    """Codewords follow the running means of the vectors that chose them.

    van den Oord et al. 2017, appendix A; Défossez et al. 2024 (Moshi) for the relative threshold.
    """

    decay: float = 0.99
    expiry: float = 0.1  # share of uniform use below which a code is replaced; 0 for never


@dataclass(frozen=True)
class Gradient:
    """Parameters learn by `Quantized.codebook`, a loss whose gradient reaches the state.

    With expiry, codebooks count their use and dead codes are replaced as in `EMA`: take the
    optimizer's step from `Quantized.state`.
    """

    decay: float = 0.99  # of the running share of use
    expiry: float = 0.0


@dataclass(frozen=True)
class Frozen:
    """Nothing learns."""


Learning = EMA | Gradient | Frozen


def follows(rule: Learning | None) -> bool:
    """Whether the rule keeps running means of what chose each code, to learn or to replace."""
    return isinstance(rule, EMA) or (isinstance(rule, Gradient) and rule.expiry > 0)


class Followed(NamedTuple):
    """What one level saw of a batch: new running means, and candidates for dead codes."""

    sums: Array  # [N, D]
    counts: Array  # [N]
    fresh: Array  # [N, D], vectors of this batch


def follow(
    key: Key,
    books: Codebooks,
    input_MD: Vectors,
    codes_M: Array,
    weight_M: Array,
    rule: EMA | Gradient,
) -> Followed:
    """Updates one level's running means by a batch and draws candidates for its dead codes.

    An all-masked batch teaches nothing: its weights sum to 0.

    Args:
      key: for the draw of candidates.
      books: one level's codebook `[N, D]` with its running means.
      input_MD: `[M, D]`, the level's input in the space of the codebook.
      codes_M: `[M]`, what the input chose.
      weight_M: `[M]`, sums to 1 over the valid vectors and is 0 elsewhere.
      rule: for its decay; `Gradient` takes candidates at their full length, `EMA` as
        `books.direction` gives them.

    Returns:
      New sums `[N, D]` and counts `[N]`, and candidates `[N, D]` from this batch.
    """
    books, input_MD = jax.lax.stop_gradient((books, input_MD))
    # What a gradient teaches has the length of its inputs, even if searched by direction.
    whole_MD, input_MD = input_MD, books.direction(input_MD)
    fresh_MD = whole_MD if isinstance(rule, Gradient) else input_MD
    # One-hot products, not scatters: under a mesh they reduce over the batch with one all-reduce.
    chosen_MN = jax.nn.one_hot(codes_M, books.size, dtype=jnp.float32) * weight_M[:, None]
    sums_ND = jnp.einsum("mn,md->nd", chosen_MN, input_MD, precision=jax.lax.Precision.HIGHEST)
    rate = 1.0 - rule.decay
    keep = 1.0 - rate * weight_M.sum()
    return Followed(
        books.sums * keep + sums_ND * rate,
        books.counts * keep + chosen_MN.sum(axis=0) * rate,
        draw(key, fresh_MD, weight_M, books.size),
    )


def settle(books: Codebooks, followed: Followed, rule: EMA | Gradient, taught: Array) -> Codebooks:
    """Makes codebooks of followed means and replaces dead codes.

    A code whose share of use falls below `expiry` / N of all use is replaced by a vector of the
    batch, with a uniform share. Vector, sum *and* count are replaced: a vector alone would be
    overwritten by the old ratio at the next update.

    Args:
      books: codebooks `[K, N, D]` before the batch.
      followed: what `follow` gave for each level, `[K, …]`.
      rule: for its expiry; `EMA` moves every codeword to its mean, `Gradient` only replaces dead
        codes.
      taught: scalar bool, False if the batch was all padding: no code is then replaced.

    Returns:
      Codebooks `[K, N, D]` after the batch.
    """
    sums, counts, fresh = followed
    # Relative to the use recorded so far, which is less than 1 in the first batches.
    mass = counts.sum(axis=-1, keepdims=True)
    sizes = books.size if books.sizes is None else books.sizes[:, None]
    dead = (counts < rule.expiry * mass / sizes) & taught
    if books.sizes is not None:
        dead &= jnp.arange(books.size)[None] < sizes
    counts = jnp.where(dead, mass / sizes, counts)
    if isinstance(rule, Gradient):
        vectors = jnp.where(dead[..., None], fresh, books.vectors)
        return dataclasses.replace(
            books, vectors=vectors, sums=vectors * counts[..., None], counts=counts
        )
    sums = jnp.where(dead[..., None], fresh * counts[..., None], sums)
    # Without expiry a share may underflow to 0: such a code keeps its vector.
    alive = (counts > 1e-20)[..., None]
    means = books.direction(sums / jnp.where(alive, counts[..., None], 1.0))
    vectors = jnp.where(alive, means, books.vectors)
    return dataclasses.replace(books, vectors=vectors, sums=sums, counts=counts)


def draw(key: Key, vectors_MD: Array, weight_M: Array, count: int) -> Array:
    """Draws vectors with replacement from those of nonzero weight, each as likely as any other.

    By ranks, which are integers: sums of weights round by the mesh, and would draw another vector.

    Args:
      key: for random numbers.
      vectors_MD: `[M, D]`.
      weight_M: `[M]`; only whether a weight is above 0 matters.
      count: number of vectors to draw.

    Returns:
      Vectors `[count, D]`.
    """
    rank_M = jnp.cumsum(weight_M > 0, dtype=jnp.int32)
    chosen = jax.random.randint(key, (count,), 0, jnp.maximum(rank_M[-1], 1), jnp.int32)
    places = jnp.searchsorted(rank_M, chosen, side="right")
    if not meshed():
        return vectors_MD[places]
    # Looked up, vectors of all devices would be gathered on each; summed, only those drawn are.
    onehot_CM = jax.nn.one_hot(places, len(vectors_MD), dtype=vectors_MD.dtype)
    return jnp.dot(onehot_CM, vectors_MD, precision=jax.lax.Precision.HIGHEST)
