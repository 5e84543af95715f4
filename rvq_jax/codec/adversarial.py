"""What a discriminator learns from real and decoded audio, and a codec from its judgements.

Each package's sums are kept, since its published weights belong to them: EnCodec's losses are means
over discriminators, DAC's are sums.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from rvq_jax.codec.discriminators.layers import Judgement
from rvq_jax.typing import Array

Kind = Literal["hinge", "least_squares"]

QUIET = 1e-3  # size of features below which a difference is no longer relative to them


def discriminator_loss(
    real: Sequence[Judgement], fake: Sequence[Judgement], kind: Kind = "hinge"
) -> Array:
    """Asks for scores above 1 of real and below -1 of decoded audio, or for 1 and 0.

    Args:
      real: judgements of real audio.
      fake: of decoded audio, which should be detached from the codec.
      kind: 'hinge' (Lim & Ye 2017), a mean over discriminators as EnCodec has it, or
        'least_squares' (Mao et al. 2017), a sum over them as DAC has it.

    Returns:
      A scalar.
    """
    if kind == "hinge":
        losses = [
            jnp.mean(jax.nn.relu(1 - r.scores)) + jnp.mean(jax.nn.relu(1 + f.scores))
            for r, f in zip(real, fake, strict=True)
        ]
        return sum(losses) / len(losses)
    return sum(
        jnp.mean((1 - r.scores) ** 2) + jnp.mean(f.scores**2)
        for r, f in zip(real, fake, strict=True)
    )


def generator_loss(fake: Sequence[Judgement], kind: Kind = "hinge") -> Array:
    """Asks for high scores of decoded audio, or for 1: the codec's side of `discriminator_loss`.

    The hinge's is minus the score without a bound, as audiocraft trains; EnCodec's paper stops at
    scores above 1.
    """
    if kind == "hinge":
        return -sum(jnp.mean(f.scores) for f in fake) / len(fake)
    return sum(jnp.mean((1 - f.scores) ** 2) for f in fake)


def feature_matching(
    real: Sequence[Judgement], fake: Sequence[Judgement], normalized: bool = True
) -> Array:
    """Mean absolute differences of the discriminators' features; those of real audio are detached.

    Args:
      real: judgements of real audio.
      fake: of decoded audio.
      normalized: each layer's difference is divided by the mean size of its real features, and the
        mean is taken over layers and discriminators (Défossez et al. 2022, §3.4; audiocraft
        computes the sizes and forgets them). Otherwise the plain sum (DAC).

    Returns:
      A scalar.
    """
    losses = []
    for r, f in zip(real, fake, strict=True):
        for wanted, found in zip(jax.lax.stop_gradient(r.features), f.features, strict=True):
            loss = jnp.mean(jnp.abs(wanted - found))
            losses.append(
                loss / jnp.maximum(jnp.mean(jnp.abs(wanted)), QUIET) if normalized else loss
            )
    return sum(losses) / len(losses) if normalized else sum(losses)
