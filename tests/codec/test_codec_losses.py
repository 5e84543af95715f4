"""What makes the losses usable: zero at equality, finite everywhere, fair to every item."""

import functools

import jax
import numpy as np
import pytest
import signals

from rvq_jax.audio import spectral
from rvq_jax.codec import losses

RATE = 16_000


noise = functools.partial(signals.noise, scale=0.1)
mel = jax.jit(losses.multi_scale_mel, static_argnums=(2, 3))


def test_l1_is_the_mean_absolute_difference():
    a, b = noise(2, 50, 2), noise(2, 50, 2, seed=1)
    np.testing.assert_allclose(losses.l1(a, b), np.abs(a - b).mean(), rtol=1e-6)


def test_equal_audio_costs_nothing_and_noise_costs_more_the_louder_it_is():
    a, b = noise(2, 3000, 1), noise(2, 3000, 1, seed=1)
    costs = [float(mel(a, a + gain * b, RATE)) for gain in (0.0, 0.01, 0.1, 1.0)]
    assert costs[0] < 1e-3
    assert costs == sorted(costs)


def test_the_distance_is_symmetric_and_hears_a_gain_as_its_log():
    """Both terms of a spectrum louder by g everywhere are ln g, at every scale."""
    a, b = noise(1, 3000, 1), noise(1, 3000, 1, seed=1)
    np.testing.assert_allclose(mel(a, b, RATE), mel(b, a, RATE), rtol=1e-5)
    np.testing.assert_allclose(mel(a, 2.0 * a, RATE), 2.0 * np.log(2.0), rtol=1e-2)


def test_a_batch_costs_the_mean_of_its_items():
    a, b = noise(3, 2000, 2), noise(3, 2000, 2, seed=1)
    singles = [mel(a[i : i + 1], b[i : i + 1], RATE) for i in range(3)]
    np.testing.assert_allclose(mel(a, b, RATE), np.mean(singles), rtol=1e-5)


@pytest.mark.parametrize("case", ["silence", "equal"])
def test_gradients_are_finite_where_roots_and_logs_are_steep(case):
    """Silence and perfect reconstruction both happen in training; one NaN ends a run."""
    a = np.zeros((1, 2500, 1), np.float32) if case == "silence" else noise(1, 2500, 1)
    gradient = jax.jit(jax.grad(lambda x: losses.multi_scale_mel(a, x, RATE)))(a)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
def test_no_default_scale_has_an_empty_band(rate):
    for window in (*losses.WINDOWS, 32, 64):
        filters = spectral.mel_filters(rate, window, losses.bands_of(window))
        assert (filters.sum(axis=0) > 0).all()
        # Two bands with the same bins would count them twice.
        assert len(np.unique(filters, axis=1).T) == filters.shape[1]


def test_windows_longer_than_the_audio_are_padded():
    a, b = noise(1, 100, 1), noise(1, 100, 1, seed=1)
    assert np.isfinite(mel(a, b, RATE, (32, 2048)))


# The published distances. Windows are longer than the crop: a mirror image of it fills them.
PUBLISHED = {
    "encodec_mel": lambda *pair: losses.encodec_mel(*pair, RATE, (512,)),
    "dac_mel": lambda *pair: losses.dac_mel(*pair, RATE, (512,), (40,)),
    "dac_stft": lambda *pair: losses.dac_stft(*pair, (512,)),
    "multi_resolution_stft": lambda *pair: losses.multi_resolution_stft(
        *pair, (512,), (50,), (240,)
    ),
    "si_sdr_loss": losses.si_sdr_loss,
}


@functools.cache
def published(name):
    return jax.jit(jax.value_and_grad(PUBLISHED[name], argnums=1))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_distances_and_their_gradients_are_finite(name):
    """Of silence, of equal audio, and of silence on one side only."""
    audio, silence = noise(2, 200, 2), np.zeros((2, 200, 2), np.float32)
    for pair in ((audio, audio), (silence, silence), (audio, silence), (silence, audio)):
        value, gradient = published(name)(*pair)
        assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_distances_grow_with_the_noise(name):
    audio, other = noise(2, 200, 2), noise(2, 200, 2, seed=1)
    costs = [published(name)(audio, audio + gain * other)[0] for gain in (0.0, 0.01, 0.1, 1.0)]
    assert costs == sorted(costs)
    assert name == "si_sdr_loss" or costs[0] < 1e-5


@pytest.mark.parametrize("name", [x for x in PUBLISHED if x != "multi_resolution_stft"])
def test_published_distances_of_a_batch_are_the_mean_of_its_items(name):
    """But for spectral convergence, whose norms are those of the batch."""
    pair = noise(2, 200, 2), noise(2, 200, 2, seed=1)
    doubled = [published(name)(*(x[[i, i]] for x in pair))[0] for i in range(2)]
    np.testing.assert_allclose(published(name)(*pair)[0], np.mean(doubled), rtol=1e-5)


def test_si_sdr_hears_no_gain_and_the_noise_in_decibels():
    """Noise at right angles to the signal, 20 dB below it."""
    audio, other = noise(1, 200, 1), noise(1, 200, 1, seed=1)
    audio, other = (x - x.mean() for x in (audio, other))
    other -= (other * audio).sum() / (audio**2).sum() * audio
    other *= 0.1 * np.linalg.norm(audio) / np.linalg.norm(other)
    for gain in (0.5, 3.0):
        np.testing.assert_allclose(
            losses.si_sdr_loss(audio, gain * (audio + other)), -20.0, rtol=1e-4
        )


def test_distillation_is_one_minus_the_cosine_of_frames_that_count():
    states, features = noise(2, 5, 8), noise(2, 5, 8, seed=1)
    mask = np.arange(5) < np.array([[5], [2]])
    cosine = [
        (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
        for a, b in zip(states[mask], features[mask], strict=True)
    ]
    features[~mask] = 100.0  # padding
    loss = jax.jit(losses.distillation)
    np.testing.assert_allclose(loss(states, features, mask), 1 - np.mean(cosine), rtol=1e-5)
    np.testing.assert_allclose(loss(3.0 * features, features, mask), 0.0, atol=1e-6)
    np.testing.assert_allclose(loss(-features, features, mask), 2.0, rtol=1e-6)


@pytest.mark.parametrize("case", ["no frame", "zeros"])
def test_distillation_is_finite_where_there_is_nothing(case):
    states = np.zeros((1, 3, 4), np.float32) if case == "zeros" else noise(1, 3, 4)
    mask = np.full((1, 3), case == "zeros")
    value, gradient = jax.jit(jax.value_and_grad(losses.distillation))(states, states, mask)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert (value == 0) == (case == "no frame")
