"""Folders of audio: what is found, what the table says, and that something is held out."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from rvq_jax.data import folder
from rvq_jax.data.folder import scan

REAL = Path(__file__).parents[3] / "shared" / "audio"


def touch(root: Path, *names: str) -> None:
    """`scan` looks at names only, so the files may be empty."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def table(root: Path, *rows: tuple) -> None:
    with (root / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def not_read(root: Path, *words: str) -> None:
    refused(lambda: scan(root), *words)


def test_names_become_captions_and_folders_labels(tmp_path):
    touch(tmp_path, "b/deep/slow_piano-solo.FLAC", "a/x.wav", "b/y.mp3", "z.ogg", "notes.txt")
    touch(tmp_path, "a/._x.wav", ".cache/w.wav")
    (tmp_path / "folder.wav").mkdir()
    clips = scan(tmp_path)
    found = [(clip.name, clip.caption, clip.label) for clip in clips]
    assert found == [
        ("a/x.wav", "x", "a"),
        ("b/deep/slow_piano-solo.FLAC", "slow piano solo", "deep"),
        ("b/y.mp3", "y", "b"),
        ("z.ogg", "z", tmp_path.name),
    ]
    assert all(clip.path == tmp_path / clip.name for clip in clips)


@given(st.integers(2, 60), st.text("abcdefgh", min_size=1, max_size=5))
def test_every_split_has_train_and_held_out_and_depends_on_names_only(count, stem):
    """The same names give the same splits in any order and any place."""
    clips = [folder.Clip(Path(), f"{stem}{i}.wav", "", "", "") for i in range(count)]
    filled = folder._with_splits(clips, Path())
    splits = {clip.split for clip in filled}
    assert "train" in splits and splits & {"valid", "test"} and splits <= {"train", "valid", "test"}
    again = folder._with_splits(clips, Path("elsewhere"))
    assert filled == again


def test_hashed_splits_are_about_eight_one_one():
    splits = [folder._split_of(f"clip{i}.wav") for i in range(4000)]
    for split, part in (("train", 0.8), ("valid", 0.1), ("test", 0.1)):
        assert abs(splits.count(split) / 4000 - part) < 0.03  # six standard deviations and more


@pytest.mark.parametrize("caption", ["caption_or_transcript", "caption", "transcript"])
def test_table_with_all_columns(tmp_path, caption):
    touch(tmp_path, "a.wav", "sub/b.wav", "c.wav", "d.wav", "unlisted.wav")
    table(
        tmp_path,
        ("licence", "file", caption, "label", "split"),
        ("CC0", "sub/b.wav", "a dog, barking", "dog", "dev"),
        ("CC0", "a.wav", "piano\u266a", "music", "Train"),
        ("CC0", "c.wav", "", "", "test"),
        ("CC0", "d.wav", "x", "y", "validation"),
    )
    clips = scan(tmp_path)
    assert [(c.name, c.caption, c.label, c.split) for c in clips] == [
        ("a.wav", "piano\u266a", "music", "train"),
        ("c.wav", "", "", "test"),
        ("d.wav", "x", "y", "valid"),
        ("sub/b.wav", "a dog, barking", "dog", "valid"),
    ]


@pytest.mark.parametrize("side", ["train", "valid"])
def test_table_without_splits_holds_out_even_where_hashing_would_not(tmp_path, side):
    names = [f"clip{i}.wav" for i in range(200)]
    names = [name for name in names if folder._split_of(name) == side][:4]
    touch(tmp_path, *names)
    table(tmp_path, ("file", "caption"), *[(name, "a tone") for name in names])
    splits = [clip.split for clip in scan(tmp_path)]
    assert sorted(splits[:-1]) == [side] * 3 and splits[-1] != side


def test_a_stated_split_is_never_changed(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "c.wav")
    for split, word in (("train", "valid or test"), ("test", "train")):
        table(tmp_path, ("file", "caption", "split"), *[(f"{n}.wav", "", split) for n in "abc"])
        not_read(tmp_path, "metadata.csv", word)
    table(tmp_path, ("file", "caption", "split"), *[(f"{n}.wav", "", n) for n in "ab"])
    not_read(tmp_path, "metadata.csv", "line 2", "'a'", "train, valid or test")


def test_errors_of_the_folder(tmp_path):
    not_read(tmp_path / "gone", "gone", "not there")
    not_read(tmp_path, "no audio", ".flac")
    touch(tmp_path, "one.wav")
    not_read(tmp_path, "one clip")
    not_read(tmp_path / "one.wav", "one.wav", "not there")


def test_errors_of_the_table(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    table(tmp_path, ("name", "caption"), ("a.wav", "x"))
    not_read(tmp_path, "metadata.csv", "'file'")
    table(tmp_path, ("file", "words"), ("a.wav", "x"))
    refused(lambda: scan(tmp_path, captioned=True), "metadata.csv", "'caption'", "words")
    table(tmp_path, ("file", "caption"), ("a.wav", "x"), ("lost.wav", "y"))
    not_read(tmp_path, "metadata.csv", "line 3", "lost.wav")
    table(tmp_path, ("file", "caption"), ("", "x"))
    not_read(tmp_path, "metadata.csv", "line 2")
    table(tmp_path, ("file", "caption"), ("a.wav", "x"), ("b.wav", "y"), ("a.wav", "z"))
    not_read(tmp_path, "metadata.csv", "line 4", "a.wav", "twice")
    table(tmp_path, ("file", "caption"))
    not_read(tmp_path, "metadata.csv", "lists no file")
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "metadata.csv").symlink_to("nowhere")
    not_read(tmp_path, "metadata.csv", "No such file")
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "metadata.csv").write_bytes(b"")
    not_read(tmp_path, "metadata.csv", "'file'")
    (tmp_path / "metadata.csv").write_bytes("file,caption\na.wav,caf\u00e9".encode("latin-1"))
    not_read(tmp_path, "metadata.csv", "UTF-8")


def test_the_real_tables_are_read_whole():
    """Where the shared recordings are at hand, each row of their tables is one clip."""
    for path in REAL.glob("*/metadata.csv"):
        with path.open(newline="") as file:
            rows = {row["file"]: row for row in csv.DictReader(file)}
        clips = scan(path.parent)
        assert {clip.name for clip in clips} == set(rows)
        for clip in clips:
            row = rows[clip.name]
            assert (clip.caption, clip.label) == (row["caption_or_transcript"], row["label"])
