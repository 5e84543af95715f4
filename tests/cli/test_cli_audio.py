"""Folders of audio that are not as they should be: one line, exit code 2, nothing left."""

import json

import numpy as np
import pytest
import soundfile
from command import RATE, good, leftovers, refuses, run, tone


def missing(folder):
    return folder, ("not there", "--data")


def a_file(folder):
    folder.write_text("")
    return folder, ("not there",)


def empty(folder):
    folder.mkdir()
    return folder, ("no audio",)


def without_audio(folder):
    folder.mkdir()
    (folder / "notes.txt").write_text("none")
    return folder, ("no audio", ".wav")


def one_clip(folder):
    folder.mkdir()
    soundfile.write(folder / "a.wav", tone(), RATE)
    return folder, ("one clip",)


def not_audio(folder):
    (good(folder) / "bad.wav").write_bytes(b"this is not audio at all" * 50)
    return folder, ("bad.wav", "cannot be read")


def truncated(folder):
    soundfile.write(good(folder) / "bad.flac", tone(4), RATE)
    data = (folder / "bad.flac").read_bytes()
    (folder / "bad.flac").write_bytes(data[: len(data) // 2])
    return folder, ("bad.flac",)


def no_bytes(folder):
    (good(folder) / "bad.ogg").write_bytes(b"")
    return folder, ("bad.ogg",)


def no_samples(folder):
    soundfile.write(good(folder) / "bad.wav", np.zeros(0), RATE)
    return folder, ("bad.wav", "no samples")


def nan(folder):
    audio = tone()
    audio[77] = np.nan
    soundfile.write(good(folder) / "bad.wav", audio, RATE, subtype="FLOAT")
    return folder, ("bad.wav", "NaN", "77")


def table_without_column(folder):
    (good(folder) / "metadata.csv").write_text("file,label\nok0.wav,x\nok1.wav,y\n")
    return folder, ("metadata.csv", "'caption'")


def table_with_missing_file(folder):
    (good(folder) / "metadata.csv").write_text("file,caption\nok0.wav,x\ngone.wav,y\n")
    return folder, ("metadata.csv line 3", "'gone.wav'")


def table_with_unknown_split(folder):
    (good(folder) / "metadata.csv").write_text("file,caption,split\nok0.wav,x,tarin\n")
    return folder, ("metadata.csv line 2", "'tarin'")


def table_not_text(folder):
    (good(folder) / "metadata.csv").write_bytes(b"file,caption\n\xff\xfe\x00,x\n")
    return folder, ("metadata.csv", "UTF-8")


BAD = [
    missing,
    a_file,
    empty,
    without_audio,
    one_clip,
    not_audio,
    truncated,
    no_bytes,
    no_samples,
    nan,
    table_without_column,
    table_with_missing_file,
    table_with_unknown_split,
    table_not_text,
]


@pytest.mark.parametrize("command", ["data build", "quickstart"])
@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_bad_audio_is_told_in_one_line_and_leaves_nothing(capsys, tmp_path, make, command):
    """The line names the file; no dataset, whole or half, and no temporary folder is there."""
    folder, say = make(tmp_path / "in")
    out = tmp_path / "work" / "out"
    given = [folder] if command == "data build" else ["--data", folder]
    refuses(capsys, *command.split(), *given, "--out", out, say=say)
    assert not out.exists() and leftovers(out) == []


def test_a_clip_shorter_than_a_frame_is_told(capsys, tmp_path):
    """Shorter than one code of the study's codec: 320 samples at 16 kHz."""
    soundfile.write(good(tmp_path / "in") / "bad.wav", tone()[:100], RATE)
    words = ["quickstart", "--data", tmp_path / "in", "--out", tmp_path / "out"]
    refuses(capsys, *words, say=("bad.wav", "shorter than one frame", "100 of 320"))
    assert leftovers(tmp_path / "out") == []


def test_a_mended_folder_goes_on_in_the_same_place(capsys, tmp_path):
    """What a failed command left does not stand in the way of the next."""
    folder, _ = nan(tmp_path / "in")
    refuses(capsys, "data", "build", folder, "--out", tmp_path / "out", say=("bad.wav",))
    (folder / "bad.wav").unlink()
    code, out, lines = run(capsys, "data", "build", folder, "--out", tmp_path / "out", "--json")
    assert (code, lines) == (0, [])
    assert json.loads(out) == {"dataset": str(tmp_path / "out")}
    assert leftovers(tmp_path / "out") == []
