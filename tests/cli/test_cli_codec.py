"""encode, decode and info: exact lengths, folders as one by one, pipes as files."""

import io
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import signals
import small_codecs
import soundfile
from command import run
from small_codecs import CONFIGS, GROUPED, RATE, dac_bytes, ecdc_bytes, seanet
from tiers import wide

import rvq_jax as rj
from rvq_jax.audio import resample
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.dac import DACConfig
from rvq_jax.offline import dac_chunks, encode_file, encode_folder, read_write
from rvq_jax.rvqfile.reader import Reader

FLOAT = {"subtype": "FLOAT"}


@pytest.fixture(scope="module")
def codecs(tmp_path_factory) -> dict[str, Path]:
    return small_codecs.folders(tmp_path_factory)


def audio_of(samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return signals.noise(samples, channels, seed=seed, scale=0.2)


def said(capsys, *words) -> dict:
    """The JSON of a command that did what was asked."""
    code, out, lines = run(capsys, *words, "--json")
    assert (code, lines) == (0, [])
    return json.loads(out)


def same(ours, expected):
    """To 16 bits, cut: a step of them, and float32's rounding."""
    np.testing.assert_allclose(ours, np.clip(expected, -1, 1), atol=2**-15 + 2**-23)


# One file.


@pytest.mark.parametrize(
    ("samples", "subtype"), [(1, "PCM_16"), (17, "PCM_U8"), (300, "PCM_24"), (300, "FLOAT")]
)
def test_a_file_there_and_back_has_as_many_samples(capsys, tmp_path, codecs, samples, subtype):
    """And the codes and the audio are those that the codec gives in memory."""
    source, coded, target = (tmp_path / name for name in ("a.wav", "a.rvq", "b.wav"))
    soundfile.write(source, audio_of(samples), RATE, subtype=subtype)
    conditions = said(capsys, "encode", source, coded, "--codec", codecs["mono"])
    assert conditions["samples"] == samples and conditions["bytes"] == coded.stat().st_size
    conditions = said(capsys, "decode", coded, target, "--codec", codecs["mono"])
    assert conditions == {"file": str(target), "samples": samples, "rate": RATE}
    codec = rj.Codec.load(codecs["mono"])
    audio, _ = soundfile.read(source, dtype="float32", always_2d=True)
    expected = codec.encode(audio[None])
    found = read_write.read(coded, codec)
    np.testing.assert_array_equal(found.codes, expected.codes)
    assert found.samples == samples
    decoded, rate = soundfile.read(target, always_2d=True)
    assert decoded.shape == (samples, 1) and rate == RATE
    same(decoded, codec.decode(expected)[0])


# Its twin: scales of segments in an .ecdc at 48 kHz, below.
@pytest.mark.slow
@pytest.mark.parametrize("samples", [230, 431, 4000])
def test_a_codec_of_segments_keeps_its_scales(capsys, tmp_path, codecs, samples):
    """Where the last but one is not whole, and where codes fill more than one of the file's."""
    codec = rj.Codec.load(codecs["stereo"])
    soundfile.write(tmp_path / "a.wav", audio_of(samples, 2), RATE, **FLOAT)
    encode_file.encode_file(codec, tmp_path / "a.wav", tmp_path / "a.rvq")
    expected = codec.encode(audio_of(samples, 2)[None])
    found = read_write.read(tmp_path / "a.rvq", codec)
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_array_equal(found.scales, expected.scales)
    assert found.samples == samples
    with (tmp_path / "a.rvq").open("rb") as file:
        parts = list(Reader(file))
    # A part of the file begins where a segment of 40 frames does: it can be decoded alone.
    assert [part.codes.shape[1] for part in parts[:-1]] == [720] * (len(parts) - 1)
    assert [len(part.scales) for part in parts[:-1]] == [18] * (len(parts) - 1)
    assert len(parts) == (1 if samples < 4000 else 2)


def test_channels_and_rate_are_brought_to_the_codec(capsys, tmp_path, codecs):
    stereo = audio_of(500, 2)
    soundfile.write(tmp_path / "a.wav", stereo, 800, **FLOAT)
    conditions = said(
        capsys, "encode", tmp_path / "a.wav", tmp_path / "a.rvq", "--codec", codecs["mono"]
    )
    mono = resample.to_rate(stereo.mean(1, keepdims=True), 800, RATE)
    assert conditions["samples"] == len(mono) == 375
    codec = rj.Codec.load(codecs["mono"])
    found = read_write.read(tmp_path / "a.rvq", codec)
    np.testing.assert_array_equal(found.codes, codec.encode(mono[None]).codes)
    # One sample is less than one of the codec's: it is kept.
    soundfile.write(tmp_path / "b.wav", audio_of(1), 3 * RATE)
    conditions = said(
        capsys, "encode", tmp_path / "b.wav", tmp_path / "b.rvq", "--codec", codecs["mono"]
    )
    assert conditions["samples"] == 1


@pytest.mark.slow
def test_long_audio_gets_the_same_codes_in_steps(tmp_path, codecs, monkeypatch):
    monkeypatch.setattr(encode_file, "LONG", 3.0)
    codec, audio = rj.Codec.load(codecs["mono"]), audio_of(3 * RATE + 5)
    soundfile.write(tmp_path / "a.wav", audio, RATE, **FLOAT)
    coded = encode_file.encode_file(codec, tmp_path / "a.wav", tmp_path / "a.rvq", chunk=1.0)
    np.testing.assert_array_equal(coded.codes, codec.encode(audio[None]).codes)
    encode_file.decode_file(codec, tmp_path / "a.rvq", tmp_path / "b.flac", chunk=1.0)
    decoded, _ = soundfile.read(tmp_path / "b.flac", always_2d=True)
    assert decoded.shape == audio.shape
    same(decoded, codec.decode(coded)[0])


def test_fewer_levels_are_a_prefix(capsys, tmp_path, codecs):
    """Whether they were left out when encoding, by number or bandwidth, or when decoding."""
    codec = rj.Codec.load(codecs["mono"])
    soundfile.write(tmp_path / "a.wav", audio_of(300), RATE, **FLOAT)
    flags = {"all": [], "two": ["--levels", 2], "kbps": ["--kbps", 0.8, "--no-entropy"]}
    for name, words in flags.items():
        words = ["encode", tmp_path / "a.wav", tmp_path / f"{name}.rvq", *words]
        said(capsys, *words, "--codec", codecs["mono"])
    whole = read_write.read(tmp_path / "all.rvq", codec)
    assert whole.codes.shape[1] == 3
    for name in ("two", "kbps"):
        found = read_write.read(tmp_path / f"{name}.rvq", codec)
        np.testing.assert_array_equal(found.codes, whole.codes[:, :2])
    decoded = []
    for name in ("all", "two"):
        words = ["decode", tmp_path / f"{name}.rvq", tmp_path / "b.wav", "--levels", 2]
        said(capsys, *words, "--codec", codecs["mono"])
        decoded.append((tmp_path / "b.wav").read_bytes())
    assert decoded[0] == decoded[1]


# Folders and pipes.


@pytest.mark.parametrize("name", ["mono", wide("stereo")])
def test_a_folder_is_its_files_one_by_one(capsys, tmp_path, codecs, name, monkeypatch):
    """Whatever a file shares its batch with, and however full the batch is."""
    codec, channels = rj.Codec.load(codecs[name]), CONFIGS[name].channels
    # Batches of two: the buckets of 1 and 2 seconds only, longer ones alone and in steps.
    monkeypatch.setattr(encode_folder, "BUCKETS", (1, 2))
    monkeypatch.setattr(encode_folder, "TOGETHER", 2.0)
    lengths = {"b/c.wav": 230, "b/d.FLAC": 599, "e.ogg": 1000, "f.wav": 1300}
    for i, (file, samples) in enumerate(lengths.items()):
        (tmp_path / "in" / file).parent.mkdir(parents=True, exist_ok=True)
        # Ogg knows no rate as low as the others'.
        rate = 8000 if file == "e.ogg" else RATE
        soundfile.write(tmp_path / "in" / file, audio_of(samples, channels, i), rate)
    (tmp_path / "in" / "notes.txt").write_text("no audio")
    (tmp_path / "in" / ".a.wav").write_text("hidden")
    conditions = said(capsys, "encode", tmp_path / "in", tmp_path / "out", "--codec", codecs[name])
    names = sorted(str(Path(file).with_suffix(".rvq")) for file in lengths)
    assert sorted(conditions["files"]) == [str(tmp_path / "out" / file) for file in names]
    for file in lengths:
        alone = encode_file.encode(codec, encode_file.read_audio(codec, tmp_path / "in" / file), 3)
        found = read_write.read((tmp_path / "out" / file).with_suffix(".rvq"), codec)
        np.testing.assert_array_equal(found.codes, alone.codes)
        assert found.samples == alone.samples
        if alone.scales is not None:
            np.testing.assert_allclose(found.scales, alone.scales, rtol=1e-6)
    words = ["decode", tmp_path / "out", tmp_path / "back", "--format", "flac"]
    conditions = said(capsys, *words, "--codec", codecs[name])
    assert len(conditions["files"]) == len(lengths)
    for file in conditions["files"]:
        decoded, rate = soundfile.read(file, always_2d=True)
        coded = read_write.read(
            tmp_path / "out" / Path(file).relative_to(tmp_path / "back").with_suffix(".rvq"), codec
        )
        assert decoded.shape == (coded.samples, channels) and rate == RATE
        same(decoded, codec.decode(coded)[0])


class Pipe:
    """A standard stream of bytes that cannot seek."""

    def __init__(self, data: bytes = b""):
        self.buffer = io.BytesIO(data)
        self.buffer.seekable = lambda: False

    def write(self, text: str) -> None:
        raise AssertionError(f"{text!r} among the bytes")


def test_pipes_are_files(tmp_path, codecs, monkeypatch, capsys):
    """The same bytes; what is said goes to standard error."""
    codec, source = ["--codec", codecs["mono"]], tmp_path / "a.wav"
    soundfile.write(source, audio_of(300), RATE)
    said(capsys, "encode", source, tmp_path / "a.rvq", *codec)
    said(capsys, "decode", tmp_path / "a.rvq", tmp_path / "b.wav", *codec)
    data = source.read_bytes()
    for command, result in (("encode", "a.rvq"), ("decode", "b.wav")):
        monkeypatch.setattr(sys, "stdin", Pipe(data))
        monkeypatch.setattr(sys, "stdout", out := Pipe())
        code, _, lines = run(capsys, command, "-", "-", *codec)
        monkeypatch.undo()
        assert code == 0 and len(lines) == 1 and "standard output" in lines[0]
        data = out.buffer.getvalue()
        assert data == (tmp_path / result).read_bytes()


# What a file is.


def test_info_of_a_file_and_of_a_codec(capsys, tmp_path, codecs):
    soundfile.write(tmp_path / "a.wav", audio_of(900), RATE)
    said(capsys, "encode", tmp_path / "a.wav", tmp_path / "a.rvq", "--codec", codecs["mono"])
    conditions = said(capsys, "info", tmp_path / "a.rvq")
    codec = said(capsys, "info", codecs["mono"])
    assert conditions["hash"] == codec.pop("hash") == conditions.pop("hash")
    size = (tmp_path / "a.rvq").stat().st_size
    expected = {
        "format": "rvq",
        "codec": "encodec_0.6khz",
        "rate": RATE,
        "channels": 1,
        "seconds": 1.5,
        "samples": 900,
        "levels": 3,
        "codebook_size": 16,
        "frames": 150,
        "entropy": True,
        "bytes": size,
        "kbps_stored": 8 * size / 1500,
        "kbps_raw": 1.2,
    }
    assert conditions == pytest.approx(expected)
    assert (codec["levels"], codec["codebook_size"], codec["frame_rate"]) == (3, 16, 100.0)
    leaves = jax.tree.leaves(rj.Codec.load(codecs["mono"]).params)
    assert codec["parameters"] == sum(leaf.size for leaf in leaves)
    assert codec["quantizer_parameters"] == 3 * 16 * 6
    code, out, lines = run(capsys, "info", tmp_path / "a.rvq")
    assert (code, lines) == (0, []) and "kbps raw" in out and "1.20" in out


def test_a_fingerprint_is_of_the_weights(tmp_path, codecs):
    """The same after saving, in our format too; another for other weights."""
    found = {name: rj.Codec.load(path).fingerprint() for name, path in codecs.items()}
    assert len(set(found.values())) == len(found) and {map(len, found.values())} != {0}
    for name in ("dac", "own"):
        rj.Codec.load(codecs[name]).save(tmp_path / name)
        assert rj.Codec.load(tmp_path / name).fingerprint() == found[name]


# Other projects' files.


# Its twin: at 48 kHz, below.
@pytest.mark.slow
def test_ecdc_at_24_khz(capsys, tmp_path):
    config = CodecConfig(24_000, seanet(ratios=(16, 20)), levels=3, codebook_size=1024)
    codec, samples = rj.Codec.init(config, jax.random.key(0)), 3000
    codec.save(tmp_path / "codec")
    codes_KF = np.random.default_rng(0).integers(0, 1024, (2, 10))
    (tmp_path / "a.ecdc").write_bytes(ecdc_bytes("encodec_24khz", samples, [(None, codes_KF)]))
    words = ["decode", tmp_path / "a.ecdc", tmp_path / "a.wav", "--codec", tmp_path / "codec"]
    assert said(capsys, *words)["samples"] == samples
    decoded, rate = soundfile.read(tmp_path / "a.wav", always_2d=True)
    assert rate == 24_000
    same(decoded, codec.decode(codes_KF[None])[0, :samples])
    conditions = said(capsys, "info", tmp_path / "a.ecdc")
    assert (conditions["codec"], conditions["levels"], conditions["frames"]) == (
        "encodec_24khz",
        2,
        10,
    )
    assert conditions["kbps_raw"] == pytest.approx(2 * 10 * 10 / 0.125 / 1000)


def test_ecdc_at_48_khz(tmp_path):
    """Scales and overlapping segments, the last but one not whole."""
    model = seanet(2, ratios=(16, 20), filters=2, lstm_layers=0, **GROUPED)
    config = CodecConfig(48_000, model, levels=2, codebook_size=1024, normalize=True, segment=1.0)
    codec, samples = rj.Codec.init(config, jax.random.key(0)), 47_600
    random = np.random.default_rng(0)
    parts = [(s, random.integers(0, 1024, (2, f))) for s, f in ((0.5, 149), (2.0, 1))]
    (tmp_path / "a.ecdc").write_bytes(ecdc_bytes("encodec_48khz", samples, parts))
    assert encode_file.decode_file(codec, tmp_path / "a.ecdc", tmp_path / "a.wav")[0] == samples
    coded = rj.Coded(
        np.concatenate([codes_KF for _, codes_KF in parts], axis=1)[None],
        np.float32([[0.5, 2.0]]),
        samples,
    )
    decoded, _ = soundfile.read(tmp_path / "a.wav", always_2d=True)
    same(decoded, codec.decode(coded)[0])


@pytest.mark.parametrize("channels", [1, 2])
def test_dac_files_are_set_to_their_loudness_and_rate(capsys, tmp_path, codecs, channels):
    codec = rj.Codec.load(codecs["dac"])
    codes_CKF = np.random.default_rng(0).integers(0, 16, (channels, 3, 150))
    (tmp_path / "a.dac").write_bytes(dac_bytes(codes_CKF, 2301, 2 * RATE))
    words = ["decode", tmp_path / "a.dac", tmp_path / "a.wav", "--codec", codecs["dac"]]
    assert said(capsys, *words) == {
        "file": str(tmp_path / "a.wav"),
        "samples": 2301,
        "rate": 2 * RATE,
    }
    audio_SC = np.asarray(codec.decode(codes_CKF))[..., 0].T
    gain = 10 ** ((-20 - dac_chunks.loudness(audio_SC, RATE)) / 20)
    expected_SC = resample.to_rate(audio_SC * np.float32(gain), RATE, 2 * RATE)[:2301]
    decoded, _ = soundfile.read(tmp_path / "a.wav", always_2d=True)
    same(decoded, expected_SC)
    conditions = said(capsys, "info", tmp_path / "a.dac")
    assert (conditions["channels"], conditions["levels"], conditions["frames"]) == (
        channels,
        3,
        150,
    )


def test_dac_windows_hold_what_their_codes_tell_alone():
    """Far from a window's ends, padded and unpadded convolutions see the same."""
    config = DACConfig(RATE, (2, 4), 4, 16, 16, levels=3, codebook_size=16, code_dim=3)
    codec = rj.Codec.init(config, jax.random.key(0))
    codes = np.random.default_rng(0).integers(0, 16, (1, 3, 120))
    inside = np.asarray(dac_chunks._unpadded(*codec.prepared, codes))
    whole = np.asarray(codec.decode(codes))
    cut, rest = divmod(whole.shape[1] - inside.shape[1], 2)
    assert rest == 0 and 0 < cut < whole.shape[1] // 4
    ends = slice(100, -100)
    np.testing.assert_allclose(inside[:, ends], whole[:, cut:-cut][:, ends], atol=1e-4)


def test_loudness_of_silence_and_of_short_audio():
    """BS.1770's own check, a sine of 997 Hz at full scale is -3.01 LUFS; its ends are -70."""
    tone_SC = np.sin(2 * np.pi * 997 * np.arange(3 * 16_000) / 16_000)[:, None]
    assert dac_chunks.loudness(tone_SC, 16_000) == pytest.approx(-3.01, abs=0.1)
    for silent_SC in (np.zeros((10, 1)), np.zeros((16_000, 2))):
        assert dac_chunks.loudness(silent_SC, 16_000) == dac_chunks.SILENCE
