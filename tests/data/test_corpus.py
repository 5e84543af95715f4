"""The open corpus: what is held out stays out, whatever the file, its name or its container."""

import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from signals import noise

from rvq_jax.data import builder, folder
from rvq_jax.errors import UserError

sys.path.append(str(Path(__file__).parents[2] / "experiments" / "codec"))

import corpus
import heldout
import pieces
import sources
import store

RATE = 8000
GIVEN = Path(__file__).parents[3] / "shared" / "audio" / "speech"
HELD = "ls1998_F"


def pcm(seconds: float, seed: int, channels: int = 1) -> np.ndarray:
    return store.int16(noise(int(seconds * RATE), channels, seed=seed, scale=0.1))


def test_the_list_has_whole_sources_and_their_pieces():
    """A voice, three readers, ten works of four composers; thirty pieces for speech and music."""
    frozen = heldout.load()
    held, cut = frozen["files"], frozen["pieces"]
    speakers = Counter(entry["speaker"] for entry in held if entry["kind"] == "speech")
    assert speakers.keys() == heldout.VOICES.keys()
    assert speakers.pop("it_IT_m_Carlo") > 500 and set(speakers.values()) == {10}
    works = [entry for entry in held if entry["kind"] == "music"]
    assert {entry["name"] for entry in works} == set(heldout.WORKS) and len(works) >= 10
    assert len({entry["speaker"] for entry in works}) >= 4
    assert min(Counter(piece["kind"] for piece in cut).values()) >= 30
    names = {entry["name"] for entry in held}
    assert all(piece["seconds"] == 10 and names >= {*piece["of"]} for piece in cut)
    hashes = [entry["pcm"] for entry in held + cut]
    assert len({*hashes}) == len(hashes) and all(len(bytes.fromhex(h)) == 32 for h in hashes)
    assert all("bytes" in entry for entry in works)


def test_a_recording_has_one_hash_in_every_container(tmp_path):
    """And another as soon as a sample, the rate or the count of channels is another."""
    pcm_SC = pcm(0.2, 0, channels=2)
    pcm_SC[0] = -32768, 32767
    store.write_flac(tmp_path / "a.flac", pcm_SC, RATE)
    soundfile.write(tmp_path / "a.wav", pcm_SC, RATE)
    read = [store.read(tmp_path / name) for name in ("a.flac", "a.wav")]
    wanted = store.digest(pcm_SC, RATE)
    assert [store.digest(*found) for found in read] == [wanted] * 2
    other = pcm_SC.copy()
    other[-1, 0] += 1
    changed = [(other, RATE), (pcm_SC, 2 * RATE), (pcm_SC.reshape(-1, 1), RATE)]
    assert wanted not in [store.digest(*found) for found in changed]


def test_parts_are_known_wherever_they_are_cut():
    """Windows are chosen by content: all of a part's are the whole's, none another recording's."""
    whole_SC, other_SC = pcm(3, 1, channels=2), pcm(3, 2, channels=2)
    whole = np.unique(heldout.anchors(whole_SC))
    assert whole.size > 30
    for first, size in ((0, 4000), (777, 3001), (20_000, 4000)):
        part = heldout.anchors(whole_SC[first : first + size])
        assert part.size and np.isin(part, whole).all()
    assert not np.isin(heldout.anchors(other_SC), whole).any()
    assert heldout.anchors(np.zeros((RATE, 2), np.int16)).size == 0
    assert heldout.anchors(whole_SC[:3]).size == 0


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A corpus of four recordings, one by a reader who is held out, and its list."""
    audio = tmp_path / "audio" / "speech"
    rows = []
    for i, speaker in enumerate((HELD, "a", "b", "c")):
        store.write_flac(audio / f"{i}.flac", pcm(1.5, 10 + i), RATE)
        split = "valid" if speaker == "c" else "train"
        rows.append({"file": f"{i}.flac", "caption": "", "speaker": speaker, "split": split})
    store.write_table(audio / "metadata.csv", rows)
    monkeypatch.setattr(corpus, "PACKAGES", ())
    monkeypatch.setattr(heldout, "LIST", tmp_path / "heldout.json")
    heldout.LIST.write_text('{"files": [], "pieces": []}')
    found, left_out = corpus.make(tmp_path / "corpus", ["speech", "music"], audio.parent)
    heldout.freeze(found, [])
    assert left_out == [] and len(heldout.load()["files"]) == 1
    return tmp_path / "corpus"


def test_held_out_sources_are_in_no_train_split(made):
    """Whatever the split that a folder states for them."""
    clips = folder.scan(made / "speech")
    assert [clip.split for clip in clips] == ["test", "train", "train", "valid"]
    assert heldout.check_training(made / "speech", made) == 2


def test_a_copy_without_a_name_is_held_out_too(made):
    """Where one's own folder says nothing of the speaker, the samples do."""
    row = {"speaker": "", "file": "x.flac", "work": "x", "split": "train"}
    held = heldout.load()["files"][0]["pcm"]
    assert corpus.split_of(row | {"pcm": held}, heldout.hashes()) == "test"
    assert corpus.split_of(row | {"pcm": "another"}, heldout.hashes()) == "train"


def refused(place: Path, corpus: Path | None = None) -> str:
    with pytest.raises(UserError, match="held out") as caught:
        heldout.check_training(place, corpus)
    return f"{caught.value}"


def elsewhere(made: Path, place: Path, cut: slice, name: str = "new.wav") -> Path:
    """A folder to train on, with what is held out in it under another name."""
    pcm_SC, rate = store.read(made / "speech" / "own" / "0.flac")
    place.mkdir()
    soundfile.write(place / name, pcm_SC[cut], rate)
    shutil.copy(made / "speech" / "own" / "1.flac", place / "z.flac")
    rows = [{"file": name, "split": "train"}, {"file": "z.flac", "split": "test"}]
    store.write_table(place / "metadata.csv", rows)
    return place


def test_training_refuses_what_is_held_out(made, tmp_path):
    """By its name, its samples in another container, or a part of it."""
    assert "(new.wav)" in refused(elsewhere(made, tmp_path / "samples", slice(None)))
    part = slice(3000, 9000)
    assert "(0.flac)" in refused(elsewhere(made, tmp_path / "name", part, "0.flac"))
    crop = elsewhere(made, tmp_path / "crop", part)
    assert heldout.check_training(crop) == 1  # The list alone cannot know it,
    assert "(a part in new.wav)" in refused(crop, made)  # the corpus does.


def test_datasets_are_known_at_their_own_rate(made, tmp_path):
    """Resampled and cut by the builder, as the held-out files then are."""
    bad = elsewhere(made, tmp_path / "bad", slice(None))
    dataset = builder.build(bad, tmp_path / "bad_data", 6000, piece=0.4)
    assert "a part in new.wav" in refused(dataset, made)
    good = builder.build(made / "speech", tmp_path / "data", 6000, piece=0.4)
    assert heldout.check_training(good, made) == 8


def test_a_package_is_made_whole_or_left_out(tmp_path, monkeypatch):
    """Its files untouched, variants of a work on one side; what is done is not done again."""
    place = tmp_path / "package" / "music"
    place.mkdir(parents=True)
    for i, name in enumerate(("one", "two", "two_enhanced", "hum")):
        soundfile.write(place / f"{name}.ogg", noise(RATE // 4, 1, seed=i, scale=0.1), RATE)

    def describe(root, path):
        work = path.stem.removesuffix("_enhanced")
        return sources.Said(path.name, path.stem, "music", "somebody", work)

    def unpack(what, deb, *more):
        if what == "-x":
            shutil.copytree(tmp_path / "package", more[0], dirs_exist_ok=True)
        return "1.0\n"

    def fetch(package, place):
        if package.name == "gone":
            raise UserError("no such package")
        return place / "a.deb"

    good = sources.Package(
        "good", "music", "**/*.ogg", "noise", "CC0", "me", 1, describe, frozenset({"hum.ogg"})
    )
    gone = sources.Package("gone", "music", "**/*.ogg", "noise", "CC0", "me", 1, describe)
    monkeypatch.setattr(corpus, "PACKAGES", (gone, good))
    monkeypatch.setattr(corpus, "fetch", fetch)
    monkeypatch.setattr(corpus, "_dpkg", unpack)
    out = tmp_path / "corpus"
    with monkeypatch.context() as broken:
        broken.setattr(corpus, "measure", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            corpus.make(out, ["music"], None)
        assert not (out / "music" / "good").exists()
    killed = out / "music" / ".rvq-jax-1234"
    killed.mkdir(parents=True)
    rows, left_out = corpus.make(out, ["music"], None)
    assert not killed.exists()
    assert left_out == ["left out: gone: no such package"]
    assert [row["file"] for row in rows["music"]] == [
        "good/one.ogg",
        "good/two.ogg",
        "good/two_enhanced.ogg",
    ]
    assert (out / "music/good/one.ogg").read_bytes() == (place / "one.ogg").read_bytes()
    assert rows["music"][1]["split"] == rows["music"][2]["split"]
    assert {row["licence"] for row in store.read_table(out / "music/metadata.csv")} == {"CC0"}
    monkeypatch.setattr(corpus, "convert", None)
    monkeypatch.setattr(corpus, "PACKAGES", (good,))
    assert corpus.make(out, ["music"], None)[0] == rows


def test_what_cannot_be_read_is_left_out(tmp_path):
    """Of one's own folder, with its reason; what else its table says stays, whatever its case."""
    source = tmp_path / "own"
    for i in range(3):
        store.write_flac(source / f"{i}.flac", pcm(0.2, i), RATE)
    (source / "2.flac").write_bytes(b"fLaC")
    rows = [{"File_Name": f"{i}.flac", "Speaker": "x", "License": "CC0"} for i in range(3)]
    store.write_table(source / "metadata.csv", rows)
    found, left_out = corpus.own(source, tmp_path / "out")
    assert [(row["file"], row["speaker"], row["licence"]) for row in found] == [
        ("own/0.flac", "x", "CC0"),
        ("own/1.flac", "x", "CC0"),
    ]
    assert len(left_out) == 1 and left_out[0].startswith("left out: 2.flac: ")
    assert not (tmp_path / "out" / "own" / "2.flac").exists()


def test_files_that_are_there_twice_count_once():
    """A package and one's own folder may share recordings."""
    rows = [{"pcm": "a"}, {"pcm": "b"}, {"pcm": "a"}]
    assert [row["pcm"] for row in corpus.without_copies(rows, {"b"})] == ["a"]


def test_pieces_of_a_voice_are_ten_seconds_of_its_files():
    """In their order, with silence between, a long one cut, the last rest dropped."""
    clips = [(name, pcm(seconds, i), RATE) for i, (name, seconds) in enumerate(
        [("a", 4), ("b", 7), ("c", 12), ("d", 9)]
    )]  # fmt: skip
    made = list(pieces.of_voice(clips))
    assert [names for names, _ in made] == [["a", "b"], ["c"]]
    assert {piece_SC.shape for _, piece_SC in made} == {(10 * RATE, 1)}
    first_SC, gap = made[0][1], round(pieces.GAP * RATE)
    assert not first_SC[4 * RATE : 4 * RATE + gap].any()
    rest = 6 * RATE - gap
    assert np.array_equal(first_SC[-rest:], clips[1][1][:rest])
    assert np.array_equal(made[1][1], clips[2][1][: 10 * RATE])


def test_pieces_sound_and_are_drawn_by_the_seed():
    """A silent second is enough to pass one over; a source's draw is its own."""
    piece_SC = pcm(10, 0)
    assert pieces.sounds(piece_SC, RATE)
    piece_SC[3 * RATE : 4 * RATE] = 0
    assert not pieces.sounds(piece_SC, RATE)
    audible = [i % 3 > 0 for i in range(30)]
    taken = pieces.chosen("a work", audible, 5)
    assert taken == pieces.chosen("a work", audible, 5) == sorted({*taken})
    assert len(taken) == 5 and all(audible[i] for i in taken)
    assert taken != pieces.chosen("another", audible, 5)


@pytest.mark.skipif(not GIVEN.is_dir(), reason="the given audio is not there")
def test_the_given_readers_are_held_out_and_are_those_of_the_list():
    """By what their files hold, not only by their names."""
    rows = [row | {"pcm": ""} for row in store.read_table(GIVEN / "metadata.csv")]
    held = [row for row in rows if row["speaker"] in heldout.VOICES]
    assert len(held) == 30 and {corpus.split_of(row, {}) for row in held} == {"test"}
    assert Counter(corpus.split_of(row, {}) for row in rows)["train"] > 400
    listed = {entry["name"]: entry["pcm"] for entry in heldout.load()["files"]}
    for row in held:
        assert store.digest(*store.read(GIVEN / row["file"])) == listed[row["file"]]
