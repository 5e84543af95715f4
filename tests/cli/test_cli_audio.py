"""Folders of audio that are not as they should be: one line, exit code 2, nothing half-done."""

import json
import os
import signal

import numpy as np
import pytest
import soundfile
from command import RATE, good, leftovers, refuses, run, tone

from rvq_jax import cli, files
from rvq_jax.audio import io
from rvq_jax.data import builder


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
    (good(folder) / "metadata.csv").write_text("name,caption\nok0.wav,x\nok1.wav,y\n")
    return folder, ("metadata.csv", "'file'")


def without_captions(folder):
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


def unread(folder):
    (good(folder) / "bad.m4a").write_bytes(b"")
    return folder, ("bad.m4a", "format that cannot be read")


def pipe(folder):
    os.mkfifo(good(folder) / "bad.wav")
    return folder, ("bad.wav", "pipe")


def dangling(folder):
    (good(folder) / "bad.flac").symlink_to("nowhere")
    return folder, ("bad.flac", "not there")


def listed(folder):
    lines = ["file,caption,split", "ok0.wav,a,train", "bad.wav,b,train", "ok1.wav,c,test"]
    (not_audio(folder)[0] / "metadata.csv").write_text("\n".join(lines))
    return folder, ("bad.wav", "cannot be read")


FOLDERS = [missing, a_file, empty, without_audio, one_clip]
FOLDERS += [table_without_column, table_with_missing_file, table_with_unknown_split]
FOLDERS += [table_not_text]
FILES = [not_audio, truncated, no_bytes, no_samples, nan, unread, pipe, dangling, listed]
BAD = [("data build", make) for make in FOLDERS]
BAD += [("data build --strict", make) for make in FILES]
BAD += [("quickstart", make) for make in [*FOLDERS, *FILES, without_captions]]


@pytest.mark.parametrize("command, make", BAD, ids=lambda value: getattr(value, "__name__", value))
def test_bad_audio_is_told_in_one_line_and_leaves_nothing(capsys, tmp_path, make, command):
    """The line names the file; no dataset, whole or half, and no temporary folder is there."""
    folder, say = make(tmp_path / "in")
    out = tmp_path / "work" / "out"
    given = ["--data", folder] if command == "quickstart" else [folder]
    refuses(capsys, *command.split(), *given, "--out", out, say=say)
    assert not out.exists() and leftovers(out) == []


def sources(dataset) -> list[str]:
    """Files of which a dataset holds records."""
    records = [builder.open_split(dataset, split) for split in ("train", "heldout")]
    names = {split[i]["name"].split("#")[0] for split in records for i in range(len(split))}
    return sorted(names)


@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_one_bad_file_is_left_out_and_named(capsys, tmp_path, make):
    """All others are in the dataset; once more it says the same, and reads nothing."""
    folder, say = make(tmp_path / "in")
    out = tmp_path / "work" / "out"
    want = ["ok0.wav", "ok1.wav"] + ["ok2.wav"] * (make is not listed)
    for _ in range(2):
        refuses(capsys, "data", "build", folder, "--out", out, say=("1 of", "left out", *say))
        assert sources(out) == want and leftovers(out) == []


def test_many_bad_files_have_a_line_each(capsys, tmp_path):
    folder = good(tmp_path / "in")
    for i in range(5):
        (folder / f"bad{i}.wav").write_text("no audio")
    code, _, lines = run(capsys, "data", "build", folder, "--out", tmp_path / "out")
    assert code == 2 and len(lines) == 6 and "5 of 8 files are left out" in lines[-1]
    for i in range(5):
        assert f"left out: bad{i}.wav (cannot be read" in "\n".join(lines)


def test_nothing_to_train_on_leaves_nothing(capsys, tmp_path):
    folder, out = good(tmp_path / "in"), tmp_path / "work" / "out"
    (folder / "ok0.wav").write_text("no audio")
    rows = [f"ok{i}.wav,{'test' if i else 'train'}\n" for i in range(3)]
    (folder / "metadata.csv").write_text("file,split\n" + "".join(rows))
    words = ["data", "build", folder, "--out", out]
    refuses(capsys, *words, say=("no train clip", "ok0.wav", "cannot be read"))
    assert not out.exists() and leftovers(out) == []


def test_sigterm_leaves_nothing(tmp_path, monkeypatch):
    """It ends the command as an error does: what is half written goes."""
    # Not that of a test before, or of whoever runs the tests.
    others = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    folder, out = good(tmp_path / "in"), tmp_path / "work" / "out"
    read, count = io.read, []

    def asked_for(path):
        count.append(path)
        if len(count) == 3:
            assert len(list(out.parent.glob(f"{files.TEMPORARY}*"))) == 1
            os.kill(os.getpid(), signal.SIGTERM)
        return read(path)

    monkeypatch.setattr(io, "read", asked_for)
    try:
        assert cli.main(["data", "build", str(folder), "--out", str(out)]) == 143
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, others)
    assert not out.parent.exists()


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
