"""The built-in corpus: its captions are measured back from its sound."""

import time
from dataclasses import replace

import numpy as np
import pytest

from rvq_jax.data import synth
from rvq_jax.data.synth import Song

RATE = 16_000
SECONDS = 8.0
BINS = 4096
# Stated here again: a scale read from the code would be heard in the code's sound, right or not.
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}


def spectrogram(audio_S: np.ndarray, size: int, hop: int) -> np.ndarray:
    frames_FS = np.lib.stride_tricks.sliding_window_view(audio_S, size)[::hop]
    return np.abs(np.fft.rfft(frames_FS * np.hanning(size), axis=1))


def onset_period(audio_S: np.ndarray, rate: int) -> float:
    """Seconds between ticks: the strongest autocorrelation of rises in the high band."""
    hop = rate // 200
    power_FB = spectrogram(audio_S, 4 * hop, hop) ** 2
    high_F = power_FB[:, power_FB.shape[1] * 3 // 4 :].sum(1)
    rises_F = np.maximum(np.diff(np.sqrt(high_F)), 0.0)
    rises_F -= rises_F.mean()
    match = np.correlate(rises_F, rises_F, "full")[rises_F.size - 1 :]
    # From 65 to 160 beats a minute, a little more than the corpus states.
    low, high = round(200 * 60 / 160), round(200 * 60 / 65)
    return (low + np.argmax(match[low:high])) / 200


def chroma(audio_S: np.ndarray, rate: int) -> np.ndarray:
    """Energy by pitch class, C first, between 100 and 1000 Hz."""
    power_B = (spectrogram(audio_S, BINS, BINS // 2) ** 2).sum(0)
    hertz_B = np.fft.rfftfreq(BINS, 1 / rate)
    keep = (hertz_B > 100) & (hertz_B < 1000)
    classes = np.round(12 * np.log2(hertz_B[keep] / 261.63)).astype(int) % 12
    return np.bincount(classes, power_B[keep], minlength=12)


def centroid(audio_S: np.ndarray, rate: int) -> float:
    power_B = (spectrogram(audio_S, BINS, BINS) ** 2).sum(0)
    return float(np.fft.rfftfreq(BINS, 1 / rate) @ power_B / power_B.sum())


@pytest.mark.parametrize("instrument", synth.INSTRUMENTS)
@pytest.mark.parametrize("bpm", [80, 100, 120, 140])
def test_the_stated_tempo_is_heard(instrument, bpm):
    song = Song(bpm, "warm", instrument, 9, "minor")
    for index in (0, 1):
        period = onset_period(synth.render(song, index, RATE, SECONDS), RATE)
        assert abs(period - 60 / bpm) < 0.02, (60 / period, index)


@pytest.mark.parametrize("instrument", synth.INSTRUMENTS)
def test_bright_is_brighter_than_warm(instrument):
    for index in range(4):
        song = replace(synth.song(index), instrument=instrument)
        bright, warm = (
            centroid(synth.render(replace(song, tone=tone), index, RATE, 4.0), RATE)
            for tone in ("bright", "warm")
        )
        assert bright > 1.1 * warm


@pytest.mark.parametrize("instrument", ["pluck", "pad", "organ"])
@pytest.mark.parametrize("mode", SCALES)
def test_the_stated_key_is_heard(instrument, mode):
    """A random scale would hold 7 / 12 of the energy; a bell's partials belong to no scale."""
    for root in (0, 4, 9):
        song = Song(90, "warm", instrument, root, mode)
        energy = chroma(synth.render(song, root, RATE, SECONDS), RATE)
        parts = {
            name: energy[[(root + step) % 12 for step in steps]].sum() / energy.sum()
            for name, steps in SCALES.items()
        }
        assert parts[mode] > 0.85 and parts[mode] == max(parts.values())


@pytest.mark.parametrize("instrument", synth.INSTRUMENTS)
def test_instruments_differ_in_how_notes_begin_and_end(instrument):
    """Plucks and bells die away within a note; pads and organs hold it, and pads begin slowly."""
    song = Song(70, "warm", instrument, 0, "major")
    note_S = synth._note(song, 0, 1.0, RATE, 1.0)
    level = [np.sqrt(np.square(part).mean()) for part in np.split(note_S, 10)]
    held = level[8] > 0.5 * level[4]
    assert held == (instrument in ("pad", "organ"))
    # Loudness of the first 20 ms beside that of the first tenth.
    begin = np.sqrt(np.square(note_S[: RATE // 50]).mean()) / level[0]
    assert (begin < 0.3) == (instrument == "pad")


def test_bells_ring_off_the_harmonic_series():
    def harmonic_part(instrument: str) -> float:
        note_S = synth._note(Song(70, "bright", instrument, 0, "major"), 0, 1.0, RATE, 1.0)
        power_B = np.abs(np.fft.rfft(note_S * np.hanning(note_S.size))) ** 2
        place_B = np.arange(power_B.size) / 261.63  # bins are 1 Hz wide here
        near_B = np.abs(place_B - np.round(place_B)) * 261.63 < 8
        return power_B[near_B].sum() / power_B.sum()

    assert harmonic_part("pluck") > 0.99 > 0.95 > harmonic_part("bell")


def test_the_caption_says_all_attributes():
    song = Song(120, "bright", "pluck", 9, "minor")
    assert song.caption == "a fast bright pluck in A minor, 120 bpm"
    seen = {synth.song(i).caption for i in range(200)}
    for words in (synth.TONES, synth.INSTRUMENTS, SCALES, ("slow", "steady", "fast")):
        for word in words:
            assert any(word in caption.replace(",", "").split() for caption in seen), word
    assert len(seen) > 150  # hardly any caption twice


def test_a_song_depends_on_seed_and_index_only():
    song = synth.song(3, seed=5)
    audio_S = synth.render(song, 3, RATE, 2.0, seed=5)
    synth.render(synth.song(4), 4, RATE, 1.0)
    assert synth.song(3, seed=5) == song
    np.testing.assert_array_equal(synth.render(song, 3, RATE, 2.0, seed=5), audio_S)
    for index, seed in ((4, 5), (3, 6)):
        assert np.abs(synth.render(song, index, RATE, 2.0, seed=seed) - audio_S).max() > 0.1


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_samples_are_finite_within_range_and_as_long_as_asked(rate):
    for index in range(4):
        audio_S = synth.render(synth.song(index), index, rate, 1.7)
        assert audio_S.shape == (round(1.7 * rate),) and audio_S.dtype == np.float32
        assert np.isfinite(audio_S).all() and 0.69 < np.abs(audio_S).max() < 0.71


def test_rendering_is_far_faster_than_real_time():
    song = synth.song(0)
    begin = time.process_time()
    synth.render(song, 0, RATE, 6.0)
    assert time.process_time() - begin < 1.5
