"""The public functions, over every lookup and arrangement."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rvq_jax.quantize import checks, clashes, estimate, rvq
from rvq_jax.quantize.arrangements import Bottleneck, Grouped, Split, State, Strided
from rvq_jax.quantize.beam import pair_products
from rvq_jax.quantize.dropout import Dropout
from rvq_jax.quantize.implicit import QINCo
from rvq_jax.quantize.learn import Gradient, Learning
from rvq_jax.quantize.lookups import Shared, SimVQ
from rvq_jax.quantize.rvq import Quantized, Rules
from rvq_jax.quantize.start import residual_kmeans, shared_kmeans
from rvq_jax.quantize.state import Codebooks, Lookup
from rvq_jax.typing import Array, Codes, Key, Latents, Vectors

HIGHEST = jax.lax.Precision.HIGHEST
Tables = Array | tuple  # as the state: one for each part of a split


def encode(
    state: State,
    latents: Latents,
    levels: int | None = None,
    beam: int = 1,
    *,
    tables: Tables | None = None,
    kernel: bool = False,
) -> Codes:
    """Finds the codes of latents, level by level, greedily or by a beam search.

    Distances are float32 whatever the latents' type; ties go to the lowest code. van den Oord et
    al. 2017 (VQ-VAE); Zeghidour et al. 2021 (SoundStream) for the residual form; Babenko &
    Lempitsky 2014 for the beam.

    Args:
      state: a quantizer of K levels.
      latents: `[B, F, D]`.
      levels: how many of the first levels to use, a multiple of the groups of a `Grouped`. None for
        all K.
      beam: number of prefixes of codes kept per frame, the best of which is returned; 1 is greedy.
      tables: what `beam_tables` makes of the state, for a faster beam search where D is large. None
        to do without.
      kernel: run all levels of a greedy search as one kernel where the device is a TPU; a program
        for several devices must then call this inside `jax.shard_map(…, check_vma=False)`.

    Returns:
      Codes `[B, K, F]` int32, with `levels` levels if that is given.

    Raises:
      ValueError: for levels outside 1..K, a beam below 1, a shape that does not fit, latents that
        are not finite (outside of jit), or options that clash.
    """
    checks.latents(latents, state.dim)
    checks.finite(latents, "latents")
    if beam < 1:
        raise ValueError(f"beam must be at least 1, got {beam}")
    if beam > 1:
        clashes.allow_beam(state, f"beam={beam}")
    if tables is not None and beam == 1:
        raise ValueError("tables and beam=1 clash: a greedy search has no use for them")
    if kernel and beam > 1:
        raise ValueError(f"kernel and beam={beam} clash: the kernel's search is greedy")
    if kernel:
        clashes.allow_beam(state, "kernel")
    return _encode(state, jnp.asarray(latents), levels, beam, tables, kernel)


def beam_tables(state: State) -> Tables:
    """Products of the codewords of each two levels, for `encode(…, beam, tables=…)`.

    K(K-1)/2 · N² floats for each residual quantizer of the state, to be made once per codebooks.
    Raises ValueError for a state that a beam cannot search.
    """
    clashes.allow_beam(state, "beam tables")
    return _beam_tables(state)


def decode(state: State, codes: Codes) -> Latents:
    """Latents `[B, F, D]` of codes `[B, K', F]`, K' any prefix of the levels.

    Raises ValueError for more levels than the state has, or a code outside [0, N); inside jit such
    a code decodes to NaN.
    """
    checks.codes(codes, state.levels, _sizes(state))
    return _decode(state, jnp.asarray(codes))


def quantize(
    state: State,
    latents: Latents,
    *,
    key: Key | None = None,
    train: bool = False,
    mask: Array | None = None,
    learning: Learning | None = None,
    estimator: Callable[[Array, Array], Array] = estimate.straight_through,
    per_level: bool = False,
    temperature: float = 0.0,
    dropout: Dropout | None = None,
) -> Quantized:
    """Quantizes latents and passes a gradient on to them; in training, the codebooks learn.

    Every level's commitment loss is taken on the residual that *constant* codewords leave, so its
    gradient reaches the encoder from every level.

    Args:
      state: a quantizer of K levels.
      latents: `[B, F, D]`.
      key: for random numbers; None only without `train`.
      train: learn from this batch, and apply `temperature` and `dropout`.
      mask: `[B, F]` bool; False frames give codes but no loss, no statistics and no learning,
        whatever they hold. None for all True.
      learning: `EMA()`, `Gradient()` or `Frozen()`. None for `EMA()` if all codebooks are in latent
        space, else `Gradient()`. Without `train` only `Gradient()` has an effect: the losses have a
        gradient to the state.
      estimator: `straight_through` or `rotation`, or any function of inputs and codewords `[M, D]`
        that returns the codewords with a gradient to the inputs.
      per_level: apply the estimator to each level in its own code space (the only way gradients
        reach maps around every level), not once to the sum of all levels.
      temperature: training draws codes in proportion to exp(-|x - c|² / temperature); 0 for the
        nearest codeword.
      dropout: in training, which items keep only their first levels. None for all levels.

    Returns:
      Latents `[B, F, D]`, codes `[B, K, F]`, losses and statistics `[K]`, and the state after this
      batch.

    Raises:
      ValueError: if `train` without a key, for two options that clash, a negative temperature,
        dropout outside its range, shapes that do not fit, or latents not finite where the mask is
        True.
    """
    if train and key is None:
        raise ValueError("quantize(train=True) draws random numbers: give it a key")
    checks.latents(latents, state.dim)
    checks.mask(mask, latents)
    if mask is None:
        mask_BF = jnp.ones(latents.shape[:2], bool)
    else:
        mask_BF = jnp.asarray(mask, bool)
        latents = jnp.where(mask_BF[..., None], latents, 0)
    checks.finite(latents, "latents")
    learning = clashes.learning_rule(state, learning, per_level) if train else learning
    rules = Rules(
        learning if train or isinstance(learning, Gradient) else None,
        estimator,
        per_level,
        temperature if train else 0.0,
    )
    if rules.temperature:
        clashes.allow_sampling(state, temperature)
    kept_B = jnp.full(latents.shape[0], state.levels)
    if train:
        drop_key, key = jax.random.split(key)
        if dropout is not None:
            kept_B = dropout.kept(drop_key, latents.shape[0], state.levels)
    return _quantize(state, jnp.asarray(latents), key if train else None, mask_BF, kept_B, rules)


def start(
    key: Key, state: State, vectors: Vectors, iterations: int = 50, plus_plus: bool = False
) -> State:
    """Fits the codebooks to vectors by k-means, level by level on the residual.

    Each level is fitted on M // K vectors of its own; a shared codebook on what every level sees of
    such a share; QINCo's base codebooks as if its network moved nothing yet.

    Args:
      key: for random numbers.
      state: the quantizer to fit.
      vectors: `[M, D]`, latents as a flat list.
      iterations: steps of each k-means.
      plus_plus: first centres far from each other (Arthur & Vassilvitskii 2007), at the cost of N
        passes over the vectors; else random vectors.

    Returns:
      The state with fitted codebooks; the matrices of a `SimVQ` are set to the identity.

    Raises:
      ValueError: if a share has fewer than N vectors (collect more batches), if vectors are not
        `[M, D]` or not finite, or if the state has no codebooks.
    """
    checks.vectors(vectors, state.dim)
    rest = iterations, plus_plus
    match state:
        case Grouped():
            keys_G = jax.random.split(key, state.groups)
            parts_GMD = jnp.stack(jnp.split(jnp.asarray(vectors), state.groups, axis=1))
            return Grouped(jax.vmap(lambda *x: start(*x, *rest))(keys_G, state.books, parts_GMD))
        case Split():
            keys = jax.random.split(key)
            parts = state.first, state.rest
            return Split(*(start(k, s, vectors, *rest) for k, s in zip(keys, parts, strict=True)))
        case Bottleneck():
            inside_ME = jnp.matmul(vectors, state.down, precision=HIGHEST)
            return Bottleneck(state.down, state.up, start(key, state.inner, inside_ME, *rest))
        case Strided():
            return Strided(start(key, state.books, vectors, *rest), state.strides)
        case Shared():
            return Shared(shared_kmeans(key, state.one, state.levels, vectors, *rest), state.levels)
        case QINCo():
            books = residual_kmeans(key, Codebooks.of(state.base), vectors, *rest)
            return dataclasses.replace(state, base=books.vectors)
        case SimVQ():
            books = residual_kmeans(key, Codebooks.of(state.frozen), vectors, *rest)
            return SimVQ(books.vectors, jnp.broadcast_to(jnp.eye(state.dim), state.matrix.shape))
        case _:
            return residual_kmeans(key, state, vectors, *rest)


# Compiled here as well as in a caller's program: a scan outside of jit compiles at every call.
@functools.partial(jax.jit, static_argnames=("levels", "beam", "kernel"))
def _encode(
    state: State,
    latents: Latents,
    levels: int | None,
    beam: int,
    tables: Tables | None,
    kernel: bool,
) -> Codes:
    match state:
        case Grouped():
            books = jax.vmap(lambda b: b.first(_per_group(state, levels)))(state.books)
            codes_GBKF = jax.vmap(lambda b, x, t: rvq.encode(b, x, beam, t, kernel))(
                books, _grouped(latents, state.groups), tables
            )
            return _level_major(codes_GBKF)
        case Split():
            first, rest = _split_levels(state, levels)
            of_first, of_rest = (None, None) if tables is None else tables
            parts = [_encode(state.first, latents, first, beam, of_first, kernel)]
            if rest:
                parts.append(_encode(state.rest, latents, rest, beam, of_rest, kernel))
            return jnp.concatenate(parts, axis=1)
        case Bottleneck():
            inside = jnp.matmul(latents, state.down, precision=HIGHEST)
            return _encode(state.inner, inside, levels, beam, tables, kernel)
        case Strided():
            books = state.books.first(levels)
            return rvq.encode(books, latents, strides=_whole(state, latents)[: books.levels])
        case _:
            return rvq.encode(state.first(levels), latents, beam, tables, kernel)


@jax.jit
def _beam_tables(state: State) -> Tables:
    match state:
        case Grouped():
            return jax.vmap(lambda books: pair_products(books.stacked().table()))(state.books)
        case Split():
            return _beam_tables(state.first), _beam_tables(state.rest)
        case Bottleneck():
            return _beam_tables(state.inner)
        case _:
            return pair_products(state.stacked().table())


@jax.jit
def _decode(state: State, codes: Codes) -> Latents:
    levels = codes.shape[1]
    match state:
        case Grouped():
            books = jax.vmap(lambda b: b.first(_per_group(state, levels)))(state.books)
            batch, _, frames = codes.shape
            codes_BKGF = codes.reshape(batch, -1, state.groups, frames)
            parts_GBFD = jax.vmap(rvq.decode)(books, jnp.moveaxis(codes_BKGF, 2, 0))
            return jnp.concatenate(list(parts_GBFD), axis=-1)
        case Split():
            first, rest = _split_levels(state, levels)
            total = _decode(state.first, codes[:, :first])
            return total + _decode(state.rest, codes[:, first:]) if rest else total
        case Bottleneck():
            return jnp.matmul(_decode(state.inner, codes), state.up, precision=HIGHEST)
        case Strided():
            return rvq.decode(state.books.first(levels), codes)
        case _:
            return rvq.decode(state.first(levels), codes)


def _by_level(out: Quantized) -> dict:
    """What a result says of each level."""
    return {name: getattr(out, name) for name in ("commitment", "codebook", "entropy", "stats")}


@functools.partial(jax.jit, static_argnames="rules")
def _quantize(state: State, latents: Latents, key, mask_BF, kept_B, rules: Rules) -> Quantized:
    match state:
        case Grouped():
            keys_G = None if key is None else jax.random.split(key, state.groups)
            # All groups of a level stay or go together.
            kept_B = -(-kept_B // state.groups)
            out = jax.vmap(
                lambda b, x, k: rvq.quantize(b, x, k, mask_BF, kept_B, rules),
                in_axes=(0, 0, None if key is None else 0),
            )(state.books, _grouped(latents, state.groups), keys_G)
            joined = jnp.concatenate(list(out.latents), axis=-1)
            by_level = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1), _by_level(out))
            return Quantized(joined, _level_major(out.codes), **by_level, state=Grouped(out.state))
        case Split():
            keys = (None, None) if key is None else jax.random.split(key)
            one = _quantize(state.first, latents, keys[0], mask_BF, kept_B, rules)
            kept_B = kept_B - state.first.levels
            two = _quantize(state.rest, latents, keys[1], mask_BF, kept_B, rules)
            codes = jnp.concatenate([one.codes, two.codes], axis=1)
            by_level = jax.tree.map(lambda *x: jnp.concatenate(x), _by_level(one), _by_level(two))
            total = one.latents + two.latents
            plain = isinstance(state.first, Lookup) and isinstance(state.rest, Lookup)
            if plain and not rules.per_level:
                # Each part passed the gradient on whole: their sum would pass it twice.
                total = rules.estimator(latents, jax.lax.stop_gradient(total))
            return Quantized(total, codes, **by_level, state=Split(one.state, two.state))
        case Bottleneck():
            inside = jnp.matmul(latents, state.down, precision=HIGHEST)
            out = _quantize(state.inner, inside, key, mask_BF, kept_B, rules)
            outside = jnp.matmul(out.latents, state.up, precision=HIGHEST)
            return out._replace(latents=outside, state=Bottleneck(state.down, state.up, out.state))
        case Strided():
            strides = _whole(state, latents)
            out = rvq.quantize(state.books, latents, key, mask_BF, kept_B, rules, strides)
            return out._replace(state=Strided(out.state, state.strides))
        case _:
            return rvq.quantize(state, latents, key, mask_BF, kept_B, rules)


def _sizes(state: State) -> int | Array:
    """Codes of each level: a number, or [K] where they differ."""
    match state:
        case Split():
            parts = (state.first, state.rest)
            return jnp.concatenate([jnp.broadcast_to(_sizes(p), (p.levels,)) for p in parts])
        case Bottleneck():
            return _sizes(state.inner)
        case Strided():
            return _sizes(state.books)
        case Grouped():
            one = _sizes(state.one)
            return jnp.repeat(one, state.groups) if jnp.ndim(one) else one
        case _:
            sizes = None if state.books is None else state.books.sizes
            return state.size if sizes is None else sizes


def _grouped(latents: Latents, groups: int) -> Array:
    return jnp.stack(jnp.split(latents, groups, axis=-1))


def _level_major(codes_GBKF: Array) -> Codes:
    groups, batch, levels, frames = codes_GBKF.shape
    return codes_GBKF.transpose(1, 2, 0, 3).reshape(batch, levels * groups, frames)


def _per_group(state: Grouped, levels: int | None) -> int | None:
    if levels is not None and levels % state.groups:
        raise ValueError(f"levels must be a multiple of the {state.groups} groups, got {levels}")
    return None if levels is None else levels // state.groups


def _split_levels(state: Split, levels: int | None) -> tuple[int, int]:
    levels = state.levels if levels is None else levels
    if not 1 <= levels <= state.levels:
        raise ValueError(f"levels must be in 1..{state.levels}, got {levels}")
    first = min(levels, state.first.levels)
    return first, levels - first


def _whole(state: Strided, latents: Latents) -> tuple[int, ...]:
    frames = latents.shape[1]
    if len(state.strides) != state.levels or any(s < 1 or frames % s for s in state.strides):
        raise ValueError(
            f"{state.levels} levels need as many strides that divide {frames} frames, "
            f"got {state.strides}"
        )
    return state.strides
