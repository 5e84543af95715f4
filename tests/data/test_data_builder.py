"""Datasets: what comes out is what went in, and nothing half-written is ever left."""

from pathlib import Path

import grain
import numpy as np
import pytest
import tensorflow_datasets as tfds
from refusals import refused

from rvq_jax import files
from rvq_jax.audio import io
from rvq_jax.data import builder, records, synth

RATE = 8_000


def pcm(samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Audio that 16 bits hold exactly, with both ends of the range in it."""
    ints = np.random.default_rng(seed).integers(-32768, 32768, (samples, channels))
    ints[0], ints[-1] = -32768, 32767
    return (ints / 32768).astype(np.float32)


def corpus(root: Path, rows: dict[str, tuple[str, np.ndarray, int]]) -> Path:
    """A folder of audio whose metadata.csv gives each file its split."""
    lines = ["file,caption,label,split"]
    for name, (split, audio_SC, rate) in rows.items():
        io.write(root / name, audio_SC, rate)
        lines.append(f"{name},words of {name},kind {split},{split}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def two_clips(root: Path) -> Path:
    return corpus(
        root, {"a.wav": ("train", pcm(900), RATE), "b.wav": ("test", pcm(700, 1, 1), RATE)}
    )


def snapshot(place: Path) -> dict:
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(place.rglob("*"))}


@pytest.mark.parametrize("channels", [1, 2])
def test_pieces_joined_are_the_file_to_the_last_bit(tmp_path, channels, monkeypatch):
    """16-bit audio at the dataset's own rate is stored as it is, the extremes too."""
    monkeypatch.setattr(builder, "PIECE_SECONDS", 0.1)
    rows = {
        "long.wav": ("train", pcm(4 * 800 + 300, channels), RATE),
        "even.wav": ("train", pcm(2 * 800, channels, 1), RATE),
        "tail.wav": ("valid", pcm(800 + 63, channels, 2), RATE),
        "short.flac": ("test", pcm(64, channels, 3), RATE),
    }
    source = corpus(tmp_path / "in", rows)
    out = builder.build(source, tmp_path / "out", RATE, channels, minimum=64)
    joined: dict[str, list] = {}
    for split in ("train", "valid", "test"):
        stored = builder.open_split(out, split)
        pieces = sorted((stored[i] for i in range(len(stored))), key=lambda record: record["name"])
        for record in pieces:
            name, piece = record["name"].split("#")
            assert rows[name][0] == split
            assert record["caption"] == f"words of {name}" and record["label"] == f"kind {split}"
            assert record["audio"].dtype == np.float32 and 64 <= len(record["audio"]) <= 800
            assert int(piece) == len(joined.setdefault(name, []))
            joined[name].append(record["audio"])
    for name, (_, audio_SC, _) in rows.items():
        # The tail of 63 samples is shorter than the minimum and is dropped.
        want_SC = audio_SC[:800] if name == "tail.wav" else audio_SC
        np.testing.assert_array_equal(np.concatenate(joined[name]), want_SC)


def test_int16_clips_and_never_wraps():
    audio_S1 = np.array([[1.0], [-1.0], [1.5], [-1.5], [0.99999], [0.0]])
    stored = records.record_of(audio_S1, "", "", "")["audio"]
    assert stored[:, 0].tolist() == [32767, -32768, 32767, -32768, 32767, 0]


def test_mixed_rates_and_channels_come_out_alike(tmp_path):
    """Half a second of the same tone in five forms is the same half second."""
    rows = {}
    forms = [(8_000, 1), (16_000, 2), (22_050, 1), (44_100, 6), (48_000, 2)]
    for rate, channels in forms:
        t = np.arange(rate // 2) / rate
        tone_S1 = 0.5 * np.sin(2 * np.pi * 440 * t)[:, None]
        split = "train" if rate < 48_000 else "test"
        rows[f"{rate}.wav"] = (split, np.repeat(tone_S1, channels, 1), rate)
    out = builder.build(corpus(tmp_path / "in", rows), tmp_path / "out", RATE)
    train = builder.open_split(out, "train")
    found = [train[i] for i in range(len(train))] + [builder.open_split(out, "test")[0]]
    want_S = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE // 2) / RATE)
    assert len(found) == len(forms)
    for record in found:
        assert record["audio"].shape[1] == 1 and abs(len(record["audio"]) - RATE // 2) <= 1
        got_S = record["audio"][500:3500, 0]
        np.testing.assert_allclose(got_S, want_S[500:3500], atol=3e-3)


def test_built_in_corpus(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(builder, "CLIPS", {"train": 3, "valid": 1, "test": 2})
    monkeypatch.setattr(builder, "CLIP_SECONDS", 0.5)
    out = builder.build(None, tmp_path / "out", RATE, channels=2)
    assert capsys.readouterr().out == ""  # stdout belongs to --json
    train, heldout = (builder.open_split(out, split) for split in ("train", "heldout"))
    assert (len(train), len(heldout)) == (3, 3)
    seen = {}
    for split in (train, heldout):
        for i in range(len(split)):
            seen[split[i]["name"]] = split[i]
    assert sorted(seen) == [f"song{i:04d}" for i in range(6)]
    for i, name in enumerate(sorted(seen)):
        song, record = synth.song(i), seen[name]
        assert (record["caption"], record["label"]) == (song.caption, song.instrument)
        want_S = synth.render(song, i, RATE, 0.5)
        assert record["audio"].shape == (RATE // 2, 2)
        for channel in range(2):
            np.testing.assert_allclose(record["audio"][:, channel], want_S, atol=2**-15)
    # Songs of another length are another corpus.
    monkeypatch.setattr(builder, "CLIP_SECONDS", 0.6)
    refused(lambda: builder.build(None, tmp_path / "out", RATE, channels=2), "built-in", "--out")


def test_random_access_for_tfds_and_grain(tmp_path):
    out = builder.build(two_clips(tmp_path / "in"), tmp_path / "out", RATE)
    heldout, test = (builder.open_split(out, split) for split in ("heldout", "test"))
    assert len(heldout) == len(test) == 1  # no valid split: test alone is held out
    loaded = list(grain.MapDataset.source(test).to_iter_dataset())
    np.testing.assert_array_equal(loaded[0]["audio"], heldout[0]["audio"])
    data_source = tfds.builder_from_directory(out / "records").as_data_source("test")
    assert data_source[0]["name"] == b"b.wav#0" and data_source[0]["audio"].dtype == np.int16
    np.testing.assert_array_equal(data_source[0]["audio"] / 32768, test[0]["audio"])


def test_held_out_joins_valid_and_test(tmp_path):
    names = {"train": "a", "valid": "b", "test": "c"}
    rows = {f"{n}.wav": (split, pcm(100), RATE) for split, n in names.items()}
    out = builder.build(corpus(tmp_path / "in", rows), tmp_path / "out", RATE)
    heldout = builder.open_split(out, "heldout")
    assert [heldout[i]["name"][0] for i in (0, 1, -1, np.int64(-2))] == ["b", "c", "c", "b"]
    for outside in (2, -3):
        with pytest.raises(IndexError):
            heldout[outside]
    refused(lambda: builder.open_split(out, "dev"), "no dev split", "train")


def test_records_are_told_apart_by_their_ends(tmp_path):
    """Made again they are the same; one sample that differs is another dataset."""
    clips = {"one": pcm(900), "same": pcm(900), "other": pcm(900, seed=1)}
    conditions = {}
    for name, audio in clips.items():
        rows = {"a.wav": ("train", audio, RATE), "b.wav": ("test", pcm(700), RATE)}
        source = corpus(tmp_path / f"{name} source", rows)
        place = builder.build(source, tmp_path / name, RATE)
        conditions[name] = builder.open_split(place, "train").describe()
    assert conditions["one"] == conditions["same"] != conditions["other"]
    assert conditions["one"]["records"] == 1 and conditions["one"]["bytes"] > 2 * 900


def test_absent_splits_and_datasets(tmp_path):
    out = builder.build(two_clips(tmp_path / "in"), tmp_path / "out", RATE)
    refused(lambda: builder.open_split(out, "valid"), "no valid split", "test, train")
    refused(lambda: builder.open_split(tmp_path / "gone", "train"), "gone", "not a dataset")
    refused(lambda: builder.open_split(tmp_path / "in", "train"), "not a dataset")


def test_the_same_source_is_used_as_it_is_and_another_refused(tmp_path):
    source, out = two_clips(tmp_path / "in"), tmp_path / "out"
    builder.build(source, out, RATE)
    before = snapshot(out)
    assert builder.build(source, out, RATE) == out
    refused(lambda: builder.build(source, out, 16_000), "another dataset", "rate 8000", "--out")
    refused(lambda: builder.build(source, out, RATE, channels=2), "channels 1")
    refused(lambda: builder.build(None, out, RATE), "another dataset")
    io.write(source / "a.wav", pcm(901), RATE)
    refused(lambda: builder.build(source, out, RATE), "another dataset", "source")
    assert snapshot(out) == before


@pytest.mark.parametrize("content", ["notes.txt", "source.json"])
def test_a_folder_of_other_things_is_never_replaced(tmp_path, content):
    """`--out` may be a home folder, or the audio itself, by a slip of the hand."""
    source, out = two_clips(tmp_path / "in"), tmp_path / "out"
    out.mkdir()
    (out / content).write_text("[1, 2]")
    for place in (out, source):
        before = snapshot(tmp_path)
        refused(lambda place=place: builder.build(source, place, RATE), str(place), "--out")
        assert snapshot(tmp_path) == before
    refused(lambda: builder.build(source, source / "a.wav", RATE), "a.wav", "--out")


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    out = builder.build(two_clips(tmp_path / "in"), tmp_path / "out", RATE)
    assert len(builder.open_split(out, "train")) == 1


def broken(root: Path, kind: str) -> Path:
    """A folder whose last file, read after others were written, cannot be used."""
    source, bad = two_clips(root), root / "b.wav"
    if kind == "short":
        io.write(bad, pcm(31), RATE)
    elif kind == "text":
        bad.write_text("not audio")
    elif kind == "truncated":
        bad.write_bytes(bad.read_bytes()[:800])
    elif kind == "surround":
        io.write(bad, pcm(700, 6), RATE)
    return source


@pytest.mark.parametrize(
    "kind, word",
    [
        ("short", "shorter than one frame"),
        ("text", "cannot be read as audio"),
        ("truncated", "truncated"),
        ("surround", "6 channels"),
    ],
)
def test_one_bad_file_leaves_no_dataset(tmp_path, kind, word):
    source = broken(tmp_path / "in", kind)
    out = tmp_path / "made" / "out"
    refused(lambda: builder.build(source, out, RATE, channels=2, minimum=32), "b.wav", word)
    assert not (tmp_path / "made").exists()


def test_a_place_that_cannot_be_written(tmp_path, monkeypatch):
    source = two_clips(tmp_path / "in")
    (tmp_path / "file").write_text("")
    refused(lambda: builder.build(source, tmp_path / "file" / "out", RATE), "file", "--out")

    def read_only(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.tempfile, "mkdtemp", read_only)
    refused(lambda: builder.build(source, tmp_path / "out", RATE), "out", "Permission denied")


def test_a_disk_that_fills_up_leaves_no_dataset(tmp_path, monkeypatch):
    source = two_clips(tmp_path / "in")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records, "record_of", full)
    refused(lambda: builder.build(source, tmp_path / "made" / "out", RATE), "No space left")
    assert not (tmp_path / "made").exists()
