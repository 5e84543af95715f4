"""The compiled programs of token models: one for each shape, with patterns as arguments.

Configs are static, parameters lists of layers (see `rvq_jax.lm.forms`).
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.lm import decode, forms
from rvq_jax.lm.conditions import Conditions, Guidance
from rvq_jax.lm.decode import Decoded, DecodeRequest, DecodeState
from rvq_jax.lm.model import LMConfig, score
from rvq_jax.lm.sampling import PLAIN, Sampling
from rvq_jax.patterns import Pattern
from rvq_jax.tracing import portable, typed
from rvq_jax.typing import Array, Codes, Key

SHAPED = ("prefill_steps", "sequential_guidance")  # options that programs are compiled for


@functools.partial(jax.jit, static_argnames=("config", *SHAPED))
def generate_codes(
    config: LMConfig,
    params: nnx.State,
    pattern: Pattern,
    conditions: Conditions,
    key: Key,
    forced: Codes,
    lengths: Array | None = None,
    *,
    guidance: Guidance = None,
    sampling: Sampling = PLAIN,
    prefill_steps: int = 0,
    sequential_guidance: bool = False,
) -> Decoded:
    """Samples codes of all frames in one program.

    Args:
      config: of the token model.
      params: its parameters, with lists of layers.
      pattern: of F frames.
      conditions: of B rows.
      key: one key, from which every row folds its own, or keys `[B]`.
      forced: `[B, K, F]` codes to keep, -1 where one is to be sampled; others outside of [0, N) are
        taken for the nearest code.
      lengths: `[B]` frames of each row; all have F without.
      guidance: weights of classifier-free guidance, see `rvq_jax.lm.conditions.guide`.
      sampling: how a token is taken from logits.
      prefill_steps: number of first steps that are forced in every row and read at once.
      sequential_guidance: run the branches of guidance one after another.

    Returns:
      Codes and what each cost.
    """
    if lengths is None:
        lengths = jnp.full(len(forced), forced.shape[2], jnp.int32)

    def run(forced, params, pattern, conditions, key, lengths, guidance, sampling):
        model = forms.model(config, params)
        request, state = decode.prefill(
            model,
            pattern,
            conditions,
            key,
            forced,
            lengths,
            guidance=guidance,
            sampling=sampling,
            prefill_steps=prefill_steps,
            sequential_guidance=sequential_guidance,
        )
        end = decode.end_step(request, request.lengths)
        return decode.gather_codes(
            pattern, request, decode.decode_until(model, request, state, end)
        )

    args = params, pattern, conditions, typed(key), lengths, guidance, sampling
    return portable(run, "BKF", Decoded("BKF", "BKF", "B"))(forced, *args)


@functools.partial(jax.jit, static_argnames=("config", *SHAPED))
def prefill(
    config: LMConfig,
    params: nnx.State,
    pattern: Pattern,
    conditions: Conditions,
    key: Key,
    forced: Codes,
    lengths: Array,
    *,
    guidance: Guidance = None,
    sampling: Sampling = PLAIN,
    prefill_steps: int = 0,
    sequential_guidance: bool = False,
) -> tuple[DecodeRequest, DecodeState]:
    """The first part of decoding that is done in pieces; arguments as of `generate_codes`."""
    return decode.prefill(
        forms.model(config, params),
        pattern,
        conditions,
        key,
        forced,
        lengths,
        guidance=guidance,
        sampling=sampling,
        prefill_steps=prefill_steps,
        sequential_guidance=sequential_guidance,
    )


@functools.partial(jax.jit, static_argnames="config", donate_argnames="state")
def decode_until(
    config: LMConfig, params: nnx.State, request: DecodeRequest, state: DecodeState, until: Array
) -> DecodeState:
    """Runs the steps before step `until`; arguments as of `rvq_jax.lm.decode.decode_until`.

    Args:
      config: of the token model.
      params: its parameters, with lists of layers.
      request: what `prefill` gave.
      state: what `prefill` or an earlier call gave; its arrays are donated.
      until: the first step that is left out.

    Returns:
      The state before step `until`.
    """
    return decode.decode_until(forms.model(config, params), request, state, until)


gather_codes = jax.jit(decode.gather_codes)


@functools.partial(jax.jit, static_argnames="config")
def score_codes(
    config: LMConfig,
    params: nnx.State,
    pattern: Pattern,
    codes: Codes,
    conditions: Conditions,
    mask_BF: Array | None = None,
    guidance: Guidance = None,
) -> Array:
    """Bits of each code in one teacher-forced pass (see `rvq_jax.lm.model.score`).

    Args:
      config: of the token model.
      params: its parameters, with lists of layers.
      pattern: of F frames.
      codes: `[B, K, F]`; one outside of [0, N) is taken for the nearest code.
      conditions: of B rows.
      mask_BF: frames that count; all by default.
      guidance: weights of classifier-free guidance, see `rvq_jax.lm.conditions.guide`.

    Returns:
      Bits `[B, K, F]`, 0 where the mask is False.
    """

    def run(codes, params, pattern, conditions, mask_BF, guidance):
        return score(forms.model(config, params), pattern, codes, conditions, mask_BF, guidance)

    args = params, pattern, conditions, mask_BF, guidance
    return portable(run, "BKF", "BKF")(codes, *args)
