"""The compiled programs of masked token models: one for each shape, timetables as arguments."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rvq_jax.lm import forms, masked_lm, masked_score, rescoring
from rvq_jax.lm.conditions import Conditions
from rvq_jax.lm.masked import Parallel
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.lm.sampling import PLAIN, Sampling
from rvq_jax.lm.schedule import Timetable
from rvq_jax.patterns import Pattern
from rvq_jax.tracing import concrete, portable, typed
from rvq_jax.typing import Array, Codes, Key


class Rescorer(NamedTuple):
    """An autoregressive model whose probabilities are mixed with those of a masked one."""

    config: LMConfig  # of the same K and N
    params: nnx.State  # with lists of layers
    pattern: Pattern  # of F frames
    conditions: Conditions  # of B rows
    weight: float | Array  # of its probabilities, in [0, 1]


def generate_masked(
    config: MaskedLMConfig,
    params: nnx.State,
    table: Timetable,
    conditions: Conditions,
    key: Key,
    forced: Codes,
    lengths: Array | None = None,
    *,
    sampling: Sampling = PLAIN,
    rescorer: Rescorer | None = None,
) -> Parallel:
    """Samples codes of all frames in one program.

    Args:
      config: of the model.
      params: its parameters, with lists of layers.
      table: the iterations, see `rvq_jax.lm.schedule.timetable`; all of one number share
        a program.
      conditions: of B rows.
      key: one key, from which every row folds its own, or keys `[B]`.
      forced: `[B, K, F]` codes to keep, anywhere; -1 where one is to be sampled.
      lengths: `[B]` frames of each row; all have F without.
      sampling: top-k and top-p; its temperature multiplies the timetable's.
      rescorer: whose opinion decides too what is masked again.

    Returns:
      Codes and their bits.

    Raises:
      ValueError: as of `check`.
    """
    if lengths is None:
        lengths = jnp.full(len(forced), forced.shape[2], jnp.int32)
    check(config, table, forced, lengths, conditions)
    args = params, table, conditions, typed(key), forced, lengths, sampling
    if rescorer is None:
        return _generate(config, None, *args, None)
    return _generate(config, rescorer.config, *args, rescorer._replace(config=None))


def check(
    config: MaskedLMConfig, table: Timetable, forced: Codes, lengths: Array, conditions: Conditions
) -> None:
    """Looks at what `generate_masked` is given, as far as values are known.

    Args:
      config: of the model.
      table: the iterations.
      forced: `[B, K, F]`.
      lengths: `[B]`.
      conditions: of B rows.

    Raises:
      ValueError: a level out of range, or neither given nor decoded; a prompt longer than its row;
        codes or semantic tokens that there are not.
    """
    if not concrete(table, forced, lengths, conditions):
        return
    forced, lengths, decoded = np.asarray(forced), np.asarray(lengths), set(table.level.tolist())
    levels, frames = forced.shape[1:]
    if levels != config.levels or not decoded <= set(range(levels)):
        raise ValueError(
            f"the model has levels 0..{config.levels - 1}; got codes of {levels} and a timetable "
            f"of level {max(decoded)}"
        )
    if lengths.min(initial=0) < 0 or lengths.max(initial=0) > frames:
        raise ValueError(f"rows have 0..{frames} frames; got {lengths.tolist()}")
    after_BF = np.arange(frames)[None] >= lengths[:, None]
    if (after_BF[:, None] & (forced >= 0)).any():
        raise ValueError("a prompt is longer than what is to be generated")
    if forced.max(initial=-1) >= config.codebook_size:
        raise ValueError(f"codes lie in 0..{config.codebook_size - 1}; got {forced.max()}")
    open_K = ((forced < 0) & ~after_BF[:, None]).any(axis=(0, 2))
    missing = sorted(set(np.flatnonzero(open_K).tolist()) - decoded)
    if missing:
        raise ValueError(f"level {missing[0]} is neither given whole nor in the timetable")
    for spec in config.conditions:
        if spec.vocab is not None and spec.name in conditions:
            top = np.asarray(conditions[spec.name].states).max(initial=-1)
            if top >= spec.vocab:
                raise ValueError(f"{spec.name} tokens lie in 0..{spec.vocab - 1}; got {top}")


@functools.partial(jax.jit, static_argnames=("config", "samples"))
def bound_codes(
    config: MaskedLMConfig,
    params: nnx.State,
    codes: Codes,
    conditions: Conditions,
    key: Key,
    lengths: Array,
    *,
    samples: int,
) -> Array:
    """Samples of a bound on the bits of codes, in one program (see `lm.masked_score.bound`).

    Args:
      config: of the model.
      params: its parameters, with lists of layers.
      codes: `[B, K, F]`; one outside of [0, N) is taken for the nearest code.
      conditions: of B rows.
      key: one key, from which every row folds its own, or keys `[B]`.
      lengths: `[B]` frames of each row; what is after them changes nothing.
      samples: S, how many.

    Returns:
      Bits `[S, B, K]` of all frames of a row.
    """

    def run(codes, params, conditions, key, lengths):
        model = forms.model(config, params)
        return masked_score.bound(model, codes, lengths, conditions, key, samples)

    return portable(run, "BKF", "SBK")(codes, params, conditions, typed(key), lengths)


@functools.partial(jax.jit, static_argnames="config")
def level_bits(
    config: MaskedLMConfig, params: nnx.State, codes: Codes, conditions: Conditions, lengths: Array
) -> Array:
    """Exact bits of levels that are predicted whole (see `lm.masked_score.level_bits`).

    Args:
      config: of the model.
      params: its parameters, with lists of layers.
      codes: `[B, K, F]`; one outside of [0, N) is taken for the nearest code.
      conditions: of B rows.
      lengths: `[B]` frames of each row.

    Returns:
      Bits `[B, K - 1, F]`, 0 after a row's end.
    """

    def run(codes, params, conditions, lengths):
        model = forms.model(config, params)
        return masked_score.level_bits(model, codes, lengths, conditions)

    return portable(run, "BKF", "BKF")(codes, params, conditions, lengths)


def lower_masked(config, params, table, conditions, key, forced, lengths):
    """Lowers the program of `generate_masked` for shapes, and runs nothing.

    Args:
      config: as of `generate_masked`, and so are all.
      params: shapes.
      table: shapes.
      conditions: shapes.
      key: shape of one key.
      forced: shape.
      lengths: shape.

    Returns:
      The jax.stages.Lowered.
    """
    args = params, table, conditions, key, forced, lengths, PLAIN
    return _generate.lower(config, None, *args, None)


@functools.partial(jax.jit, static_argnames=("config", "other"))
def _generate(
    config, other, params, table, conditions, key, forced, lengths, sampling, rescorer
) -> Parallel:
    def run(forced, params, table, conditions, key, lengths, sampling, rescorer):
        confidence = None
        if rescorer is not None:
            model = forms.model(other, rescorer.params)
            confidence = rescoring.mixture(
                model, rescorer.pattern, rescorer.conditions, lengths, rescorer.weight
            )
        return masked_lm.generate(
            forms.model(config, params),
            table,
            conditions,
            key,
            forced,
            lengths,
            sampling=sampling,
            confidence=confidence,
        )

    args = params, table, conditions, key, lengths, sampling, rescorer
    return portable(run, "BKF", Parallel("BKF", "BKF"))(jnp.asarray(forced), *args)
