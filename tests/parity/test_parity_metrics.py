"""Measures are those of their packages called directly, and coders are aligned and as asked for.

On real clips where they are there (`../shared/audio`), else on signals that are made.
"""

from pathlib import Path

import jax
import numpy as np
import pytest
import soxr
from refusals import refused
from scipy.signal import butter, sosfilt
from signals import noise

from rvq_jax import metrics
from rvq_jax.audio import io
from rvq_jax.evaluate import coders, measures
from rvq_jax.metrics import align

REASON = "the packages of the extra metrics are not installed"
av = pytest.importorskip("av", reason=REASON)
pesq = pytest.importorskip("pesq", reason=REASON)
pystoi = pytest.importorskip("pystoi", reason=REASON)
dnsmos = pytest.importorskip("speechmos.dnsmos", reason=REASON)
visqol = pytest.importorskip("visqol", reason=REASON)

AUDIO = Path(__file__).parents[3] / "shared" / "audio"
RATE = 16_000
BY_NAME = {m.name: m for m in measures.MEASURES}
SPEECH = ("speech/ls_533-1066-0003.flac", "speech/ls_1688-142285-0002.flac")
MORE = (*SPEECH, "speech/ls_367-130732-0001.flac", "speech/ls_2033-164914-0000.flac")
MORE += ("speech/lj_LJ001-0022.flac",)
MUSIC = ("music/librosa_brahms.ogg", "music/piano_hope.flac")


@pytest.fixture(autouse=True)
def mixed_ranks():
    """The spectral transforms multiply frames by a window of lower rank."""
    with jax.numpy_rank_promotion("allow"):
        yield


def made(rate, channels, seconds=6.0):
    """Syllables: pulses of a gliding pitch through three resonances, with pauses between words."""
    rng = np.random.default_rng(5)
    when = np.arange(round(seconds * rate)) / rate
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * when)
    source = np.diff(np.floor(np.cumsum(pitch) / rate), prepend=0.0) + 0.01 * rng.normal(
        size=len(when)
    )
    voice = sum(
        sosfilt(butter(1, [f, 1.2 * f], "bandpass", fs=rate, output="sos"), source)
        for f in (500, 1400, 2500)
    )
    voice *= np.maximum(0, np.sin(2 * np.pi * 2 * when)) * (np.sin(2 * np.pi * 0.4 * when) > -0.7)
    return np.repeat((0.5 * voice / np.abs(voice).max())[:, None], channels, 1).astype(np.float32)


def clip(name, seconds=6.0):
    """Some seconds of a file `[S, C]`, and its rate."""
    if not (AUDIO / name).exists():
        is_music = name.startswith("music")
        rate, channels = (44_100, 2) if is_music else (RATE, 1)
        return made(rate, channels, seconds), rate
    audio_SC, rate = io.read(AUDIO / name)
    return audio_SC[rate // 2 :][: round(seconds * rate)], rate


def at(audio_SC, rate, new_rate):
    """The mean of channels at another rate, as packages take it."""
    return soxr.resample(audio_SC.mean(1), rate, new_rate)


@pytest.fixture(scope="module", params=[*SPEECH, "44.1 kHz, stereo"])
def pair(request):
    """A clip, what Opus made of it, and the rate."""
    audio_SC, rate = clip(SPEECH[0] if "kHz" in request.param else request.param)
    if "kHz" in request.param:
        audio_SC = soxr.resample(np.repeat(audio_SC, 2, 1) * np.float32([1.0, 0.5]), rate, 44_100)
        rate = 44_100
    return audio_SC, coders.parse("opus:12", "speech").code(audio_SC, rate)[0], rate


def score(name, pair):
    return BY_NAME[name].score(*pair)


def test_pesq_is_that_of_its_package(pair):
    reference_SC, estimate_SC, rate = pair
    want = pesq.pesq(RATE, at(reference_SC, rate, RATE), at(estimate_SC, rate, RATE), "wb")
    assert score("pesq", pair) == pytest.approx(want, rel=1e-6)


def test_stoi_is_that_of_its_package(pair):
    reference_SC, estimate_SC, rate = pair
    want = pystoi.stoi(reference_SC.mean(1), estimate_SC.mean(1), rate, extended=False)
    assert score("stoi", pair) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize(("mode", "own"), [("speech", 16_000), ("audio", 48_000)])
def test_visqol_is_that_of_its_package(pair, mode, own):
    reference_SC, estimate_SC, rate = pair
    api = visqol.VisqolApi()
    api.create(mode=mode)
    signals = (at(x, rate, own).astype(np.float64) for x in (reference_SC, estimate_SC))
    want = api.measure_from_arrays(*signals, sample_rate=own).moslqo
    assert score(f"visqol_{mode}", pair) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("mode", ["speech", "audio"])
def test_visqol_is_defined_from_one_patch_on(mode):
    """Of one sample fewer the package itself has no score."""
    rate = {"speech": 16_000, "audio": 48_000}[mode]
    signal_S = at(clip(SPEECH[0])[0], RATE, rate)[rate:].astype(np.float64)
    count = {"speech": 10_240, "audio": 46_080}[mode]
    assert np.isfinite(metrics.visqol(signal_S[:count], signal_S[:count], rate, mode))
    short_S = signal_S[: count - 1]
    assert np.isnan(metrics.visqol(short_S, short_S, rate, mode))
    api = visqol.VisqolApi()
    api.create(mode=mode)
    with pytest.raises((IndexError, ValueError)):
        api.measure_from_arrays(short_S, short_S, rate)


def test_dnsmos_is_that_of_its_package(pair):
    _, estimate_SC, rate = pair
    want = dnsmos.run(np.clip(at(estimate_SC, rate, RATE), -1, 1), RATE)["ovrl_mos"]
    assert score("dnsmos", pair) == pytest.approx(want, rel=1e-6)


def numpy_si_sdr(reference, estimate):
    reference, estimate = (np.asarray(x, np.float64) for x in (reference, estimate))
    reference, estimate = reference - reference.mean(), estimate - estimate.mean()
    target = (estimate @ reference) / (reference @ reference) * reference
    return 10 * np.log10((target @ target) / ((estimate - target) @ (estimate - target)))


def numpy_amplitudes(signal, window):
    padded = np.pad(np.asarray(signal, np.float64), (window // 2, window))
    starts = range(0, len(signal) + 1, window // 4)
    frames = np.stack([padded[i : i + window] for i in starts]) * np.hanning(window + 1)[:-1]
    return np.abs(np.fft.rfft(frames)) * 4 / window


def numpy_stft(reference, estimate):
    each = []
    for window in (512, 2048):
        logs = [
            np.log(np.maximum(numpy_amplitudes(x, window), 1e-5)) for x in (reference, estimate)
        ]
        each.append(np.abs(logs[0] - logs[1]).mean())
    return np.mean(each)


@pytest.mark.parametrize(
    ("name", "oracle", "error"),
    [("si_sdr", numpy_si_sdr, {"abs": 1e-3}), ("stft", numpy_stft, {"rel": 1e-3})],
)
def test_distances_are_their_definitions_in_numpy(pair, name, oracle, error):
    reference_SC, estimate_SC, _ = pair
    want = np.mean([oracle(*x) for x in zip(reference_SC.T, estimate_SC.T, strict=True)])
    assert score(name, pair) == pytest.approx(want, **error)


def numpy_mel(reference, estimate, rate):
    """Of triangles drawn by interpolation."""
    each = []
    factor = max(1, 2 ** round(np.log2(rate / 24_000)))
    for window in (256, 512, 1024, 2048):
        window, bands = factor * window, min(64, factor * window // 8)
        top = 2595 * np.log10(1 + rate / 2 / 700)
        edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1) * window / rate
        bins = np.arange(window // 2 + 1)
        filters = []
        for i in range(bands):
            triangle = np.interp(bins, edges[i : i + 3], [0.0, 1.0, 0.0])
            filters.append(triangle if triangle.any() else bins == round(edges[i + 1]))
        logs = []
        for signal in (reference, estimate):
            amplitudes = np.maximum(numpy_amplitudes(signal, window), 1e-5)
            logs.append(np.log(np.maximum(amplitudes @ np.array(filters).T, 1e-3)))
        each.append(np.abs(logs[0] - logs[1]).mean())
    return np.mean(each)


def test_the_mel_distance_is_its_definition_in_numpy(pair):
    reference_SC, estimate_SC, rate = pair
    channels = zip(reference_SC.T, estimate_SC.T, strict=True)
    want = np.mean([numpy_mel(*x, rate) for x in channels])
    assert score("mel", pair) == pytest.approx(want, rel=1e-3)


def test_quality_of_opus_rises_with_its_bitrate():
    """The means over five speakers of PESQ and ViSQOL: at each of four bitrates above the last."""
    found = {"pesq": [], "visqol_speech": []}
    for kbps in (6, 12, 24, 64):
        for name, means in found.items():
            values = []
            for path in MORE if AUDIO.exists() else MORE[:1]:
                audio_SC, rate = clip(path, seconds=8.0)
                heard_SC, _ = coders.parse(f"opus:{kbps}", "speech").code(audio_SC, rate)
                values.append(score(name, (audio_SC, heard_SC, rate)))
            means.append(np.mean(values))
    for name, means in found.items():
        assert np.all(np.diff(means) > 0), (name, means)
    # What 6 and 64 kbps of Opus are, in the words of the scale: poor, and good.
    assert found["pesq"][0] < 2.5 and found["pesq"][-1] > 3.5


@pytest.mark.parametrize("name", [*MORE, *MUSIC])
@pytest.mark.parametrize("text", ["opus:6", "opus:12", "opus:32", "mp3:16", "mp3:32", "mp3:64"])
def test_coded_audio_is_aligned_and_as_long(name, text):
    """To the sample, whatever the coder's rate, and also if the clip begins a little later."""
    audio_SC, rate = clip(name)
    coder = coders.parse(text, name.split("/")[0])
    for cut in (0, 37):
        given_SC = audio_SC[cut:]
        heard_SC, _ = coder.code(given_SC, rate)
        assert heard_SC.shape == given_SC.shape and heard_SC.dtype == np.float32
        assert align.delay(given_SC.mean(1), heard_SC.mean(1), most=2000) == 0
    # The clip before it was cut is as much earlier than what was heard of it.
    assert align.delay(audio_SC.mean(1), heard_SC.mean(1), most=2000) == -37


@pytest.mark.skipif(not AUDIO.exists(), reason="made speech needs fewer bits than real audio")
@pytest.mark.parametrize("name", [SPEECH[0], *MUSIC])
@pytest.mark.parametrize("text", ["opus:6", "opus:12", "opus:24", "mp3:24", "mp3:32", "mp3:48"])
def test_bits_are_near_those_asked_for(name, text):
    """VBR takes what the signal needs: within a quarter on ten seconds without long pauses."""
    audio_SC, rate = clip(name, seconds=10.0)
    coder = coders.parse(text, name.split("/")[0])
    kbps = coder.code(audio_SC, rate)[1] / (len(audio_SC) / rate) / 1000
    assert kbps == pytest.approx(coder.kbps, rel=0.25)


def test_bits_are_those_of_packets_without_a_container():
    """CBR frames of MP3 have a length that is known: what ABR takes lies between two of them."""
    audio_SC = noise(48_000, 1, scale=0.1)
    _, bits = coders.parse("mp3:64").code(audio_SC, 48_000)
    frames = -(-(48_000 + 1105) // 1152) + 1
    assert bits % 8 == 0 and bits / frames == pytest.approx(64 * 24, rel=0.1)  # of 24 ms


@pytest.mark.parametrize("signal", ["speech", "music"])
@pytest.mark.parametrize("text", ["opus:6", "opus:200", "mp3:8", "mp3:160"])
@pytest.mark.parametrize("rate", [8000, 22_050, 48_000, 96_000])
def test_odd_audio_is_coded(text, rate, signal):
    """One sample, less than a frame, silence, stereo, more than full scale."""
    coder = coders.parse(text, signal)
    stereo = noise(rate // 4, 2, scale=0.1)
    for audio_SC in (stereo[:0], stereo[:1], stereo[:100, :1], 0 * stereo, stereo, 30 * stereo):
        heard_SC, bits = coder.code(audio_SC, rate)
        assert heard_SC.shape == audio_SC.shape and np.isfinite(heard_SC).all()
        assert (bits > 0) == (len(audio_SC) > 0)
        if len(audio_SC) and not audio_SC.any():
            assert np.abs(heard_SC).max() < 1e-3
    refused(lambda: coder.code(np.zeros((9, 3), np.float32), rate), "one or two channels")


def test_channels_stay_apart():
    audio_SC, rate = clip(MUSIC[0])
    one_SC = audio_SC * np.float32([1, 0])
    for text in ("opus:64", "mp3:128"):
        heard_SC, _ = coders.parse(text).code(one_SC, rate)
        assert (heard_SC[:, 1] ** 2).mean() < 1e-3 * (heard_SC[:, 0] ** 2).mean()


def odd(rate=RATE):
    """Audio by what is odd about it."""
    speech_SC, _ = clip(SPEECH[0])
    silent_SC, loud_SC = np.zeros_like(speech_SC), speech_SC / np.abs(speech_SC).max()
    click_SC = silent_SC.copy()
    click_SC[5000] = 1.0
    return {
        "silent reference": (silent_SC, speech_SC),
        "silent estimate": (speech_SC, silent_SC),
        "both silent": (silent_SC, silent_SC),
        "a constant": (silent_SC + 0.5, speech_SC),
        "one sample": (speech_SC[:1], speech_SC[:1]),
        "50 ms": (speech_SC[8000:8800], speech_SC[8000:8800]),
        "a quarter of a second": (speech_SC[8000:12_100], speech_SC[8000:12_100]),
        "a click": (click_SC, click_SC),
        "too loud": (4 * loud_SC, 4 * loud_SC),
        "far apart": (speech_SC, np.roll(speech_SC, len(speech_SC) // 2, 0)),
    }


@pytest.mark.parametrize("name", list(odd()))
def test_odd_audio_has_a_score_or_none(name):
    """No exception, no warning, no number where the definition has none."""
    reference_SC, estimate_SC = odd()[name]
    found = {m.name: m.score(reference_SC, estimate_SC, RATE) for m in measures.MEASURES}
    undefined = {key for key, value in found.items() if np.isnan(value)}
    assert not any(np.isinf(value) for value in found.values())
    every = {"si_sdr", "pesq", "stoi", "visqol_speech", "visqol_audio", "dnsmos"}
    few = {"si_sdr", "pesq", "visqol_speech", "visqol_audio"}
    want = {
        "silent reference": every,
        "both silent": every,
        "a constant": every,
        "one sample": every,
        "50 ms": few - {"si_sdr"} | {"stoi"},
        "a quarter of a second": few - {"si_sdr", "pesq"} | {"stoi"},
        "a click": {"stoi"},
    }
    assert undefined == want.get(name, set())
    if name == "silent estimate":
        worst = {"si_sdr": -100.0, "pesq": 1.0, "visqol_speech": 1.0, "visqol_audio": 1.0}
        assert found | worst | {"stoi": 0.0, "dnsmos": 1.0} == found


def test_pesq_of_less_than_wide_band_is_undefined():
    speech_SC, _ = clip(SPEECH[0])
    assert np.isnan(metrics.pesq(speech_SC[:, 0], speech_SC[:, 0], 8000))


def test_long_speech_is_scored_in_pieces():
    """Of many utterances, which end the package's process when there are more than fifty: here one
    each 0.45 s for a minute. Of twenty seconds the score is the package's own."""
    gate = np.arange(60 * RATE) % (0.45 * RATE) < 0.22 * RATE
    reference_S = (gate * noise(60 * RATE, scale=0.3)).astype(np.float32)
    estimate_S = reference_S + noise(60 * RATE, seed=1, scale=0.003)
    thirds = zip(np.split(reference_S, 3), np.split(estimate_S, 3), strict=True)
    want = np.mean([pesq.pesq(RATE, *x, "wb") for x in thirds])
    assert metrics.pesq(reference_S, estimate_S, RATE) == pytest.approx(want, rel=1e-6)
    reference_S[: 20 * RATE] = 0.0
    assert np.isfinite(metrics.pesq(reference_S, estimate_S, RATE))


def test_nothing_is_missing_where_all_is_installed():
    assert [measures.missing(m) for m in measures.MEASURES] == [None] * len(measures.MEASURES)
