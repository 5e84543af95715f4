"""Which sounds listeners compare, and these sounds made comparable: one rate, length and gain."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rvq_jax.audio import io, resample
from rvq_jax.typing import Array

REFERENCE, ANCHOR = "original", "3.5 kHz low-pass"
SYSTEMS = 10  # beside reference and anchor: the twelve of a trial in ITU-R BS.1534-3, 5.3
POINTS = 6  # codec points that are put to an ABX test, each against two others
SECONDS = 12.0  # of a clip, ibid.
FADE = 0.02  # seconds
# The anchor of ITU-R BS.1534-3, 5.1: passes to 3.5 kHz, 25 dB down at 4 kHz, 50 dB at 4.5 kHz.
PASS, STOP, DECIBELS = 3500.0, 4000.0, 60.0


def chosen(systems: Sequence[dict]) -> list[dict]:
    """Of systems as results.json has them as many as a trial holds, from low to high bitrate."""
    return _spread(sorted(systems, key=lambda system: system["kbps"]), SYSTEMS)


def pairs(systems: Sequence[dict]) -> list[tuple[str, str]]:
    """Pairs of names that are worth telling apart.

    Each codec point against the original and against the baseline nearest to it in bitrate; without
    baselines, against the nearest point of another codec. Without codecs, baselines alike.

    Args:
      systems: as results.json has them.

    Returns:
      At most twice `POINTS` pairs, none twice in another order.
    """
    baselines = [system for system in systems if system["kind"] != "codec"]
    points = [system for system in systems if system["kind"] == "codec"]
    if not points:
        points, baselines = baselines, []
    found: dict[frozenset[str], tuple[str, str]] = {}
    for point in _spread(sorted(points, key=lambda system: system["kbps"]), POINTS):
        others = baselines or [s for s in points if s["family"] != point["family"]]
        near = min(others, key=lambda other: _octaves(other, point), default=None)
        for name in [REFERENCE] if near is None else [near["name"], REFERENCE]:
            found.setdefault(frozenset((point["name"], name)), (point["name"], name))
    return list(found.values())


def prepared(folder: Path, player: dict, names: Sequence[str]) -> tuple[dict[str, np.ndarray], int]:
    """The sounds of one clip, all as long as its original and under one gain.

    One gain, so that none clips and loudness tells systems apart only as far as they differ in it.

    Args:
      folder: of the evaluation.
      player: a clip as results.json has it, with an original.
      names: of the systems that are wanted; one that the clip has no sound of is left out.

    Returns:
      Samples `[S, C]` int16 by name: the original, the low-pass anchor if the rate has room for
      one, the systems; and the rate in hertz.

    Raises:
      UserError: when a sound is missing or is not audio.
    """
    original_SC, rate = io.read(folder / player["original"])
    original_SC = original_SC[: round(SECONDS * rate)]
    sounds = {REFERENCE: original_SC}
    if rate / 2 > STOP:
        sounds[ANCHOR] = anchor(original_SC, rate)
    for name in names:
        if name in player["systems"]:
            audio_SC, own = io.read(folder / player["systems"][name])
            sounds[name] = _like(resample.to_rate(audio_SC, own, rate), original_SC)
    gain = min(1.0, 1.0 / max(1e-9, *(np.abs(sound).max() for sound in sounds.values())))
    ends_S1 = _ends(len(original_SC), rate)[:, None]
    scaled = {name: gain * sound_SC * ends_S1 for name, sound_SC in sounds.items()}
    return {name: np.round(32767 * x_SC).astype("<i2") for name, x_SC in scaled.items()}, rate


def anchor(audio_SC: Array, rate: int) -> np.ndarray:
    """The low-pass anchor of ITU-R BS.1534-3, 5.1: what lies above 3.5 kHz is taken away.

    Args:
      audio_SC: `[S, C]`.
      rate: hertz, above 8000.

    Returns:
      `[S, C]` without delay.
    """
    from scipy import signal

    taps, beta = signal.kaiserord(DECIBELS, (STOP - PASS) / (rate / 2))
    taps_T = signal.firwin(taps | 1, (PASS + STOP) / 2, window=("kaiser", beta), fs=rate)
    full_SC = signal.oaconvolve(np.asarray(audio_SC, np.float64), taps_T[:, None], axes=0)
    first = len(taps_T) // 2
    return full_SC[first : first + len(audio_SC)]


def _like(audio_SC: np.ndarray, original_SC: np.ndarray) -> np.ndarray:
    """With the channels and the samples of the original."""
    audio_SC = resample.to_channels(audio_SC, original_SC.shape[1])[: len(original_SC)]
    return np.pad(audio_SC, ((0, len(original_SC) - len(audio_SC)), (0, 0)))


def _ends(samples: int, rate: int) -> np.ndarray:
    """A gain that starts and ends at 0: played in a loop, a clip does not click."""
    fade = min(round(FADE * rate), samples // 2)
    gain_S = np.ones(samples)
    gain_S[:fade] = np.arange(fade) / max(1, fade)
    gain_S[samples - fade :] = gain_S[:fade][::-1]
    return gain_S


def _octaves(a: dict, b: dict) -> float:
    return abs(np.log2(max(a["kbps"], 1e-9) / max(b["kbps"], 1e-9)))


def _spread(items: Sequence, most: int) -> list:
    """All, or so many of them evenly from the first to the last."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[i] for i in places]
