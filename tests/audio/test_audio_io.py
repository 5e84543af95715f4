"""Audio files: what is read is what was written, and every bad file is refused in one line."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from rvq_jax.audio import io, resample

RATE = 16_000


def loud(samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.9, 0.9, (samples, channels)).astype(np.float32)


def sine(hertz: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * t)).astype(np.float32)[:, None]


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_formats_keep_every_16_bit_sample(tmp_path, suffix, channels):
    """Multiples of 2^-15 are exactly what 16 bits hold, so nothing may change."""
    audio_SC = np.round(loud(3000, channels) * 32768) / 32768
    io.write(tmp_path / f"a{suffix}", audio_SC, RATE)
    back_SC, rate = io.read(tmp_path / f"a{suffix}")
    assert rate == RATE and back_SC.dtype == np.float32
    np.testing.assert_array_equal(back_SC, audio_SC)


def test_ogg_keeps_length_and_most_of_the_sound(tmp_path):
    audio_SC = sine(440, RATE)
    io.write(tmp_path / "a.ogg", audio_SC, RATE)
    back_SC, _ = io.read(tmp_path / "a.ogg")
    assert back_SC.shape == audio_SC.shape
    assert np.square(back_SC - audio_SC).mean() < 1e-3 * np.square(audio_SC).mean()


def test_loud_audio_clips_instead_of_wrapping(tmp_path):
    io.write(tmp_path / "a.wav", np.array([[3.0], [-3.0], [0.0]]), RATE)
    back_SC, _ = io.read(tmp_path / "a.wav")
    np.testing.assert_allclose(back_SC[:, 0], [1.0, -1.0, 0.0], atol=2**-14)


def test_a_second_write_replaces_the_first(tmp_path):
    io.write(tmp_path / "a.wav", loud(900), RATE)
    io.write(tmp_path / "a.wav", loud(100), RATE)
    assert len(io.read(tmp_path / "a.wav")[0]) == 100
    assert os.listdir(tmp_path) == ["a.wav"]


def test_missing_file_is_named(tmp_path):
    refused(lambda: io.read(tmp_path / "gone.wav"), "gone.wav", "not there")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.raw"])
def test_text_is_not_audio(tmp_path, name):
    (tmp_path / name).write_text("not audio at all\n" * 99)
    refused(lambda: io.read(tmp_path / name), name, "cannot be read as audio")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
@pytest.mark.parametrize("part", [0.4, 0.9])
def test_truncated_file_is_refused(tmp_path, suffix, part):
    """libsndfile reads a cut wav and ogg without complaint: their loss would go unseen."""
    path = tmp_path / f"a{suffix}"
    io.write(path, loud(20_000), RATE)
    assert len(io.read(path)[0]) == 20_000
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    refused(lambda: io.read(path), path.name, "remove or replace it")


def test_wav_of_a_pipe_promises_no_length(tmp_path):
    """Writers to a pipe cannot go back to fill in the sizes; such files are whole."""
    path = tmp_path / "a.wav"
    io.write(path, loud(1000), RATE)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert len(io.read(path)[0]) == 1000


def test_empty_clip_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((0, 1)), RATE)
    refused(lambda: io.read(tmp_path / "a.wav"), "a.wav", "no samples")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_with_their_place(tmp_path, bad):
    audio_SC = loud(500, 2)
    audio_SC[123, 1] = bad
    soundfile.write(tmp_path / "a.wav", audio_SC, RATE, subtype="FLOAT")
    refused(lambda: io.read(tmp_path / "a.wav"), "a.wav", "NaN or infinite", "123")


def test_unknown_suffix_is_refused(tmp_path):
    refused(lambda: io.write(tmp_path / "a.xyz", loud(9), RATE), ".xyz", ".wav")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), "libsndfile"])
def test_a_place_that_takes_no_file_keeps_the_old_one(tmp_path, monkeypatch, error):
    io.write(tmp_path / "a.wav", loud(700), RATE)
    before = (tmp_path / "a.wav").read_bytes()
    if error == "libsndfile":
        error = soundfile.LibsndfileError(2)

    def half(file, *_):
        Path(os.fsdecode(file.name)).write_bytes(b"RIFF")
        raise error

    monkeypatch.setattr(soundfile.SoundFile, "write", half)
    refused(lambda: io.write(tmp_path / "a.wav", loud(9), RATE), str(tmp_path), "free some space")
    assert os.listdir(tmp_path) == ["a.wav"] and (tmp_path / "a.wav").read_bytes() == before


def test_long_audio_is_written_as_ogg(tmp_path):
    """Whole, it would overflow the stack of the encoder and end the process."""
    samples = 300 * 44_100
    io.write(tmp_path / "a.ogg", np.zeros((samples, 1), np.float32), 44_100)
    assert soundfile.info(tmp_path / "a.ogg").frames == samples


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "out").write_text("")
    refused(lambda: io.write(tmp_path / "out" / "a.wav", loud(9), RATE), "out", "another folder")


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_resampling_keeps_pitch_level_and_duration(rate):
    """A sine below both Nyquist limits is the same sine at another rate."""
    got_SC = resample.to_rate(sine(440, rate), rate, RATE)
    want_SC = sine(440, RATE)
    assert got_SC.dtype == np.float32 and abs(len(got_SC) - len(want_SC)) <= 1
    middle = slice(1000, -1000)  # the filter sees silence beyond the ends
    np.testing.assert_allclose(got_SC[: len(want_SC)][middle], want_SC[middle], atol=2e-3)


def test_resampling_down_removes_what_the_rate_cannot_hold():
    """Without the filter a sine of 7 kHz would come back at 1 kHz."""
    got_SC = resample.to_rate(sine(7_000, RATE), RATE, 8_000)
    assert np.abs(got_SC[500:-500]).max() < 1e-3


@given(samples=st.integers(1, 50), have=st.integers(1, 6))
def test_mono_is_the_mean_and_its_repetition_has_the_same_mean(samples, have):
    audio_SC = loud(samples, have, seed=samples)
    mono_S1 = resample.to_channels(audio_SC, 1)
    np.testing.assert_allclose(mono_S1[:, 0], audio_SC.sum(1) / have, atol=1e-6)
    stereo_S2 = resample.to_channels(mono_S1, 2)
    assert stereo_S2.shape == (samples, 2)
    np.testing.assert_array_equal(stereo_S2[:, 0], stereo_S2[:, 1])
    np.testing.assert_array_equal(resample.to_channels(stereo_S2, 1), mono_S1)
    np.testing.assert_array_equal(resample.to_channels(audio_SC, have), audio_SC)


def test_surround_to_stereo_has_no_one_answer():
    with pytest.raises(ValueError, match="6 channels"):
        resample.to_channels(loud(9, 6), 2)
