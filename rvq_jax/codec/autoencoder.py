"""Audio ↔ codes as pure functions of a config, parameters and a quantizer; one program per shape.

A config says `build(rngs)` and `quantizer(key)`, beside its sizes: `CodecConfig` (EnCodec and
its kin), `DACConfig`, `MimiConfig`.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax import quantize
from rvq_jax.codec.conv import Kernel
from rvq_jax.codec.edges import Edges
from rvq_jax.codec.passes import Survey, Whole
from rvq_jax.codec.transformer import Transformer
from rvq_jax.quantize import State
from rvq_jax.quantize.quantizer import nearest_codes
from rvq_jax.tracing import portable
from rvq_jax.typing import Array, Audio, Codes, Latents


class Autoencoder(nnx.Module):
    """The learned halves around the quantizer."""

    def __init__(self, encoder: nnx.Module, decoder: nnx.Module):
        self.encoder, self.decoder = encoder, decoder


@functools.lru_cache(maxsize=32)
def graph(config):
    """The structure that `nnx.merge` joins with parameters; computes nothing."""
    return nnx.graphdef(nnx.eval_shape(lambda: config.build(nnx.Rngs(0))))


@functools.partial(jax.jit, static_argnames="config")
def latents(config, params, audio: Audio, edges: Edges | None = None) -> Latents:
    """Encodes audio to latents, before quantization.

    Args:
      config: sizes of the codec: a `CodecConfig`, `DACConfig` or `MimiConfig`.
      params: parameters of the config's autoencoder.
      audio: `[B, S, C]` at the config's rate.
      edges: where each item lies in its row, in samples; None where every row is one whole item.

    Returns:
      Latents `[B, F, D]`, F = ceil(S / hop); those outside an item mean nothing.
    """

    def run(audio, params, edges):
        return nnx.merge(graph(config), params).encoder(audio, Whole(edges))

    return portable(run, "BSC", "BFD")(audio, params, edges)


@functools.partial(jax.jit, static_argnames=("config", "levels"))
def encode(
    config,
    params,
    quantizer: State,
    audio: Audio,
    levels: int | None = None,
    edges: Edges | None = None,
) -> Codes:
    """Encodes audio to codes.

    Args:
      config: sizes of the codec, as in `latents`.
      params: parameters of the config's autoencoder.
      quantizer: state of the quantizer.
      audio: `[B, S, C]` at the config's rate.
      levels: number of first levels to encode, K of the result; None for all.
      edges: where each item lies in its row, in samples; None where every row is one whole item.

    Returns:
      Codes `[B, K, F]`, F = ceil(S / hop); those outside an item mean nothing.

    Raises:
      ValueError: when `levels` is less than 1 or more than the quantizer has.
    """
    return quantize.encode(quantizer, latents(config, params, audio, edges), levels)


@functools.partial(jax.jit, static_argnames="config")
def decode(config, params, quantizer: State, codes: Codes, edges: Edges | None = None) -> Audio:
    """Decodes codes to audio; a code outside [0, N) as the nearest that is inside.

    Args:
      config: sizes of the codec, as in `latents`.
      params: parameters of the config's autoencoder.
      quantizer: state of the quantizer that made the codes.
      codes: `[B, K, F]`, of all levels of the quantizer or of the first ones.
      edges: where each item lies in its row, in frames; None where every row is one whole item.

    Returns:
      Audio `[B, F · hop, C]`.

    Raises:
      ValueError: when the codes have more levels than the quantizer.
    """

    def run(codes, params, quantizer, edges):
        latents_BFD = latents_of_codes(quantizer, codes)
        return nnx.merge(graph(config), params).decoder(latents_BFD, Whole(edges))

    return portable(run, "BKF", "BSC")(codes, params, quantizer, edges)


def latents_of_codes(quantizer: State, codes: Codes) -> Latents:
    """What a decoder reads: a code outside [0, N) is the nearest inside, whose latents are numbers.

    NaN, which `quantize.decode` gives inside of a program, would spread over all of an item.
    """
    return quantize.decode(quantizer, nearest_codes(quantizer, codes))


class Reach(NamedTuple):
    """What an encoder or a decoder needs around the frames it computes, in frames."""

    front: int  # seen to either side by what runs before the recurrent layers
    back: int  # and by what runs after them
    start: int  # that a first block must have, for every layer to mirror its beginning


@functools.lru_cache(maxsize=32)
def reaches(config) -> dict[str, Reach]:
    """Of 'encoder' and 'decoder'; computes nothing."""
    found = {}

    def survey(half: nnx.Module, x: Array, frame: int) -> Reach:
        front, back = Survey(), Survey()
        half.back(half.front(x, front), back)
        start = max(front.start / frame, back.start)
        return Reach(*map(math.ceil, (front.sides / frame, back.sides, start)))

    def both():
        model = config.build(nnx.Rngs(0))
        audio, latents = jnp.zeros((1, config.hop, config.channels)), jnp.zeros((1, 1, config.dim))
        found["encoder"] = survey(model.encoder, audio, config.hop)
        found["decoder"] = survey(model.decoder, latents, 1)

    jax.eval_shape(both)
    return found


@jax.jit
def loudness(audio: Audio, edges: Edges | None = None) -> Array:
    """Root mean square `[B]` of each item's mono mix, never 0 (EnCodec at 48 kHz)."""

    def run(audio, edges):
        mono_BS = audio.mean(axis=2)
        inside_BS = True if edges is None else edges.inside(audio.shape[1])
        return jnp.sqrt(jnp.mean(mono_BS**2, axis=1, where=inside_BS)) + 1e-8

    return portable(run, "BSC", "B")(audio, edges)


@functools.partial(jax.jit, static_argnames="config")
def prepared_params(config, params):
    """Parameters of `config.prepared()`: kernels without weight norm, layers apart."""
    model = nnx.merge(graph(config), params)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, Kernel | Transformer):
            module.prepare()
    return nnx.state(model, nnx.Param)


@functools.partial(jax.jit, static_argnames="config")
def split_params(config, params):
    """Parameters whose kernels have weight norm, of those of a config without."""
    model = nnx.merge(graph(config), params)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, Kernel):
            module.split()
    return nnx.state(model, nnx.Param)
