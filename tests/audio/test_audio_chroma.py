"""Chromagrams: pure tones give their pitch class, and random audio what numpy says."""

import numpy as np
import pytest
from signals import noise

from rvq_jax.audio.chroma import HOP, WINDOW, chroma, chroma_filters, fit

RATE = 32_000
A = 9  # the class of 440 Hz, with C = 0


def tones(hertz, samples=WINDOW, rate=RATE):
    """One sine `[1, S, 1]` of each frequency, together a batch."""
    seconds = np.arange(samples) / rate
    return np.sin(2 * np.pi * np.reshape(hertz, (-1, 1, 1)) * seconds[None, :, None])


def by_loop(audio_S, rate):
    """The strongest class of each frame, one frame and one class at a time, in float64."""
    mirrored = np.pad(audio_S.astype(np.float64), WINDOW // 2, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    filters = chroma_filters(rate, WINDOW).astype(np.float64)
    found = []
    for p in range(len(audio_S) // HOP + 1):
        power = np.abs(np.fft.rfft(hann * mirrored[p * HOP : p * HOP + WINDOW])) ** 2
        found.append(np.argmax([(row * power).sum() for row in filters]))
    return np.array(found)


@pytest.mark.parametrize("rate", [16_000, RATE, 44_100])
@pytest.mark.parametrize("octave", [3, 4, 5, 6, 7])
def test_a_pure_tone_gives_its_pitch_class_in_every_octave(octave, rate):
    hertz = 440.0 * 2.0 ** (octave - 4 + (np.arange(12) - A) / 12)
    found = chroma(tones(hertz, rate=rate), rate)
    assert found.shape == (12, 5, 12) and found.dtype == np.float32
    np.testing.assert_array_equal(found, np.broadcast_to(np.eye(12)[:, None], found.shape))


def test_filters_an_octave_apart_differ_by_a_weight_alone():
    """Where a class is wider than a frequency, which is from the 17th on."""
    filters = chroma_filters(RATE, WINDOW)
    shape = filters / np.linalg.norm(filters, axis=0, keepdims=True)
    k = np.arange(17, WINDOW // 4 + 1)
    np.testing.assert_allclose(shape[:, k], shape[:, 2 * k], atol=1e-5)


def test_filters_put_semitones_on_their_class_and_weigh_880_hertz_most():
    filters = chroma_filters(RATE, WINDOW)
    assert filters.shape == (12, WINDOW // 2 + 1) and filters.dtype == np.float32
    k = np.arange(30, WINDOW // 2 + 1)
    semitones = np.round(12 * np.log2(k * RATE / WINDOW / 440.0)).astype(int)
    np.testing.assert_array_equal(filters[:, k].argmax(axis=0), (semitones + A) % 12)
    weight = np.linalg.norm(filters, axis=0)
    assert abs(weight.argmax() * RATE / WINDOW - 880.0) <= RATE / WINDOW
    np.testing.assert_allclose(weight.max(), 1.0, atol=1e-4)


def test_more_bins_are_finer_than_a_semitone():
    found = chroma(tones([440.0, 440.0 * 2 ** (1 / 48)]), RATE, bins=48)
    assert found.argmax(-1).tolist() == [[4 * A] * 5, [4 * A + 1] * 5]


@pytest.mark.parametrize("samples", [WINDOW, WINDOW + 1, 12 * HOP - 1, 12 * HOP + 77])
def test_random_audio_equals_a_loop_of_discrete_fourier_transforms(samples):
    audio = noise(2, samples, 1)
    found = chroma(audio, RATE)
    expected = np.stack([by_loop(audio_S1[:, 0], RATE) for audio_S1 in audio])
    np.testing.assert_array_equal(found.argmax(-1), expected)
    np.testing.assert_array_equal(found.sum(-1), 1.0)


@pytest.mark.parametrize("samples", [1, 1000, WINDOW - 1])
def test_short_audio_is_audio_between_silences(samples):
    audio = noise(1, samples, 1)
    short = WINDOW - samples
    padded = np.pad(audio, [(0, 0), (short // 2, short - short // 2), (0, 0)])
    found = chroma(audio, RATE)
    assert found.shape == (1, 5, 12)
    np.testing.assert_array_equal(found, chroma(padded, RATE))


def test_thirty_seconds_at_32_khz_are_235_frames():
    tune = tones([440.0], samples=30 * RATE)
    found = chroma(tune, RATE)
    assert found.shape == (1, 235, 12)
    assert (found.argmax(-1) == A).all()


def test_silence_is_one_hot_and_finite():
    found = chroma(np.zeros((1, WINDOW, 1), np.float32), RATE)
    np.testing.assert_array_equal(found, np.broadcast_to(np.eye(12)[:1], found.shape))


def test_loudness_changes_nothing():
    audio = noise(1, 3 * WINDOW, 1)
    np.testing.assert_array_equal(chroma(audio, RATE), chroma(1e-3 * audio, RATE))


def test_stereo_is_the_mean_of_its_channels():
    audio = noise(2, 2 * WINDOW, 2)
    mono = audio.mean(axis=-1, keepdims=True)
    np.testing.assert_array_equal(chroma(audio, RATE), chroma(mono, RATE))


def test_fit_repeats_from_the_start_or_cuts():
    frames = np.eye(12, dtype=np.float32)[None, :5]
    assert fit(frames, 12).argmax(-1).tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]]
    np.testing.assert_array_equal(fit(frames, 3), frames[:, :3])
    np.testing.assert_array_equal(fit(frames, 5), frames)
    assert fit(frames).shape == (1, 235, 12)
    with pytest.raises(ValueError, match="no frames"):
        fit(frames[:, :0])


@pytest.mark.parametrize("shape", [(WINDOW,), (1, WINDOW), (1, 0, 1), (0, WINDOW, 1)])
def test_audio_that_is_empty_or_of_another_rank_is_refused(shape):
    with pytest.raises(ValueError, match=r"\[B, S, C\]"):
        chroma(np.zeros(shape, np.float32), RATE)
