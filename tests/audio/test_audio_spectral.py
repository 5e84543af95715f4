"""Spectra against numpy, and the laws of framing and of mel filters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from signals import noise
from tiers import examples

from rvq_jax.audio import spectral

RATE = 16_000


def frames_by_loop(audio_S, window, hop):
    """Frame i is the window centred on sample i · hop of a signal that is zero outside."""
    frames = np.zeros((len(audio_S) // hop + 1, window), np.float32)
    for i in range(len(frames)):
        for j in range(window):
            s = i * hop + j - window // 2
            frames[i, j] = audio_S[s] if 0 <= s < len(audio_S) else 0.0
    return frames


@examples(10)
@given(st.integers(1, 60), st.integers(1, 24), st.integers(1, 9))
def test_frames_equal_a_loop_for_any_length_window_and_hop(samples, window, hop):
    audio_S = noise(samples)
    np.testing.assert_array_equal(
        spectral.frame(audio_S, window, hop), frames_by_loop(audio_S, window, hop)
    )


@pytest.mark.parametrize("window, hop", [(32, 8), (48, 20)])
def test_stft_equals_a_discrete_fourier_sum(window, hop):
    audio_S = noise(200)
    n, k = np.arange(window), np.arange(window // 2 + 1)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / window)
    waves = np.exp(-2j * np.pi * n[:, None] * k / window)
    expected = (frames_by_loop(audio_S, window, hop) * hann) @ waves
    np.testing.assert_allclose(spectral.stft(audio_S, window, hop), expected, atol=1e-4)


def test_stft_keeps_energy():
    """Squared Hann windows a quarter apart add up to 1.5 everywhere, so by Parseval the energy of
    all two-sided spectra is 1.5 · window times the signal's, whatever the signal."""
    window, hop = 64, 16
    # Silence at the ends: fewer windows cover them.
    audio_S = np.pad(noise(900), window)
    power = np.abs(spectral.stft(audio_S, window, hop)) ** 2
    two_sided = 2 * power.sum() - power[:, 0].sum() - power[:, -1].sum()
    np.testing.assert_allclose(two_sided, 1.5 * window * (audio_S**2).sum(), rtol=1e-5)


@pytest.mark.parametrize("rate", [16_000, 48_000])
@pytest.mark.parametrize("window, bands", [(32, 5), (128, 16), (512, 64), (2048, 64)])
def test_no_mel_filter_is_empty_or_above_one(rate, window, bands):
    filters = spectral.mel_filters(rate, window, bands)
    assert filters.shape == (window // 2 + 1, bands) and filters.dtype == np.float32
    assert filters.min() >= 0 and filters.max() <= 1
    assert (filters.max(axis=0) > 0).all()
    assert (np.diff(filters.argmax(axis=0)) >= 0).all()


def test_mel_filters_sum_to_one_between_the_outer_centres():
    """Where triangles are wide, each falls exactly as its neighbour rises."""
    filters = spectral.mel_filters(RATE, 2048, 20)
    assert not filters.flags.writeable  # one array for all who ask
    first, last = filters[:, 0].argmax(), filters[:, -1].argmax()
    np.testing.assert_allclose(filters[first + 1 : last].sum(axis=1), 1.0, atol=1e-5)


def test_log_mel_of_a_louder_signal_is_higher_by_the_log_of_the_gain():
    audio_S = 0.1 * noise(2000)
    quiet, loud = (spectral.log_mel(gain * audio_S, RATE) for gain in (1.0, 3.0))
    assert quiet.shape == (2000 // 128 + 1, 64)
    np.testing.assert_allclose(loud - quiet, np.log(3.0), atol=1e-4)


@pytest.mark.parametrize("window", [256, 1024])
def test_log_mel_of_a_sine_peaks_at_its_frequency_near_its_amplitude(window):
    """The window's length must not move the level: a full-scale sine stays within 6 dB of 0."""
    hertz = 1000.0
    audio_S = np.sin(2 * np.pi * hertz * np.arange(8000) / RATE).astype(np.float32)
    mel = np.asarray(spectral.log_mel(audio_S, RATE, window, window // 4, 24))[8:-8].mean(axis=0)
    filters = spectral.mel_filters(RATE, window, 24)
    assert mel.argmax() == filters[round(hertz * window / RATE)].argmax()
    assert abs(mel.max()) < np.log(2.0) + 0.05


def test_log_mel_has_finite_gradients_on_silence():
    """The square root's slope is infinite at zero: unguarded, one silent frame makes all NaN."""
    silence = jnp.zeros((2, 600))
    assert np.allclose(spectral.log_mel(silence, RATE), np.log(1e-3))
    gradient = jax.grad(lambda x: spectral.log_mel(x, RATE).sum())(silence)
    assert np.isfinite(gradient).all()


def test_batch_axes_do_not_mix():
    audio_BCS = noise(2, 3, 400)
    whole = spectral.log_mel(audio_BCS, RATE, 128, 32, 16)
    single = spectral.log_mel(audio_BCS[1, 2], RATE, 128, 32, 16)
    np.testing.assert_allclose(whole[1, 2], single, atol=1e-4)
