"""Residual quantization, one scan for all: level 1 codes the latents, each next what is left.

Below `quantizer`, which has the public functions: here a state is one lookup with K levels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rvq_jax.quantize import estimate, learn
from rvq_jax.quantize.beam import beam_codes
from rvq_jax.quantize.learn import EMA, Gradient, Learning
from rvq_jax.quantize.search import greedy_codes
from rvq_jax.quantize.state import Lookup
from rvq_jax.quantize.stats import LevelStats, level_stats
from rvq_jax.trees import one_line
from rvq_jax.typing import Array, Codes, Key, Latents


class Quantized(NamedTuple):
    """What `quantize` returns: B items of F frames through K levels."""

    latents: Array  # [B, F, D]; the estimator's gradient passes to the input
    codes: Array  # [B, K, F] int32
    commitment: Array  # [K], mean squared distance of each level's input to its constant codeword
    codebook: Array  # [K], the same with a constant input: it teaches codewords (Gradient)
    entropy: Array  # [K], a loss that spreads the use of codes (LFQ), else 0
    stats: LevelStats  # each [K]
    state: Lookup  # learned from this batch if train, else the state given

    __repr__ = one_line


@dataclass(frozen=True)
class Rules:
    """What `quantize` was asked for, checked, for every part of an arrangement."""

    learning: Learning | None  # None: nothing learns
    estimator: Callable[[Array, Array], Array]
    per_level: bool
    temperature: float


def encode(
    state: Lookup,
    latents: Latents,
    beam: int = 1,
    tables: Array | None = None,
    kernel: bool = False,
    strides: tuple[int, ...] | None = None,
) -> Codes:
    """Finds codes greedily level by level, or as the best of `beam` kept prefixes.

    A lookup without a table in the latent space, or one with strides, is always searched greedily:
    `beam`, `tables` and `kernel` are for the others.

    Args:
      state: a lookup of K levels.
      latents: `[B, F, D]`.
      beam: number of prefixes of codes kept per frame; 1 is greedy.
      tables: what `beam.pair_products` makes of the codebooks, for a faster beam search. None to do
        without.
      kernel: search greedily, whatever `beam`, as one kernel where the device is a TPU.
      strides: frames that share a code, one number per level. None for a code per frame.

    Returns:
      Codes `[B, K, F]` int32, with repeats where a stride is above 1.

    Raises:
      ValueError: for a beam below 1, or tables of other codebooks' shape.
    """
    batch, frames, dim = latents.shape
    flat_MD = latents.reshape(-1, dim).astype(jnp.float32)
    books = state.stacked()
    if books.euclidean and strides is None:
        # With a table in the latent space, tiles of vectors go through all levels in cache.
        inputs = books.table(), flat_MD, None if books.books is None else books.books.sizes
        if kernel:
            # Pallas takes a third of a second to import.
            from rvq_jax.quantize.kernel import residual_codes

            codes_KM = jax.lax.platform_dependent(*inputs, tpu=residual_codes, default=greedy_codes)
        else:
            codes_KM = beam_codes(*inputs, beam=beam, tables=tables)
        return _to_BKF(codes_KM, batch, frames)

    def level(carry, inputs):
        residual_MD, total_MD = carry
        lookup, stride = inputs
        input_ME = lookup.project(_pooled(residual_MD, stride))
        codes_M = lookup.search(input_ME, total_MD)
        chosen_MD = lookup.unproject(lookup.codewords(codes_M, total_MD))
        return (residual_MD - chosen_MD, total_MD + chosen_MD), codes_M

    carry = state.enter(flat_MD), jnp.zeros_like(flat_MD)
    _, codes_KM = jax.lax.scan(level, carry, (books, _strides(strides)))
    return _to_BKF(codes_KM, batch, frames)


def decode(state: Lookup, codes: Codes) -> Latents:
    """Latents `[B, F, D]`: the sum of the codewords of `[B, K', F]`, K' a prefix of the levels."""
    batch, _, frames = codes.shape

    def level(total_MD, inputs):
        lookup, codes_M = inputs
        return total_MD + lookup.unproject(lookup.codewords(codes_M, total_MD)), None

    codes_KM = codes.swapaxes(0, 1).reshape(-1, batch * frames)
    zero_MD = jnp.zeros_like(codes, shape=(batch * frames, state.dim), dtype=jnp.float32)
    total_MD, _ = jax.lax.scan(level, zero_MD, (state.stacked(), codes_KM))
    return total_MD.reshape(batch, frames, state.dim)


def quantize(
    state: Lookup,
    latents: Latents,
    key: Key | None,
    mask_BF: Array,
    kept_B: Array,
    rules: Rules,
    strides: tuple[int, ...] | None = None,
) -> Quantized:
    """Passes latents through all levels of one lookup, with losses and, in training, learning.

    Args:
      state: a lookup of K levels.
      latents: `[B, F, D]`.
      key: for random numbers. None for evaluation, which changes no state.
      mask_BF: `[B, F]` bool; False frames have no loss, no statistics and no learning.
      kept_B: `[B]`, the number of levels each item keeps: those after it add nothing to its latents
        nor to its commitment and codebook losses; all items count for all else.
      rules: the options of `quantizer.quantize`, already checked.
      strides: frames that share a code, one number per level. None for a code per frame.

    Returns:
      Latents `[B, F, D]`, codes `[B, K, F]`, losses and statistics `[K]`, and the state after this
      batch.
    """
    batch, frames, dim = latents.shape
    weight_M = mask_BF.reshape(-1) / jnp.maximum(mask_BF.sum(), 1).astype(jnp.float32)
    # Only in training, which has a key: evaluation by `Gradient` has losses but changes nothing.
    follows = key is not None and learn.follows(rules.learning)
    if not isinstance(rules.learning, Gradient):
        state = jax.lax.stop_gradient(state)
    keys_K = None if key is None else jax.random.split(key, state.levels)

    def level(carry, inputs):
        # Three sums of the same levels: what is left with constant codewords, so that every level's
        # commitment reaches the input; what is left as the estimator sees it; what is decoded.
        residual_MD, passing_MD, total_MD = carry
        index, lookup, key, stride = inputs
        active_M = jnp.broadcast_to((index < kept_B)[:, None], (batch, frames)).reshape(-1)
        active_M1 = active_M[:, None]
        pooled_MD = _pooled(residual_MD, stride)
        input_ME = lookup.project(pooled_MD)
        constant_ME, before_MD = jax.lax.stop_gradient((input_ME, total_MD))
        draw_key, sample_key = (None, None) if key is None else jax.random.split(key)
        if rules.temperature:
            codes_M = _sampled(sample_key, lookup, constant_ME, batch, rules.temperature)
        else:
            codes_M = lookup.search(constant_ME, before_MD)
        code_ME = lookup.codewords(codes_M, before_MD)
        commitment_M = jnp.mean((input_ME - jax.lax.stop_gradient(code_ME)) ** 2, axis=-1)
        codebook_M = jnp.mean((constant_ME - code_ME) ** 2, axis=-1)
        chosen_MD = jax.lax.stop_gradient(lookup.unproject(code_ME))
        left_MD = residual_MD - chosen_MD
        if rules.per_level:
            source_ME = lookup.project(_pooled(passing_MD, stride))
            estimated_ME = rules.estimator(source_ME, jax.lax.stop_gradient(code_ME))
            estimated_MD = lookup.unproject(estimated_ME)
            passing_MD = passing_MD - estimated_MD
        else:
            estimated_MD = chosen_MD
        outputs = (
            codes_M,
            jnp.sum(commitment_M * weight_M * active_M),
            jnp.sum(codebook_M * weight_M * active_M),
            lookup.entropy_loss(input_ME, weight_M),
            level_stats(codes_M, pooled_MD, left_MD, weight_M, state.size),
            learn.follow(draw_key, lookup.books, input_ME, codes_M, weight_M, rules.learning)
            if follows
            else None,
        )
        return (left_MD, passing_MD, total_MD + estimated_MD * active_M1), outputs

    flat_MD = state.enter(latents.reshape(-1, dim).astype(jnp.float32))
    inputs = jnp.arange(state.levels), state.stacked(), keys_K, _strides(strides)
    (_, _, total_MD), (codes_KM, commitment, codebook, entropy, stats, followed) = jax.lax.scan(
        level, (flat_MD, flat_MD, jnp.zeros_like(flat_MD)), inputs
    )
    if not rules.per_level:
        total_MD = rules.estimator(flat_MD, jax.lax.stop_gradient(total_MD))
    if follows:
        state = _taught(jax.lax.stop_gradient(state), followed, rules.learning, mask_BF.any())
    return Quantized(
        total_MD.reshape(latents.shape).astype(latents.dtype),
        _to_BKF(codes_KM, batch, frames),
        commitment,
        codebook,
        entropy,
        stats,
        state,
    )


def _taught(state: Lookup, followed: learn.Followed, rule: EMA | Gradient, taught: Array) -> Lookup:
    books = state.books
    if books.levels < state.levels:
        # A shared codebook learns from all levels alike.
        followed = jax.tree.map(lambda x: x.mean(axis=0, keepdims=True), followed)
    return state.with_books(learn.settle(books, followed, rule, taught))


def _sampled(key: Key, lookup: Lookup, input_ME: Array, batch: int, temperature: float) -> Array:
    # A key per item and frame: a draw must not depend on the rest of the batch.
    frames = input_ME.shape[0] // batch
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    keys_BF = jax.vmap(fold, (0, None))(fold(key, jnp.arange(batch)), jnp.arange(frames))
    table_NE = lookup.direction(lookup.table())
    sizes = None if lookup.books is None else lookup.books.sizes
    return estimate.sample(
        keys_BF.reshape(-1), lookup.direction(input_ME), table_NE, temperature, sizes
    )


def _pooled(residual_MD: Array, stride: Array | None) -> Array:
    """Every frame replaced by the mean of its group of `stride` frames (traced, so that levels of
    all strides are one program); None leaves the frames as they are."""
    if stride is None:
        return residual_MD
    count = residual_MD.shape[0]
    # Groups never reach over the end of an item: frames are a multiple of every stride.
    group_M = jnp.arange(count, dtype=jnp.int32) // stride
    sums_MD = jax.ops.segment_sum(residual_MD, group_M, num_segments=count)
    return sums_MD[group_M] / stride


def _strides(strides: tuple[int, ...] | None) -> Array | None:
    return None if strides is None else jnp.array(strides, jnp.int32)


def _to_BKF(codes_KM: Array, batch: int, frames: int) -> Array:
    return codes_KM.reshape(-1, batch, frames).swapaxes(0, 1)
