"""The public functions, over every lookup and arrangement."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rvq_jax.quantize import checks, clashes, estimate, parts
from rvq_jax.quantize.arrangements import State
from rvq_jax.quantize.dropout import Dropout
from rvq_jax.quantize.learn import Gradient, Learning, follows
from rvq_jax.quantize.parts import Tables
from rvq_jax.quantize.rvq import Quantized, Rules
from rvq_jax.tracing import portable, typed
from rvq_jax.typing import Array, Codes, Key, Latents, Vectors


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
      latents: `[B, F, D]`, of any float type.
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
    return _encode(state, latents, levels, beam, tables, kernel)


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
    check_codes(state, codes)
    return _decode(state, codes)


def check_codes(state: State, codes: Codes) -> None:
    """Raises ValueError unless codes are `[B, 1..K, F]` integers, each in [0, N) of its level."""
    checks.codes(codes, state.levels, parts.sizes(state))


def nearest_codes(state: State, codes: Codes) -> Codes:
    """The codes, each one outside [0, N) of its level moved to the nearest that is inside."""
    limit_K = jnp.broadcast_to(jnp.asarray(parts.sizes(state), jnp.int32), state.levels)
    return jnp.clip(codes, 0, limit_K[None, : codes.shape[1], None] - 1)


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
    gradient reaches the encoder from every level. Inside of `jax.shard_map` a batch is a device's
    own: so are its losses and statistics, and what its codebooks learn.

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
      dropout: in training, which items keep only their first levels. None for all levels. Levels
        that an item drops still see its residual: running means, statistics and the entropy loss
        are of all items, for who drops is drawn apart from what they hold, so that they are means
        of the same, over more vectors.

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
    checks.finite(latents, "latents", mask)
    learning = clashes.learning_rule(state, learning, per_level) if train else learning
    rules = Rules(
        learning if train or isinstance(learning, Gradient) else None,
        estimator,
        per_level,
        temperature if train else 0.0,
    )
    if rules.temperature:
        clashes.allow_sampling(state, temperature)
    kept_B = None
    if train:
        drop_key, key = jax.random.split(typed(key))
        if dropout is not None:
            kept_B = dropout.kept(drop_key, latents.shape[0], state.levels)
    out = _quantize(state, latents, key if train else None, mask, kept_B, rules)
    if out.state is not None:
        return out
    constant = not isinstance(rules.learning, Gradient)
    return out._replace(state=jax.lax.stop_gradient(state) if constant else state)


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
    return _start(typed(key), state, vectors, iterations, plus_plus)


# Compiled here as well as in a caller's program: a scan outside of jit compiles at every call.
@functools.partial(jax.jit, static_argnames=("iterations", "plus_plus"))
def _start(key: Key, state: State, vectors: Vectors, iterations: int, plus_plus: bool) -> State:
    def run(vectors, key, state):
        return parts.start(key, _single(state), vectors, iterations, plus_plus)

    return portable(run, "MD", "")(vectors, key, state)


@functools.partial(jax.jit, static_argnames=("levels", "beam", "kernel"))
def _encode(
    state: State,
    latents: Latents,
    levels: int | None,
    beam: int,
    tables: Tables | None,
    kernel: bool,
) -> Codes:
    def run(latents, state, tables):
        return parts.encode(_single(state), latents, levels, beam, tables, kernel)

    return portable(run, "BFD", "BKF")(latents, state, tables)


@jax.jit
def _beam_tables(state: State) -> Tables:
    return portable(parts.beam_tables, "", "")(_single(state))


@jax.jit
def _decode(state: State, codes: Codes) -> Latents:
    return portable(parts.decode, "BKF", "BFD")(codes, _single(state))


@functools.partial(jax.jit, static_argnames="rules")
def _quantize(state: State, latents: Latents, key, mask_BF, kept_B, rules: Rules) -> Quantized:
    """As `quantize`, without a state where it stays as it was."""

    def run(latents, state, key, mask_BF, kept_B):
        if kept_B is None:
            kept_B = jnp.full(latents.shape[0], state.levels, jnp.int32)
        if mask_BF is None:
            mask_BF = jnp.ones(latents.shape[:2], bool)
        mask_BF = mask_BF.astype(bool)
        latents = jnp.where(mask_BF[..., None], latents, 0)
        out = parts.quantize(_single(state), latents, key, mask_BF, kept_B, rules)
        learns = key is not None and follows(rules.learning)
        return out if learns else out._replace(state=None)

    split = Quantized("BFD", "BKF", "", "", "", "", "")
    return portable(run, "BFD", split)(latents, state, key, mask_BF, kept_B)


def _single(state: State) -> State:
    """Float64, which states may come to be of under jax_enable_x64, as float32."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, state)
