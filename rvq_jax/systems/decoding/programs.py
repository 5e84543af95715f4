"""The compiled programs of token models: one for each shape, with patterns as arguments.

Configs are static, parameters lists of layers (see `rvq_jax.lm.forms`).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.codec import autoencoder
from rvq_jax.codec.edges import Edges
from rvq_jax.lm import decode, forms
from rvq_jax.lm.conditions import Conditions, EncodedConditions, Guidance, encode_conditions
from rvq_jax.lm.decode import Decoded, DecodeRequest, DecodeState
from rvq_jax.lm.model import LMConfig, score
from rvq_jax.patterns import Pattern
from rvq_jax.quantize import State
from rvq_jax.systems.decoding import channels
from rvq_jax.systems.text_encoder import states
from rvq_jax.typing import Array, Audio, Codes, Key

SHAPED = ("prefill_steps", "sequential_guidance")  # options that programs are compiled for


@functools.partial(jax.jit, static_argnames=("config", *SHAPED))
def generate_codes(
    config: LMConfig,
    params,
    pattern: Pattern,
    conditions: Conditions,
    key: Key,
    forced: Codes,
    lengths: Array | None = None,
    **options,
) -> Decoded:
    """`generate.decode`, with its options; all rows whole without lengths."""
    if lengths is None:
        lengths = jnp.full(len(forced), forced.shape[2])
    model = forms.model(config, params)
    return decode.decode(model, pattern, conditions, key, forced, jnp.asarray(lengths), **options)


class Weights(NamedTuple):
    """Parameters of all that lies between text and audio."""

    lm: nnx.State
    text: nnx.State | None
    codec: nnx.State
    quantizer: State


@functools.partial(jax.jit, static_argnames=("configs", "ways", *SHAPED))
def generate_audio(
    configs: tuple,
    weights: Weights,
    ways: int,
    pattern: Pattern,
    conditions: Conditions | tuple[Array, Array, Array | None],
    key: Key,
    forced: Codes,
    lengths: Array,
    **options,
) -> tuple[Decoded, Audio]:
    """From text to the audio `[B, S, C]` of all frames of the pattern in one program.

    configs: of the token model, of its text encoder or None, of the codec. conditions: as the
    token model reads them, or tokens of the text encoder with their mask and a melody.
    """
    lm, text, codec = configs
    if text is not None and not isinstance(conditions, EncodedConditions):
        ids_BL, mask_BL, melody = conditions
        conditions = encode_conditions(states(text, weights.text, ids_BL, mask_BL), mask_BL, melody)
    decoded = generate_codes(lm, weights.lm, pattern, conditions, key, forced, lengths, **options)
    return decoded, sound(codec, weights.codec, weights.quantizer, decoded.codes, lengths, ways)


@functools.partial(jax.jit, static_argnames=("config", "ways"))
def sound(config, params, quantizer: State, codes: Codes, lengths: Array, ways: int) -> Audio:
    """Audio `[B, S, C]` of codes `[B, K, F]` of which each row has `lengths` `[B]` frames.

    ways: channels that the codec codes apart (see `channels`).
    """
    ends = jnp.repeat(lengths, ways)
    apart, edges = channels.split(codes, ways), Edges(jnp.zeros_like(ends), ends)
    return channels.join(autoencoder.decode(config, params, quantizer, apart, edges), ways)


@functools.partial(jax.jit, static_argnames=("config", *SHAPED))
def prefill(config: LMConfig, params, pattern, conditions, key, forced, lengths, **options):
    """`generate.prefill`, the first part of decoding that is done in pieces."""
    return decode.prefill(
        forms.model(config, params), pattern, conditions, key, forced, lengths, **options
    )


@functools.partial(jax.jit, static_argnames="config", donate_argnames="state")
def decode_until(
    config: LMConfig, params, request: DecodeRequest, state: DecodeState, until: Array
) -> DecodeState:
    """`generate.decode_until`: the steps before `until`; the arrays of the state are donated."""
    return decode.decode_until(forms.model(config, params), request, state, until)


gather_codes = jax.jit(decode.gather_codes)


@functools.partial(jax.jit, static_argnames="config")
def score_codes(
    config: LMConfig,
    params,
    pattern: Pattern,
    codes: Codes,
    conditions: Conditions,
    mask_BF: Array | None = None,
    guidance: Guidance = None,
) -> Array:
    """`rvq_jax.lm.model.score`."""
    model = forms.model(config, params)
    return score(model, pattern, jnp.asarray(codes), conditions, mask_BF, guidance)
