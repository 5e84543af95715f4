"""The table of measures: what is undefined, what is not there, channels, odd audio."""

import dataclasses
import sys

import jax
import numpy as np
import pytest
from refusals import refused
from signals import noise
from tiers import slow

from rvq_jax import metrics
from rvq_jax.errors import UserError
from rvq_jax.evaluate import measures

RATE = 16_000
OWN = [m for m in measures.MEASURES if not m.packages]
BY_NAME = {m.name: m for m in measures.MEASURES}


@pytest.fixture(autouse=True)
def mixed_ranks():
    """The spectral transforms multiply frames by a window of lower rank."""
    with jax.numpy_rank_promotion("allow"):
        yield


def stereo():
    reference = noise(5000, 2, scale=0.1)
    return reference, reference + noise(5000, 2, seed=1, scale=0.01) * np.float32([1, 3])


def test_names_are_told_apart_and_each_says_how_to_read_it():
    assert len(BY_NAME) == len({m.label for m in measures.MEASURES}) == len(measures.MEASURES)
    assert {m.better for m in measures.MEASURES} == {"more", "less"}


@pytest.mark.parametrize("measure", OWN, ids=lambda m: m.name)
def test_of_channels_the_mean_counts(measure):
    """And padding to lengths that files share changes nothing."""
    reference, estimate = stereo()
    each = [measure.score(reference[:, c : c + 1], estimate[:, c : c + 1], RATE) for c in (0, 1)]
    assert measure.score(reference, estimate, RATE) == pytest.approx(np.mean(each), rel=1e-4)
    function = {"si_sdr": lambda a, b, rate: metrics.si_sdr(a, b), "mel": metrics.mel_distance}
    program = jax.jit(function.get(measure.name, metrics.stft_distance), static_argnums=2)
    direct = program(reference.T, estimate.T, RATE)
    assert np.mean(each) == pytest.approx(float(direct.mean()), rel=1e-3)


@pytest.mark.parametrize("name", [slow("mel"), "stft"])
def test_long_audio_is_measured_in_pieces(name):
    """But for the ends of each that is the whole: here four of what is alike everywhere."""
    rate = 400
    reference = noise(4 * measures.PIECE * rate, 1, scale=0.1)
    estimate = reference + noise(*reference.shape, seed=1, scale=0.03)
    quarters = zip(np.split(reference, 4), np.split(estimate, 4), strict=True)
    each = [BY_NAME[name].score(*quarter, rate) for quarter in quarters]
    found = BY_NAME[name].score(reference, estimate, rate)
    assert found == pytest.approx(np.mean(each), rel=1e-6)
    function = {"mel": metrics.mel_distance, "stft": metrics.stft_distance}[name]
    whole = jax.jit(function, static_argnums=2)(reference[:, 0], estimate[:, 0], rate)
    assert found == pytest.approx(float(whole), rel=0.03)


def test_the_ratio_to_silence_is_undefined_and_its_distances_are_not():
    reference, estimate = stereo()
    silent = np.zeros_like(reference)
    for pair in ((silent, estimate), (silent, silent), (silent + 0.5, estimate)):
        assert np.isnan(BY_NAME["si_sdr"].score(*pair, RATE))
        for name in ("mel", "stft"):
            assert np.isfinite(BY_NAME[name].score(*pair, RATE))
    half = reference * np.float32([1, 0])
    want = BY_NAME["si_sdr"].score(reference[:, :1], estimate[:, :1], RATE)
    assert BY_NAME["si_sdr"].score(half, estimate, RATE) == pytest.approx(want, abs=1e-3)


def test_what_a_codec_loses_counts():
    """Silence in place of sound is the worst that there is, in one channel the worst of it."""
    reference, _ = stereo()
    silent = np.zeros_like(reference)
    si_sdr = BY_NAME["si_sdr"].score
    assert si_sdr(reference, silent, RATE) == -100.0
    assert si_sdr(reference, reference * np.float32([1, 0]), RATE) < 1.0
    broken = reference.copy()
    broken[7, 1] = np.nan
    for m in OWN:
        assert m.score(reference, broken, RATE) == m.score(reference, silent, RATE)
    energy = dataclasses.replace(OWN[0], function=lambda a, b, r: loud(a) + loud(b), worst=1.0)
    assert energy.score(reference, silent, RATE) == 1.0
    assert energy.score(reference, reference, RATE) == 2 * loud(reference)
    assert np.isnan(energy.score(silent, silent, RATE))


def loud(audio_SC) -> float:
    """Which silence has none of."""
    return float(np.mean(audio_SC**2)) or np.nan


@pytest.mark.parametrize("samples", [0, 1, 100])
@pytest.mark.parametrize("measure", OWN, ids=lambda m: m.name)
def test_short_audio_is_measured_or_undefined(measure, samples):
    reference, estimate = (x[:samples] for x in stereo())
    found = measure.score(reference, estimate, RATE)
    assert np.isfinite(found) == (samples > 1 or (samples == 1 and measure.name != "si_sdr"))


def test_lengths_must_agree():
    reference, estimate = stereo()
    with pytest.raises(ValueError, match="one shape"):
        OWN[0].score(reference, estimate[:-1], RATE)


def test_what_is_not_there_is_said_with_the_remedy():
    there = dataclasses.replace(OWN[0], packages=("numpy",))
    lacks = dataclasses.replace(OWN[0], packages=("numpy", "no_such_package", "nor_this"))
    assert measures.missing(there) is None and measures.missing(OWN[0]) is None
    said = measures.missing(lacks)
    assert said == "needs no_such_package and nor_this: pip install 'rvq_jax[metrics]'"


@pytest.mark.parametrize("package", ["pesq", "pystoi", "speechmos", "visqol"])
def test_a_measure_without_its_package_is_refused_in_one_line(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    measure = next(m for m in measures.MEASURES if package in m.packages)
    reference, estimate = stereo()
    metrics.visqol.__globals__["_api"].cache_clear()
    refused(lambda: measure.score(reference, estimate, RATE), package, "pip install")


def test_a_failure_names_the_measure():
    """Whatever a package raises is no number and no silence."""

    def fails(reference_SC, estimate_SC, rate):
        raise IndexError("list index out of range")

    broken = dataclasses.replace(OWN[0], label="PESQ", function=fails)
    refused(lambda: broken.score(*stereo(), RATE), "PESQ fails", "IndexError", "out of range")

    def refuses(reference_SC, estimate_SC, rate):
        raise UserError("as it is")

    with pytest.raises(UserError, match=r"^as it is$"):
        dataclasses.replace(OWN[0], function=refuses).score(*stereo(), RATE)
