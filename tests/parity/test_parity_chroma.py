"""Chromagrams are those of transformers' MusicgenMelodyFeatureExtractor."""

from types import SimpleNamespace

import numpy as np
import pytest
from signals import noise

from rvq_jax.audio.chroma import HOP, WINDOW, chroma, chroma_filters

REASON = "the parity peers are not installed"
torch = pytest.importorskip("torch", reason=REASON)
audio_utils = pytest.importorskip("transformers.audio_utils", reason=REASON)
melody = pytest.importorskip(
    "transformers.models.musicgen_melody.feature_extraction_musicgen_melody", reason=REASON
)


def peer_filters(rate, n_fft, bins=12):
    """Theirs of all their defaults, `[bins, n_fft // 2 + 1]`."""
    return audio_utils.chroma_filter_bank(
        num_frequency_bins=n_fft, num_chroma=bins, sampling_rate=rate, tuning=0
    )


def spectrogram(audio_BS):
    """Power `[B, window // 2 + 1, P]` as torchaudio's Spectrogram(power=2, normalized=True)."""
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(
        audio_BS, WINDOW, HOP, window=window, pad_mode="reflect", return_complex=True
    )
    return (spectrum / window.pow(2).sum().sqrt()).abs().pow(2)


def peer_chroma(audio, rate):
    """Their own steps from spectrogram to one-hot, without the torchaudio they ask for."""
    settings = SimpleNamespace(
        n_fft=WINDOW,
        spectrogram=spectrogram,
        chroma_filters=torch.from_numpy(peer_filters(rate, WINDOW)).float(),
    )
    mono_BS = torch.from_numpy(audio).mean(dim=-1)
    extract = melody.MusicgenMelodyFeatureExtractor._torch_extract_fbank_features
    return extract(settings, mono_BS).numpy()


def tune(rate, seconds=10.0):
    """Three voices `[1, S, 2]` of notes of a quarter of a second, each with three harmonics."""
    rng = np.random.default_rng(1)
    when = np.arange(round(seconds * rate)) / rate
    notes = rng.integers(40, 90, (3, 1 + int(4 * seconds)))
    hertz = 440.0 * 2.0 ** ((notes[:, (4 * when).astype(int)] - 69) / 12)
    phase = 2 * np.pi * np.cumsum(hertz, axis=1) / rate
    voices = sum(np.sin(i * phase) / i for i in (1, 2, 3))
    left, right = voices[0] + voices[1], voices[1] + voices[2]
    return np.stack([left, right], axis=-1)[None].astype(np.float32) / 4


@pytest.mark.parametrize("bins", [12, 24])
@pytest.mark.parametrize("n_fft", [2048, WINDOW])
@pytest.mark.parametrize("rate", [16_000, 32_000, 44_100])
def test_filters_are_theirs(rate, n_fft, bins):
    theirs = peer_filters(rate, n_fft, bins)
    np.testing.assert_allclose(chroma_filters(rate, n_fft, bins), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", [16_000, 32_000])
@pytest.mark.parametrize("samples", [333, WINDOW - 1, WINDOW, 300_000])
def test_random_audio_gives_their_chroma(samples, rate):
    audio = noise(2, samples, 2)
    np.testing.assert_array_equal(chroma(audio, rate), peer_chroma(audio, rate))


@pytest.mark.parametrize("rate", [32_000, 44_100])
def test_a_tune_gives_their_chroma(rate):
    audio = tune(rate)
    theirs = peer_chroma(audio, rate)
    assert len(np.unique(theirs.argmax(-1))) > 6
    np.testing.assert_array_equal(chroma(audio, rate), theirs)


def test_silence_gives_their_chroma():
    audio = np.zeros((1, 2 * WINDOW, 1), np.float32)
    np.testing.assert_array_equal(chroma(audio, 32_000), peer_chroma(audio, 32_000))
