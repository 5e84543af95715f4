"""The built-in corpus: short captioned music from numpy, the same on every machine.

A song is its attributes (which its caption states, so that a caption can be checked against the
sound) rendered as notes: chords walked by a melody, broken by a second voice, a bass on their
roots, and drums. No two notes are equally loud, and held notes waver: of steady tones, a frame
would tell all about the next, which it does not in music that people play.
"""

import functools
from dataclasses import dataclass

import numpy as np

NOTES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
# Chord roots as scale degrees, one per bar of four beats.
PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 0, 4), (5, 3, 0, 4))
INSTRUMENTS = ("pluck", "bell", "pad", "organ")
TONES = ("bright", "warm")
BPM = (70, 80, 90, 100, 110, 120, 130, 140)
# Frequencies of a bell's partials over its fundamental: a struck bar's, not a string's.
BELL = np.array([1.0, 2.76, 5.40, 8.93])


@dataclass(frozen=True)
class Song:
    """What a caption says of a song."""

    bpm: int
    tone: str
    instrument: str
    root: int  # 0 = C … 11 = B
    mode: str

    @property
    def speed(self) -> str:
        """The word for the tempo."""
        return "slow" if self.bpm < 90 else "fast" if self.bpm > 115 else "steady"

    @property
    def caption(self) -> str:
        """Such as 'a fast bright pluck in A minor, 120 bpm'."""
        key = f"{NOTES[self.root]} {self.mode}"
        return f"a {self.speed} {self.tone} {self.instrument} in {key}, {self.bpm} bpm"


def song(index: int, seed: int = 0) -> Song:
    """The attributes of song `index`; they depend on (seed, index) only."""
    rng = np.random.default_rng((seed, index, 0))
    return Song(
        bpm=int(rng.choice(BPM)),
        tone=str(rng.choice(TONES)),
        instrument=str(rng.choice(INSTRUMENTS)),
        root=int(rng.integers(12)),
        mode=str(rng.choice(list(SCALES))),
    )


def render(song: Song, index: int, rate: int, seconds: float, seed: int = 0) -> np.ndarray:
    """Synthesizes a song of the built-in corpus.

    Args:
      song: attributes of the song.
      index: number of the song in the corpus; the melody depends on (seed, index).
      rate: samples per second.
      seconds: length of the audio.
      seed: seed of the corpus.

    Returns:
      Audio `[S]` float32 of one channel, with a peak of 0.7.
    """
    rng = np.random.default_rng((seed, index, 1))
    out_S = np.zeros(round(seconds * rate))
    beat = 60.0 / song.bpm
    bars = int(np.ceil(seconds / (4 * beat)))
    progression = PROGRESSIONS[rng.integers(len(PROGRESSIONS))]
    degree = 0
    for bar in range(bars):
        chord = progression[bar % 4]
        at = bar * 4 * beat
        for half in range(2):
            bass = _note(song, chord - 7, 2 * beat, rate, 0.5)
            _add(out_S, at + 2 * half * beat, rate, rng.uniform(0.6, 1.0) * _rough(rng, bass))
        for eighth in range(8):
            broken = _note(song, chord + 7 + int(rng.choice((0, 2, 4))), beat / 2, rate, 0.3)
            _add(out_S, at + eighth * beat / 2, rate, rng.uniform(0.0, 1.0) * _rough(rng, broken))
            _add(out_S, at + eighth * beat / 2, rate, _hat(rng, rate, 0.05 * rng.uniform()))
            # Notes on every beat, and on half of the places between.
            if eighth % 2 and rng.random() < 0.5:
                continue
            # Chord notes on the beat, a step up or down between.
            step = rng.choice((0, 2, 4, 7)) if eighth % 2 == 0 else rng.choice((-1, 1))
            degree = chord + step if eighth % 2 == 0 else degree + step
            length = beat * (0.5 if song.instrument in ("pad", "organ") else 1.0)
            note = _note(song, degree, length, rate, 0.4)
            _add(out_S, at + eighth * beat / 2, rate, rng.uniform(0.4, 1.0) * _rough(rng, note))
        for tick in range(4):
            _add(out_S, at + tick * beat, rate, _hat(rng, rate, 0.15 if tick else 0.25))
            if tick % 2:
                _add(out_S, at + tick * beat, rate, _snare(rng, rate, rng.uniform(0.1, 0.2)))
    peak = np.abs(out_S).max()
    return (0.7 * out_S / max(peak, 1e-9)).astype(np.float32)


# A song plays few different notes, and each costs a hundred times its addition.
@functools.lru_cache(maxsize=64)
def _note(song: Song, degree: int, length: float, rate: int, gain: float) -> np.ndarray:
    """A note of the scale, `length` seconds: a sum of partials under envelopes."""
    octave, place = divmod(int(degree), 7)
    semitone = song.root + SCALES[song.mode][place] + 12 * octave
    hertz = 261.63 * 2.0 ** (semitone / 12)
    bell = song.instrument == "bell"
    partials = BELL if bell else np.arange(1.0, 13.0)
    partials = partials[partials * hertz < 0.45 * rate]
    slope = 0.7 if song.tone == "bright" else 2.0
    strength = partials**-slope
    if song.instrument == "organ":
        strength = strength * np.isin(partials, (1, 2, 3, 4, 6, 8))
    t = np.arange(round(length * rate)) / rate
    # A singer's vibrato: a fifth of a semitone either way, in place after a tenth of a second.
    depth = 0.012 * hertz / (2 * np.pi * 5.5) if song.instrument in ("pad", "organ") else 0.0
    waver = depth * np.minimum(t / 0.1, 1.0) * np.sin(2 * np.pi * 5.5 * t)
    waves = np.sin(2 * np.pi * partials[:, None] * (hertz * t + waver))
    if song.instrument in ("pluck", "bell"):
        # High partials of a string die first.
        fade = (2.0 if bell else 4.0) * (1.0 + 0.4 * (partials - 1.0))
        waves = waves * np.exp(-fade[:, None] * t)
    attack = 0.12 if song.instrument == "pad" else 0.004
    envelope = np.minimum(t / attack, 1.0) * np.minimum((length - t) / 0.02, 1.0)
    return gain * envelope * (strength @ waves) / strength.sum()


def _rough(rng: np.random.Generator, note: np.ndarray) -> np.ndarray:
    """A note with the noise of a bow or of breath, which follows its loudness: 16 dB below it."""
    return note * (1.0 + 0.15 * rng.normal(size=note.size))


def _snare(rng: np.random.Generator, rate: int, gain: float) -> np.ndarray:
    """A burst of noise in all bands."""
    t = np.arange(round(0.15 * rate)) / rate
    return gain * rng.normal(size=t.size) * np.exp(-t / 0.04)


def _hat(rng: np.random.Generator, rate: int, gain: float) -> np.ndarray:
    """A short burst of high noise, like a closed hi-hat."""
    t = np.arange(round(0.03 * rate)) / rate
    return gain * np.diff(rng.normal(size=t.size + 1)) * np.exp(-t / 0.006)


def _add(out_S: np.ndarray, seconds: float, rate: int, note: np.ndarray) -> None:
    begin = round(seconds * rate)
    room = max(0, min(note.size, out_S.size - begin))
    out_S[begin : begin + room] += note[:room]
