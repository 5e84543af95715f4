"""load_audio and save_audio: what is written is read, at any rate and of any channels."""

import numpy as np
import pytest

import rvq_jax as rj
from rvq_jax.audio import io, resample

RATE = 8_000


@pytest.fixture
def song(tmp_path):
    """Three seconds of two channels, on the grid of 16 bits."""
    rng = np.random.default_rng(0)
    audio = np.round(rng.uniform(-0.5, 0.5, (3 * RATE, 2)) * 32768) / 32768
    io.write(tmp_path / "song.wav", audio, RATE)
    return tmp_path / "song.wav", audio.astype(np.float32)


def test_a_file_is_read_as_it_is(song):
    path, audio = song
    found, rate = rj.load_audio(path)
    np.testing.assert_array_equal(found, audio)
    assert rate == RATE and found.dtype == np.float32


@pytest.mark.parametrize("rate", [None, 6_000, 16_000])
@pytest.mark.parametrize("channels", [None, 1])
def test_it_is_brought_to_a_rate_and_channels(song, rate, channels):
    path, audio = song
    want = resample.to_rate(resample.to_channels(audio, channels or 2), RATE, rate or RATE)
    found, got = rj.load_audio(path, rate, channels)
    np.testing.assert_array_equal(found, want)
    assert got == (rate or RATE)
    # The beginning of it: the resampler hears nothing that far away.
    begun, _ = rj.load_audio(path, rate, channels, seconds=0.5)
    assert len(begun) == round(0.5 * got)
    np.testing.assert_allclose(begun, want[: len(begun)], atol=1e-6)
    assert len(rj.load_audio(path, rate, channels, seconds=100)[0]) == len(want)


def test_what_a_codec_gives_is_written(song, tmp_path):
    audio = song[1]
    for name, given in {"a": audio, "b": audio[None], "c": audio[:, 0]}.items():
        rj.save_audio(tmp_path / f"{name}.flac", given, RATE)
        found, _ = rj.load_audio(tmp_path / f"{name}.flac")
        np.testing.assert_array_equal(found, audio if name != "c" else audio[:, :1])


def test_mistakes_are_told(song, tmp_path):
    path, audio = song
    with pytest.raises(rj.UserError, match=r"gone.wav is not there"):
        rj.load_audio(tmp_path / "gone.wav")
    with pytest.raises(rj.UserError, match=r"song.wav: cannot mix 2 channels to 3"):
        rj.load_audio(path, channels=3)
    for name in ("rate", "channels", "seconds"):
        with pytest.raises(ValueError, match=f"{name} must be above 0"):
            rj.load_audio(path, **{name: 0})
    with pytest.raises(ValueError, match=r"got shape \(2, 24000, 2\)"):
        rj.save_audio(tmp_path / "x.wav", np.stack([audio, audio]), RATE)
    assert not (tmp_path / "x.wav").exists()
