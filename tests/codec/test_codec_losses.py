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
