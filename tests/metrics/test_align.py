"""Delays that were put in are found, and taken off to the sample."""

import numpy as np
import pytest
from signals import noise

from rvq_jax import metrics


@pytest.mark.parametrize("shift", [0, 1, -1, 7, -312, 999, -1000])
@pytest.mark.parametrize("gain", [0.01, 1.0, 30.0])
def test_a_known_shift_is_found_in_noise(shift, gain):
    """Of 5000 samples, with noise as loud as the signal, and a mean that says nothing."""
    reference = noise(5000)
    late = metrics.aligned(reference[:, None], reference[:, None], -shift)[:, 0]
    estimate = gain * (late + noise(5000, seed=1)) + 5.0
    assert metrics.delay(reference, estimate, most=1000) == shift
    assert metrics.delay(estimate, reference, most=1000) == -shift


def test_only_delays_that_were_asked_for_are_found():
    reference = noise(500)
    assert metrics.delay(reference, np.roll(reference, 3), most=2) in range(-2, 3)
    assert metrics.delay(reference, np.roll(reference, 3), most=0) == 0
    assert metrics.delay(reference, reference[:100], most=10**9) == 0
    with pytest.raises(ValueError, match="at least 0"):
        metrics.delay(reference, reference, most=-1)


def test_silence_has_no_delay():
    """Nor has what repeats any other than the least."""
    silent, reference = np.zeros(50), noise(50)
    for pair in ((silent, reference), (reference, silent), (silent, silent + 0.3), ([], reference)):
        assert metrics.delay(*pair, most=20) == 0
    periodic = np.sin(2 * np.pi * np.arange(400) / 8)
    assert metrics.delay(periodic, periodic, most=100) == 0


@pytest.mark.parametrize("shift", [0, 3, -3, 50, -50])
@pytest.mark.parametrize("length", [1, 9, 20, 40])
def test_aligned_has_the_reference_s_length_and_each_sample_in_its_place(shift, length):
    reference, estimate = np.zeros((20, 2)), noise(length, 2)
    found = metrics.aligned(reference, estimate, shift)
    assert found.shape == reference.shape and found.dtype == np.float32
    for i in range(20):
        there = 0 <= i + shift < length
        np.testing.assert_array_equal(found[i], estimate[i + shift] if there else 0.0)


def test_what_is_found_is_taken_off():
    reference = noise(2000, 1)
    for shift in (25, -25):
        late = metrics.aligned(np.zeros((2100, 1)), reference, -shift)
        found = metrics.aligned(reference, late, metrics.delay(reference[:, 0], late[:, 0], 100))
        inside = slice(25, -25)
        np.testing.assert_array_equal(found[inside], reference[inside])
