"""Losses on judgements: what is asked for, of whom, and how much a layer counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import signals

from rvq_jax.codec import adversarial
from rvq_jax.codec.discriminators import Judgement


def judgements(seed: int) -> tuple[Judgement, ...]:
    """Of two discriminators with two and one layers."""
    shapes = ((2, 3, 1), [(2, 5, 4), (2, 3, 4)]), ((2, 7, 1), [(2, 9, 2)])
    return tuple(
        Judgement(
            2 * signals.noise(*scores, seed=seed),
            tuple(signals.noise(*shape, seed=seed + i) for i, shape in enumerate(features)),
        )
        for scores, features in shapes
    )


REAL, FAKE = judgements(0), judgements(10)


def test_the_hinge_is_a_mean_over_discriminators_and_least_squares_a_sum():
    """With numpy, on scores beyond both margins."""
    real, fake = ([judgement.scores for judgement in x] for x in (REAL, FAKE))
    assert max(np.max(x) for x in real) > 1 and min(np.min(x) for x in fake) < -1
    hinge = [
        np.maximum(0, 1 - r).mean() + np.maximum(0, 1 + f).mean()
        for r, f in zip(real, fake, strict=True)
    ]
    squares = [np.mean((r - 1) ** 2) + np.mean(f**2) for r, f in zip(real, fake, strict=True)]
    asked = [np.mean((f - 1) ** 2) for f in fake]
    learn, ask = adversarial.discriminator_loss, adversarial.generator_loss
    np.testing.assert_allclose(learn(REAL, FAKE), np.mean(hinge), rtol=1e-6)
    np.testing.assert_allclose(learn(REAL, FAKE, "least_squares"), sum(squares), rtol=1e-6)
    np.testing.assert_allclose(ask(FAKE), -np.mean([f.mean() for f in fake]), rtol=1e-6)
    np.testing.assert_allclose(ask(FAKE, "least_squares"), sum(asked), rtol=1e-6)


@pytest.mark.parametrize("kind", ["hinge", "least_squares"])
def test_codec_and_discriminator_pull_the_scores_of_decoded_audio_apart(kind):
    """And scores beyond the discriminator's margin move it no more."""
    learn = jax.grad(lambda fake: adversarial.discriminator_loss(REAL, fake, kind))(FAKE)
    ask = jax.grad(lambda fake: adversarial.generator_loss(fake, kind))(FAKE)
    for judgement, up, down in zip(FAKE, learn, ask, strict=True):
        inside = (judgement.scores > -1) & (judgement.scores < 1)
        assert (down.scores[inside] < 0).all()
        if kind == "hinge":
            np.testing.assert_array_equal(up.scores > 0, judgement.scores > -1)
        else:
            np.testing.assert_array_equal(up.scores > 0, judgement.scores > 0)


def scaled(of: tuple[Judgement, ...], by: float) -> tuple[Judgement, ...]:
    """With the first layer of the first discriminator louder."""
    first, *others = of
    features = (by * first.features[0], *first.features[1:])
    return (first._replace(features=features), *others)


def test_features_are_matched_relative_to_their_size_or_as_they_are():
    """The plain one counts a layer by its size, the normalized one every layer alike."""
    pairs = [
        (r, f)
        for real, fake in zip(REAL, FAKE, strict=True)
        for r, f in zip(real.features, fake.features, strict=True)
    ]
    plain = [np.abs(r - f).mean() for r, f in pairs]
    relative = [x / np.abs(r).mean() for x, (r, _) in zip(plain, pairs, strict=True)]
    match = adversarial.feature_matching
    np.testing.assert_allclose(match(REAL, FAKE), np.mean(relative), rtol=1e-6)
    np.testing.assert_allclose(match(REAL, FAKE, False), sum(plain), rtol=1e-6)
    louder = scaled(REAL, 50.0), scaled(FAKE, 50.0)
    np.testing.assert_allclose(match(*louder), match(REAL, FAKE), rtol=1e-6)
    np.testing.assert_allclose(match(*louder, False), sum(plain) + 49 * plain[0], rtol=1e-6)


@pytest.mark.parametrize("normalized", [True, False])
def test_features_of_real_audio_are_not_moved(normalized):
    real, fake = jax.grad(adversarial.feature_matching, (0, 1))(REAL, FAKE, normalized)
    assert not any(np.any(x) for x in jax.tree.leaves(real))
    assert all(np.any(x) for judgement in fake for x in judgement.features)


def test_features_that_are_silent_do_not_divide_by_nothing():
    silent = jax.tree.map(jnp.zeros_like, REAL)
    gradient = jax.grad(lambda fake: adversarial.feature_matching(silent, fake))(FAKE)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
