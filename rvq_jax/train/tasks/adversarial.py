"""What discriminators say of decoded audio, and what they learn from it, in one simultaneous step.

Goodfellow et al. 2014; for codecs Défossez et al. 2022 (EnCodec, §3.4) and Kumar et al. 2023 (DAC).
"""

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from rvq_jax.codec.adversarial import discriminator_loss, feature_matching, generator_loss
from rvq_jax.codec.discriminators import DiscriminatorsConfig, graph
from rvq_jax.train.optimizers import OptimizerConfig
from rvq_jax.typing import Array, Audio


@dataclass(frozen=True)
class AdversarialConfig:
    """Discriminators beside a codec: which, how they are heard, and how they are trained."""

    discriminators: DiscriminatorsConfig | None = None
    loss: Literal["hinge", "least_squares"] = "hinge"  # of both sides
    weight: float = 3.0  # of the codec's adversarial loss
    features: float = 3.0  # of feature matching
    normalized: bool = True  # feature matching relative to the size of the features (EnCodec)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=3e-4, b1=0.5, b2=0.9, weight_decay=0.0, schedule="constant"
        )
    )

    @property
    def on(self) -> bool:
        """Whether there are discriminators that are heard."""
        kinds = vars(self.discriminators).values() if self.discriminators else ()
        any_kind = any(dataclasses.is_dataclass(kind) for kind in kinds)
        return any_kind and (self.weight > 0 or self.features > 0)


class Judged(NamedTuple):
    """What discriminators make of a batch: of each loss its value and gradient at the decoder's
    output, and what they themselves learn."""

    losses: dict[str, Array]
    at_output: dict[str, Audio]  # [B, S, C] of each loss, or of their weighted sum
    own_loss: Array
    own_gradient: nnx.State  # of their parameters
    scores: dict[str, Array]  # means over real and decoded audio


def judge(
    config: AdversarialConfig, apart: bool, params: nnx.State, audio: Audio, decoded: Audio
) -> Judged:
    """Discriminators look once at real and once at decoded audio, and all gradients are of that.

    Args:
      config: which discriminators, and their losses.
      apart: whether gradients at `decoded` are of each loss, a pass through the discriminators for
        each; else that of their weighted sum alone, `judged`.
      params: their parameters.
      audio: real audio `[B, S, C]`.
      decoded: the same as a codec gives it back.

    Returns:
      Losses of the codec, `adversarial` and `features`, with their gradients at `decoded`; the loss
      of the discriminators with its gradient at `params`.
    """

    def look(params, audio):
        return nnx.merge(graph(config.discriminators), params)(audio)

    real, pull_real = jax.vjp(lambda params: look(params, audio), params)
    fake, pull_fake = jax.vjp(look, params, decoded)

    def heard(fake):
        return {
            "adversarial": generator_loss(fake, config.loss),
            "features": feature_matching(real, fake, config.normalized),
        }

    losses, pull_losses = jax.vjp(heard, fake)
    weights = {"adversarial": config.weight, "features": config.features}
    wanted = {"judged": weights}
    if apart:
        wanted = {name: {other: float(name == other) for other in weights} for name in weights}
    at_output = {
        name: pull_fake(pull_losses(jax.tree.map(jnp.float32, parts))[0])[1]
        for name, parts in wanted.items()
    }

    own = functools.partial(discriminator_loss, kind=config.loss)
    own_loss, (slope_real, slope_fake) = jax.value_and_grad(own, argnums=(0, 1))(real, fake)
    own_gradient = jax.tree.map(jnp.add, pull_real(slope_real)[0], pull_fake(slope_fake)[0])
    scores = {
        "real_score": jnp.mean(jnp.stack([one.scores.mean() for one in real])),
        "decoded_score": jnp.mean(jnp.stack([one.scores.mean() for one in fake])),
    }
    return Judged(losses, at_output, own_loss, own_gradient, scores)


def judge_from(
    updates: Array,
    config: AdversarialConfig,
    apart: bool,
    params: nnx.State,
    audio: Audio,
    decoded: Audio,
) -> Judged:
    """As `judge` from the update on in which the discriminators start; before it zeros, which cost
    nothing.

    Args:
      updates: done up to now.
      config: as of `judge`.
      apart: as of `judge`.
      params: as of `judge`.
      audio: as of `judge`.
      decoded: as of `judge`.

    Returns:
      As `judge`.
    """
    start = config.optimizer.start
    if start == 0:
        return judge(config, apart, params, audio, decoded)
    look = functools.partial(judge, config, apart)
    shapes = jax.eval_shape(look, params, audio, decoded)

    def nothing(*_):
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    return jax.lax.cond(updates >= start, look, nothing, params, audio, decoded)


def with_gradient(value: Array, *pairs) -> Array:
    """A value whose gradients are given: at each tree of pairs (tree, gradient) the second.

    The surrogate of Défossez et al. 2022's balancer: a sum of products whose slope is the gradient
    and which adds nothing.
    """
    for tree, gradient in pairs:
        products = jax.tree.map(
            lambda x, slope: jnp.vdot(jax.lax.stop_gradient(slope), x), tree, gradient
        )
        surrogate = sum(jax.tree.leaves(products))
        value = value + (surrogate - jax.lax.stop_gradient(surrogate))
    return value
