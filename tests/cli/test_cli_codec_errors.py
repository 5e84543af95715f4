"""encode, decode, info, import and export: a mistake is one line, and leaves nothing."""

import errno
import io
import os
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import small_codecs
import soundfile
from command import refuses, run
from small_codecs import RATE, dac_bytes, ecdc_bytes

import rvq_jax as rj
from rvq_jax import cli
from rvq_jax.cli.terminal import flags
from rvq_jax.rvqfile import container


@pytest.fixture(scope="module")
def codecs(tmp_path_factory) -> dict[str, Path]:
    return small_codecs.folders(tmp_path_factory)


@pytest.fixture
def place(tmp_path, codecs, capsys) -> Path:
    """A folder with audio and its codes; nothing may join them."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((300, 1))
    soundfile.write(tmp_path / "a.wav", noise, RATE)
    words = ["encode", tmp_path / "a.wav", tmp_path / "a.rvq", "--codec", codecs["mono"]]
    assert run(capsys, *words)[0] == 0
    return tmp_path


def files(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


def refused_and_clean(capsys, place: Path, *words, say: tuple[str, ...]) -> None:
    before = files(place)
    refuses(capsys, *words, say=say)
    assert files(place) == before


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (["--levels", "4"], ["1..3", "4"]),
        (["--levels", "0"], ["--levels", "1..256", "0"]),
        (["--kbps", "0.3"], ["at least 0.40", "0.3"]),
        (["--levels", "2", "--kbps", "1"], ["levels and kbps"]),
        (["--levels", "two"], ["--levels", "two"]),
        (["--kpbs", "2"], ["'--kbps'"]),
    ],
    ids=lambda words: " ".join(words),
)
def test_levels_and_kbps_that_the_codec_has_not(capsys, place, codecs, words, say):
    words = ["encode", place / "a.wav", place / "b.rvq", "--codec", codecs["mono"], *words]
    refused_and_clean(capsys, place, *words, say=say)


def test_levels_that_the_file_has_not(capsys, place, codecs):
    (place / "a.dac").write_bytes(dac_bytes(np.zeros((1, 2, 9), int), 60, RATE))
    codec = ["--codec", codecs["mono"]]
    words = ["decode", place / "a.rvq", place / "b.wav", "--levels", 4, *codec]
    refused_and_clean(capsys, place, *words, say=("a.rvq", "[1, 3]", "4"))
    words = ["decode", place / "a.dac", place / "b.wav", "--levels", 4]
    refused_and_clean(capsys, place, *words, "--codec", codecs["dac"], say=("a.dac", "1..2", "4"))


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_codec_that_is_none(capsys, place, codecs, command):
    names = ["a.wav", "b.rvq"] if command == "encode" else ["a.rvq", "b.wav"]
    words = [command, *(place / name for name in names)]
    if command == "decode":  # the built-in codec did not make it
        refused_and_clean(capsys, place, *words, say=("made by another codec", "--codec"))
    words.append("--codec")
    refused_and_clean(capsys, place, *words, place / "gone", say=("gone", "not a model folder"))
    (place / "lm").mkdir()
    (place / "lm" / "config.json").write_text('{"model": "musicgen"}')
    refused_and_clean(capsys, place, *words, place / "lm", say=("holds a musicgen", "not a codec"))
    (place / "lm" / "config.json").write_text('{"model_type": "llama"}')
    refused_and_clean(capsys, place, *words, place / "lm", say=("'llama'", "encodec, dac, mimi"))


def test_audio_that_is_none(capsys, place, codecs):
    nan = np.zeros(50)
    nan[7] = np.nan
    soundfile.write(place / "nan.wav", nan, RATE, subtype="FLOAT")
    soundfile.write(place / "empty.wav", np.zeros(0), RATE)
    soundfile.write(place / "six.wav", np.zeros((9, 6)), RATE)
    (place / "text.wav").write_text("not audio" * 100)
    for name, *say in (
        ("nan.wav", "NaN", "7"),
        ("empty.wav", "no samples"),
        ("text.wav", "cannot be read"),
        ("gone.wav", "not there"),
    ):
        words = ["encode", place / name, place / "b.rvq", "--codec", codecs["mono"]]
        refused_and_clean(capsys, place, *words, say=(name, *say))
    words = ["encode", place / "six.wav", place / "b.rvq", "--codec", codecs["stereo"]]
    refused_and_clean(capsys, place, *words, say=("six.wav", "6 channels to 2"))


def test_audio_on_standard_input_that_is_none(capsys, place, codecs, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(b"no audio"))
    monkeypatch.setattr(sys, "stdin", stream)
    words = ["encode", "-", place / "b.rvq", "--codec", codecs["mono"]]
    refused_and_clean(capsys, place, *words, say=("standard input cannot be read",))


@pytest.mark.parametrize(
    ("source", "target", "say"),
    [
        ("a.wav", "b.mp4", ["b.mp4", "'.mp4'", ".rvq"]),
        ("a.wav", "b", ["no suffix", ".rvq"]),
        ("a.wav", "folder", ["folder", "name a file"]),
        ("folder", "a.rvq", ["a.rvq is a file", "name a folder"]),
        ("folder", "new", ["nothing to read", ".wav"]),
        ("folder", "-", ["folder", "which - cannot take"]),
    ],
)
def test_places_and_suffixes_of_encode(capsys, place, codecs, source, target, say):
    (place / "folder").mkdir()
    (place / "folder" / "thesis.txt").write_text("kept")
    target = target if target == "-" else place / target
    words = ["encode", place / source, target, "--codec", codecs["mono"]]
    say = [word.replace("'", "") for word in say]
    refused_and_clean(capsys, place, *words, say=tuple(say))


@pytest.mark.parametrize(
    ("source", "target", "say"),
    [
        ("a.rvq", "b.txt", [".txt", ".wav"]),
        ("a.wav", "b.wav", ["a.wav", "cannot decode .wav", ".rvq, .ecdc, .dac"]),
        ("gone.rvq", "b.wav", ["gone.rvq is not there"]),
    ],
)
def test_places_and_suffixes_of_decode(capsys, place, codecs, source, target, say):
    words = ["decode", place / source, place / target, "--codec", codecs["mono"]]
    refused_and_clean(capsys, place, *words, say=tuple(say))


def test_json_and_bytes_do_not_share_standard_output(capsys, place, codecs):
    words = ["encode", place / "a.wav", "-", "--json", "--codec", codecs["mono"]]
    refused_and_clean(capsys, place, *words, say=("--json", "standard output"))


def test_codes_of_another_codec(capsys, place, codecs, tmp_path_factory):
    """Of other sizes, or of the same sizes and other weights."""
    words = ["decode", place / "a.rvq", place / "b.wav", "--codec"]
    for name in ("stereo", "dac", "own"):
        say = ("a.rvq", "another codec", "encodec_0.6khz", "give the codec that made it")
        refused_and_clean(capsys, place, *words, codecs[name], say=say)
    other = tmp_path_factory.mktemp("other") / "codec"
    rj.Codec.init(small_codecs.CONFIGS["mono"], jax.random.key(9)).save(other)
    refused_and_clean(capsys, place, *words, other, say=("a.rvq", "other weights"))
    (place / "a.ecdc").write_bytes(ecdc_bytes("encodec_24khz", 9, [(None, np.zeros((1, 1), int))]))
    (place / "a.dac").write_bytes(dac_bytes(np.full((1, 3, 9), 900), 9, RATE))
    for name, codec in (("a.ecdc", "mono"), ("a.dac", "dac"), ("a.dac", "mono")):
        words = ["decode", place / name, place / "b.wav", "--codec", codecs[codec]]
        refused_and_clean(capsys, place, *words, say=(name, "give the codec that made it"))


def test_damaged_codes(capsys, place, codecs):
    data = (place / "a.rvq").read_bytes()
    for content, say in (
        (b"", "cut short"),
        (b"no codes" * 9, "no .rvq file"),
        (data[:-60], "cut short"),
        (data[:200] + bytes([data[200] ^ 1]) + data[201:], "damaged"),
    ):
        (place / "a.rvq").write_bytes(content)
        words = ["decode", place / "a.rvq", place / "b.wav", "--codec", codecs["mono"]]
        refused_and_clean(capsys, place, *words, say=("a.rvq", say))


def test_a_full_disk_leaves_nothing(capsys, place, codecs, monkeypatch):
    """Neither a file nor a temporary folder, and what was there before stays."""

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = (place / "a.rvq").read_bytes()
    words = ["encode", place / "a.wav", place / "a.rvq", "--codec", codecs["mono"]]
    monkeypatch.setattr(container.Writer, "close", full)
    refused_and_clean(capsys, place, *words, say=("cannot write", "a.rvq", "No space left"))
    assert (place / "a.rvq").read_bytes() == before
    monkeypatch.setattr(soundfile.SoundFile, "write", full)
    words = ["decode", place / "a.rvq", place / "b.wav", "--codec", codecs["mono"]]
    refused_and_clean(capsys, place, *words, say=("cannot write", "b.wav", "No space left"))


def test_a_damaged_file_of_a_folder_does_not_stop_the_others(capsys, place, codecs):
    """It is named at the end, and nothing is there for it."""
    (place / "bad.wav").write_text("not audio")
    words = ["encode", place, place / "out", "--codec", codecs["mono"]]
    refuses(capsys, *words, say=("1 of 2 files", "bad.wav", "cannot be read", "others are done"))
    assert files(place / "out") == ["a.rvq"]
    (place / "out" / "bad.rvq").write_text("not codes")
    words = ["decode", place / "out", place / "back", "--codec", codecs["mono"]]
    refuses(capsys, *words, say=("1 of 2 files", "bad.rvq", "no .rvq file"))
    assert files(place / "back") == ["a.wav"]


def test_strict_writes_nothing_beside_a_damaged_file(capsys, place, codecs):
    codec = ["--strict", "--codec", codecs["mono"]]
    (place / "bad.wav").write_text("not audio")
    say = ("1 of 2 files", "nothing is written", "bad.wav")
    refuses(capsys, "encode", place, place / "out", *codec, say=say)
    assert not (place / "out").exists()
    (place / "bad.rvq").write_text("not codes")
    say = ("1 of 2 files", "nothing is written", "bad.rvq")
    refuses(capsys, "decode", place, place / "out", *codec, say=say)
    assert not (place / "out").exists()


def test_a_folder_of_all_that_can_be_wrong(capsys, place, codecs):
    """What is good is coded, in linked folders too; what is not is named: never passed over."""
    source, other = place / "in", place / "other"
    other.mkdir()
    (other / "linked.aiff").write_bytes((place / "a.wav").read_bytes())
    source.mkdir()
    (source / "folder").symlink_to(other)
    (source / "good.wave").write_bytes((place / "a.wav").read_bytes())
    flac = io.BytesIO()
    soundfile.write(flac, np.zeros(300), RATE, format="FLAC")
    for name, count in (("long.flac", 2**36 - 1), ("unknown.flac", 0)):
        data = bytearray(flac.getvalue())
        data[21:26] = (data[21] >> 4 << 36 | count).to_bytes(5, "big")
        (source / name).write_bytes(data)
    soundfile.write(source / "xi.wav", np.zeros(900), 44_100, format="XI", subtype="DPCM_16")
    soundfile.write(source / "slow.wav", np.zeros(900), 1)
    (source / "song.m4a").write_bytes(b"")
    (source / "song.wav").write_bytes((place / "a.wav").read_bytes())
    os.mkfifo(source / "pipe.wav")
    (source / "link.wav").symlink_to("nowhere")
    (source / "folder.wav").mkdir()
    os.rename(source / "song.wav", os.fsencode(source) + b"/caf\xe9.wav")
    bad = ["link.wav", "long.flac", "pipe.wav", "slow.wav", "song.m4a", "xi.wav"]
    words = ["encode", source, place / "out", "--codec", codecs["mono"]]
    code, _, lines = run(capsys, *words)
    assert code == 2 and len(lines) == 1 + len(bad) and all(line.isprintable() for line in lines)
    assert [line.split()[3] for line in lines[:-1]] == bad
    assert "6 of 10 files are left out, the others are done" in lines[-1]
    good = [os.fsdecode(b"caf\xe9.rvq"), "folder", "folder/linked.rvq", "good.rvq", "unknown.rvq"]
    assert files(place / "out") == sorted(good)


def test_a_long_name_of_what_is_not_read_ends_no_folder(capsys, place, codecs):
    (place / f"{'n' * 251}.m4a").write_bytes(b"")
    code, _, lines = run(capsys, "encode", place, place / "out", "--codec", codecs["mono"])
    assert code == 2 and "1 of 2 files are left out, the others are done" in lines[-1]
    assert files(place / "out") == ["a.rvq"]


def test_two_files_that_would_become_one(capsys, place, codecs):
    soundfile.write(place / "a.flac", np.zeros(9), RATE)
    words = ["encode", place, place / "out", "--codec", codecs["mono"]]
    refused_and_clean(capsys, place, *words, say=("a.flac", "a.wav", "a.rvq", "rename one"))


def test_info_of_what_is_none(capsys, place):
    refuses(capsys, "info", place / "gone.rvq", say=("gone.rvq is not there",))
    (place / "a.txt").write_text("x")
    refuses(capsys, "info", place / "a.txt", say=("a.txt", ".rvq, .ecdc, .dac", "codec folder"))
    (place / "a.txt").unlink()
    refuses(capsys, "info", place, say=("not a model folder",))
    (place / "b.rvq").write_bytes(b"")
    refuses(capsys, "info", place / "b.rvq", say=("b.rvq", "cut short"))


def test_imports_that_are_none(capsys, place):
    words = ["--out", place / "new"]
    refused_and_clean(capsys, place, "import", place / "gone.th", *words, say=("not there",))
    refused_and_clean(capsys, place, "import", place / "a.wav", *words, say=("a.wav",))
    (place / "a.th").write_bytes(small_codecs.torch_bytes({"x.weight": np.zeros((2, 2))}))
    words = ["import", place / "a.th", *words]
    refused_and_clean(capsys, place, *words, say=("fits no codec", "encodec_24khz", "--kind"))
    say = ("does not fit", "x.weight")
    refused_and_clean(capsys, place, *words, "--kind", "encodec_24khz", say=say)
    say = ("'encodec_42khz'", "encodec_24khz")
    refused_and_clean(capsys, place, *words, "--kind", "encodec_42khz", say=say)


def test_an_export_takes_nothing_away(capsys, place, codecs):
    """A folder with other things in it, or a file."""
    (place / "home").mkdir()
    (place / "home" / "thesis.txt").write_text("kept")
    words = ["export", codecs["mono"], "--out"]
    refused_and_clean(capsys, place, *words, place / "home", say=("thesis.txt", "choose another"))
    refused_and_clean(capsys, place, *words, place / "a.wav", say=("a.wav is a file",))
    words = ["export", codecs["own"], "--out", place / "new"]
    refused_and_clean(capsys, place, *words, say=("transformers", "codebook_size 17", "stablehlo"))


@pytest.mark.parametrize("command", ["encode", "decode", "info", "import", "export"])
def test_help_explains_every_field(capsys, command):
    code, out, lines = run(capsys, command, "--help")
    assert (code, lines) == (0, []) and "default" in out
    positional = {"--source", "--target", "--path", "--file"}
    assert {flag for flag in flags(cli.load(command)) if flag not in out} <= positional | (
        {"--model"} if command == "export" else set()
    )
