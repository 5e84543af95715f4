"""What a listener would say of music: how fast it is, and in which key."""

import functools

import numpy as np

from rvq_jax.audio import spectral
from rvq_jax.typing import Array

SLOWEST, FASTEST = 65.0, 150.0  # beats per minute that are looked for
ONSETS = 125  # frames per second in which onsets are looked for
TEMPO_TOLERANCE = 0.04  # share of the tempo, as MIREX has it
MIDDLE_C = 261.63  # hertz
LOWEST, BASS, HIGHEST = 110.0, 500.0, 1500.0  # hertz: of notes, of bass notes, of notes
LOUD = 0.2  # of a frame's loudest partial: what a bass note has at least
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
# How much a bass speaks for a key by the degree of the scale that it stands on.
DEGREES = {0: 1.0, 3: 0.8, 4: 0.8, 5: 0.6}


def tempo(audio_S: Array, rate: int) -> float:
    """Estimates the beats per minute, in 65 to 150; NaN for audio without onsets or below 2 s.

    The autocorrelation of onset strength, the rises of 64 mel bands in roots of amplitude, summed
    over one to four beats (those that the audio is long enough for), less half of it at half a
    beat: a beat is a period that no shorter one explains. 70 and 140 are both in the range, and so
    told apart; a tempo outside of it is given an octave away.

    Args:
      audio_S: samples of one channel.
      rate: hertz.

    Returns:
      Beats per minute. After Ellis 2007, "Beat tracking by dynamic programming".
    """
    hop = max(1, round(rate / ONSETS))
    window = 2 ** max(4, round(np.log2(0.032 * rate)))
    mel_FB = np.asarray(spectral.log_mel(np.asarray(audio_S, np.float32), rate, window, hop))
    rises_F = np.maximum(np.diff(np.exp(mel_FB / 2), axis=0), 0.0).mean(axis=1)
    periods = 60.0 * rate / hop / np.arange(SLOWEST, FASTEST + 0.25, 0.5)
    beats = min(4, int(len(rises_F) / periods[0]) - 1)
    if beats < 1 or not rises_F.any():
        return float("nan")
    rises_F = rises_F - np.convolve(rises_F, np.ones(ONSETS) / ONSETS, "same")
    spectrum = np.fft.rfft(rises_F, 2 * len(rises_F))
    alike_F = np.fft.irfft(np.abs(spectrum) ** 2)[: len(rises_F)] / np.arange(len(rises_F), 0, -1)
    lags = np.arange(len(alike_F))
    whole = sum(np.interp(beat * periods, lags, alike_F) for beat in range(1, beats + 1))
    half = np.interp(periods / 2, lags, alike_F)
    return float(60.0 * rate / hop / periods[np.argmax(whole - 0.5 * half)])


def key(audio_S: Array, rate: int) -> tuple[int, str] | None:
    """Estimates the root, 0 = C … 11 = B, and the mode, 'major' or 'minor', of music in one key.

    Two profiles of pitch classes are correlated with each of 24 keys, and the sums compared: of all
    partials from 110 to 1500 Hz, with the seven notes of the scale; and of the lowest loud partial
    of each quarter of a second, with the roots of its chords. The first tells scales apart, the
    second a key from its relative, which has the same notes. None for silence.

    Args:
      audio_S: samples of one channel.
      rate: hertz.

    Returns:
      Root and mode. The correlation with profiles is of Krumhansl 1990.
    """
    window = 2 ** max(4, round(np.log2(0.25 * rate)))
    strength_FB, hertz_FB = _partials(np.asarray(audio_S, np.float32), rate, window)
    notes_FB = strength_FB * ((hertz_FB > LOWEST) & (hertz_FB < HIGHEST))
    low_FB = strength_FB * ((hertz_FB > LOWEST) & (hertz_FB < BASS))
    loud_FB = low_FB > LOUD * low_FB.max(axis=1, keepdims=True)
    first_FB = loud_FB & (np.cumsum(loud_FB, axis=1) == 1)
    # Roots of amplitudes: one loud note says little more than one that is not.
    heard = _pitch_classes(np.sqrt(notes_FB), hertz_FB)
    bass = _pitch_classes(np.sqrt(low_FB) * first_FB, hertz_FB)
    if not heard.any():
        return None
    scales, roots = _profiles()
    place = int(np.argmax(scales @ _unit(heard) + roots @ _unit(bass)))
    return place % 12, list(SCALES)[place // 12]


def tempo_agrees(found: float, stated: float, octaves: bool = False) -> bool:
    """Whether a tempo is the one stated, to 4 %; with `octaves` half or twice of it is, too."""
    factors = (1.0, 2.0, 0.5) if octaves else (1.0,)
    return any(abs(found / (factor * stated) - 1.0) <= TEMPO_TOLERANCE for factor in factors)


def relative(root: int, mode: str) -> tuple[int, str]:
    """The key of the other mode with the same notes: A minor for C major, and the other way."""
    return ((root + 9) % 12, "minor") if mode == "major" else ((root + 3) % 12, "major")


def _partials(audio_S: np.ndarray, rate: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes of the peaks of each frame's spectrum, 0 beside them, and their hertz, `[F, B]`
    both; a peak between two bins is where the parabola through its logarithms has its top."""
    audio_S = np.pad(audio_S, (0, max(0, window - len(audio_S))))
    # Not the frames that reach beyond an end: they begin or end a note that does not.
    spectrum = np.abs(np.asarray(spectral.stft(audio_S, window, window // 4)))[2:-2]
    left, middle, right = spectrum[:, :-2], spectrum[:, 1:-1], spectrum[:, 2:]
    peaks = np.where((middle > left) & (middle >= right), middle, 0.0)
    low, top, high = (np.log(x + 1e-9) for x in (left, middle, right))
    bend = np.minimum(low - 2 * top + high, -1e-9)
    offset = np.clip(0.5 * (low - high) / bend, -0.5, 0.5)
    return peaks, (np.arange(1, 1 + middle.shape[1]) + offset) * (rate / window)


def _pitch_classes(strength_FB: np.ndarray, hertz_FB: np.ndarray) -> np.ndarray:
    """Strength by pitch class `[12]`; less for what lies between two of them."""
    pitch = 12 * np.log2(hertz_FB / MIDDLE_C)
    nearest = np.round(pitch)
    strength_FB = strength_FB * np.exp(-0.5 * ((pitch - nearest) / 0.2) ** 2)
    return np.bincount((nearest.astype(int) % 12).ravel(), strength_FB.ravel(), minlength=12)


@functools.lru_cache(maxsize=1)
def _profiles() -> tuple[np.ndarray, np.ndarray]:
    """What is expected of the notes and of the bass in each key, `[24, 12]`: majors, then minors,
    each from C up."""
    scales, roots = [], []
    for scale in SCALES.values():
        notes, bass = np.zeros(12), np.zeros(12)
        notes[list(scale)] = 1.0
        bass[[scale[degree] for degree in DEGREES]] = list(DEGREES.values())
        scales += [_unit(np.roll(notes, root)) for root in range(12)]
        roots += [_unit(np.roll(bass, root)) for root in range(12)]
    return np.array(scales), np.array(roots)


def _unit(values: np.ndarray) -> np.ndarray:
    """Without mean and of length 1: products of two such are correlations."""
    centred = values - values.mean()
    return centred / max(float(np.linalg.norm(centred)), 1e-12)
