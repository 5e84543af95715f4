"""The losses of a codec: what its audio should share with the original, and what its codes cost."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from rvq_jax import quantize
from rvq_jax.codec import losses
from rvq_jax.codec.balancer import Balancer, balance
from rvq_jax.quantize import Quantized, State
from rvq_jax.train.tasks.adversarial import AdversarialConfig, judge_from, with_gradient
from rvq_jax.typing import Array, Audio, Latents


@dataclass(frozen=True)
class CodecLossConfig:
    """Weights of a codec's losses, and how its codebooks learn.

    The published recipes differ in the mel distance: `rvq_jax` has three windows of 64 bands;
    `encodec` and `dac` are those of the papers (see `rvq_jax.codec.losses`).
    """

    waveform: float = 10.0  # L1 on samples
    mel: float = 0.6  # multi-scale mel
    mel_kind: Literal["rvq_jax", "encodec", "dac"] = "rvq_jax"  # whose windows, bands and weights
    stft: float = 0.0  # multi-resolution STFT
    si_sdr: float = 0.0  # negative SI-SDR, in dB
    # Gradients of these and of what discriminators say are scaled at the decoder's output to
    # shares of their weights (Défossez et al. 2022, §3.4); else the losses are summed by them.
    balanced: bool = False
    commitment: float = 0.1  # mean over levels
    relative: bool = True  # commitment over the latents' spread; else plain, as published
    codebook: float = 1.0  # mean over levels, of codebooks that learn by gradient
    distillation: float = 0.0  # of features onto the semantic levels (Mimi)
    autoencoder_warmup: int = 250  # updates without a quantizer; then codebooks start on latents
    quantizer_dropout: float = 0.5  # share of items trained with a random prefix of the levels
    prefixes: tuple[int, ...] = ()  # lengths of such prefixes; () for any
    prefix_per_batch: bool = False  # one draw for all items (EnCodec)
    unquantized: float = 0.0  # share of items whose latents pass as they are (Mimi)
    decay: float = 0.95  # of the codebooks' running means
    expiry: float = 0.1  # share of uniform use below which a code is replaced

    def dropout(self) -> quantize.Dropout:
        """Which items keep only their first levels."""
        return quantize.Dropout(
            self.quantizer_dropout, self.prefixes or None, self.prefix_per_batch
        )


def distances(c: CodecLossConfig, audio: Audio, decoded: Audio, rate: int) -> dict[str, Array]:
    """What decoded audio is away from the original, by the name of the weight; those of weight 0
    are left out.

    Args:
      c: the weights.
      audio: the original `[B, S, C]`.
      decoded: `[B, S, C]`.
      rate: samples per second.

    Returns:
      A scalar for each.
    """
    mel = {
        "rvq_jax": losses.multi_scale_mel,
        "encodec": losses.encodec_mel,
        "dac": losses.dac_mel,
    }[c.mel_kind]
    every = {
        "waveform": lambda: losses.l1(audio, decoded),
        "mel": lambda: mel(audio, decoded, rate),
        "stft": lambda: losses.multi_resolution_stft(audio, decoded),
        "si_sdr": lambda: losses.si_sdr_loss(audio, decoded),
    }
    return {name: loss() for name, loss in every.items() if getattr(c, name) > 0}


def output_weights(c: CodecLossConfig, adversarial: AdversarialConfig) -> dict[str, float]:
    """The losses of what the decoder gives, with their weights; those of weight 0 are left out."""
    names = ("waveform", "mel", "stft", "si_sdr")
    weights = {name: getattr(c, name) for name in names if getattr(c, name) > 0}
    judged = {"adversarial": adversarial.weight, "features": adversarial.features}
    return weights | (judged if adversarial.on else {})


def output_loss(
    c: CodecLossConfig,
    adversarial: AdversarialConfig,
    discriminators: Any,
    balancer: Balancer | None,
    updates: Array,
    audio: Audio,
    decoded: Audio,
    rate: int,
) -> tuple[Array, Balancer | None, dict[str, Array]]:
    """All losses of what the decoder gives, and of the discriminators that look at it.

    Args:
      c: weights of the distances.
      adversarial: weights of what discriminators say.
      discriminators: their parameters; None without any.
      balancer: of the gradients; None where losses are summed.
      updates: done up to now.
      audio: the original `[B, S, C]`.
      decoded: `[B, S, C]`, whose gradient the codec gets.
      rate: samples per second.

    Returns:
      The weighted sum of the codec's losses, whose gradients are those of one simultaneous step of
      codec and discriminators; the balancer after it; and values for the log.
    """
    weights = output_weights(c, adversarial)
    judged, found, total, slopes = None, {}, 0.0, []
    if adversarial.on:
        constant = jax.lax.stop_gradient((discriminators, audio, decoded))
        judged = judge_from(updates, adversarial, c.balanced, *constant)
        found = {**judged.losses, **judged.scores, "discriminators": judged.own_loss}
        total = sum(weights[name] * loss for name, loss in judged.losses.items())
        slopes = [(discriminators, judged.own_gradient)]
    if c.balanced:
        values, at_output = _apart(lambda x: distances(c, audio, x, rate), decoded)
        heard = dict(weights)
        if judged:
            at_output |= judged.at_output
            begun = updates >= adversarial.optimizer.start
            heard |= {name: weights[name] * begun for name in judged.losses}
        slope, balancer = balance(balancer, at_output, heard)
        total += sum(weights[name] * value for name, value in values.items())
        slopes.append((decoded, slope))
    else:
        values = distances(c, audio, decoded, rate)
        # By autodiff, which needs no surrogate.
        total += sum(weights[name] * value for name, value in values.items())
        if judged:
            slopes.append((decoded, judged.at_output["judged"]))
    return with_gradient(total, *slopes), balancer, values | found


def _apart(losses, decoded: Audio) -> tuple[dict[str, Array], dict[str, Audio]]:
    """Losses by name, and the gradient of each at the output; nothing flows on from them."""
    values, pull = jax.vjp(losses, jax.lax.stop_gradient(decoded))
    ones = {name: jax.tree.map(jnp.zeros_like, values) | {name: jnp.ones(())} for name in values}
    return values, {name: pull(one)[0] for name, one in ones.items()}


def quantizer_loss(
    c: CodecLossConfig, latents_BFD: Latents, out: Quantized, started: Array, by_gradient: bool
) -> tuple[Array, dict[str, Array]]:
    """What committing to codes costs, and what codebooks that learn by gradient are away.

    Args:
      c: the weights.
      latents_BFD: what was quantized.
      out: what `quantize` made of it.
      started: whether codebooks have.
      by_gradient: whether the codebooks learn by this loss.

    Returns:
      The weighted sum, and values for the log, of them use, entropy and explained share by level.
    """
    commitment = started * out.commitment.mean()
    if c.relative:
        # In absolute terms the cheapest way to commit would be small latents, and relative to their
        # energy a large constant.
        spread = jax.lax.stop_gradient(jnp.var(latents_BFD, axis=(0, 1)).mean())
        commitment = commitment / (spread + 1e-6)
    total = c.commitment * commitment
    found = {
        "commitment": commitment,
        "use": out.stats.use,
        "entropy": out.stats.entropy,
        "explained": 1.0 - out.stats.residual / (out.stats.energy[0] + 1e-9),
    }
    if by_gradient:
        found["codebook"] = out.codebook.mean()
        total = total + c.codebook * found["codebook"]
    return total, found


def semantic_latents(quantizer: State, latents_BFD: Latents) -> Latents:
    """What the semantic levels alone decode to, with a gradient to the latents.

    They are the first part of a split quantizer (Mimi), or else the first level.
    """
    first = quantizer.first if isinstance(quantizer, quantize.Split) else quantizer.first(1)
    per_level = isinstance(first, quantize.Projected)
    return quantize.quantize(first, latents_BFD, per_level=per_level).latents
