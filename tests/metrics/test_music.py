"""Tempo and key: of sounds that have one by construction, and of the built-in corpus."""

import dataclasses

import numpy as np
import pytest
from tiers import slow

from rvq_jax.data import synth
from rvq_jax.metrics import music

RATE = 16_000


@pytest.fixture(autouse=True)
def mixed_ranks():
    """The spectral transforms multiply frames by a window of lower rank."""
    import jax

    with jax.numpy_rank_promotion("allow"):
        yield


def clicks(bpm: float, rate: int, seconds: float = 8.0, weak: float = 0.0) -> np.ndarray:
    """A click on every beat, and one of another loudness between any two; seconds of it."""
    audio_S = np.zeros(round(seconds * rate))
    burst = np.random.default_rng(0).normal(size=rate // 100)
    for i, at in enumerate(np.arange(0.1, seconds - 0.1, 30 / bpm)):
        begin = round(at * rate)
        audio_S[begin : begin + burst.size] += (weak if i % 2 else 1.0) * burst
    return (0.1 * audio_S).astype(np.float32)


@pytest.mark.parametrize(("rate", "weak"), [(16_000, 0.0), (16_000, 0.1), (44_100, 0.0)])
def test_the_tempo_of_clicks(rate, weak):
    for bpm in (66, 75, 93.5, 111, 128, 148):
        assert music.tempo(clicks(bpm, rate, weak=weak), rate) == pytest.approx(bpm, rel=0.01)


def test_a_partial_is_found_between_the_bins():
    """To a tenth of the distance from one to the next, at every place between two."""
    window, t = 1024, np.arange(4096) / RATE
    for place in np.arange(40, 41, 0.2):
        hertz = place * RATE / window
        strength_FB, hertz_FB = music._partials(np.sin(2 * np.pi * hertz * t), RATE, window)
        found = np.take_along_axis(hertz_FB, strength_FB.argmax(1)[:, None], 1)
        np.testing.assert_allclose(found, hertz, atol=0.1 * RATE / window)


def chord(pitches, seconds: float) -> np.ndarray:
    """Notes at once, in semitones above middle C."""
    t = np.arange(round(seconds * RATE)) / RATE
    waves = [
        np.sin(2 * np.pi * music.MIDDLE_C * 2 ** (p / 12) * t * k) / k
        for p in pitches
        for k in (1, 2, 3)
    ]
    return np.sum(waves, axis=0) * np.minimum(1, 20 * (seconds - t))


@pytest.mark.parametrize("mode", ["major", "minor"])
def test_the_key_of_a_cadence(mode):
    """Tonic, fourth, fifth, tonic, in every key; the relative key has the same notes."""
    scale = synth.SCALES[mode]
    for root in range(12):
        parts = []
        for degree in (0, 3, 4, 0):
            notes = [scale[(degree + i) % 7] + 12 * ((degree + i) // 7) for i in (0, 2, 4)]
            parts.append(chord([root + notes[0] - 12, *(root + n for n in notes)], 0.8))
        audio_S = (0.05 * np.concatenate(parts)).astype(np.float32)
        assert music.key(audio_S, RATE) == (root, mode)
        assert music.key(0.01 * audio_S, RATE) == (root, mode)


def test_relative_keys_have_the_same_notes():
    for mode, scale in synth.SCALES.items():
        for root in range(12):
            other, turned = music.relative(root, mode)
            assert turned != mode and music.relative(other, turned) == (root, mode)
            notes = {(root + n) % 12 for n in scale}
            assert notes == {(other + n) % 12 for n in synth.SCALES[turned]}


def test_a_tempo_agrees_to_4_percent():
    assert music.tempo_agrees(103, 100) and not music.tempo_agrees(105, 100)
    assert not music.tempo_agrees(70, 140) and not music.tempo_agrees(140, 70)
    assert music.tempo_agrees(70, 140, octaves=True) and music.tempo_agrees(140, 70, octaves=True)
    assert not music.tempo_agrees(93, 140, octaves=True)
    assert not music.tempo_agrees(float("nan"), 100, octaves=True)


@pytest.mark.parametrize("samples", [0, 1, 100, RATE, 8 * RATE])
def test_of_silence_nothing_is_heard(samples):
    silence = np.zeros(samples, np.float32)
    assert np.isnan(music.tempo(silence, RATE)) and music.key(silence, RATE) is None


@pytest.mark.parametrize("count", [6, slow(100)])
def test_the_built_in_corpus_is_heard_as_its_captions_say(count):
    """Songs of 10 s; octaves of the tempo and relative keys count as wrong."""
    tempo, key, turned = 0, 0, 0
    for i in range(count):
        song = synth.song(i, seed=2)
        audio_S = synth.render(song, i, RATE, 10.0, seed=2)
        tempo += music.tempo_agrees(music.tempo(audio_S, RATE), song.bpm)
        key += music.key(audio_S, RATE) == (song.root, song.mode)
        if i < 4:  # what is played higher is heard higher
            other = dataclasses.replace(song, root=(song.root + 5) % 12)
            turned += music.key(synth.render(other, i, RATE, 10.0, seed=2), RATE) == (
                other.root,
                other.mode,
            )
    assert tempo >= 0.9 * count and key >= 0.9 * count and turned >= 3
