"""Listening pages hide which sound is which, and the key alone tells."""

import base64
import io
import json
import re

import numpy as np
import pytest
import soundfile
from evaluations import RATE, add_sounds, codecs, tokens
from listeners import key

from rvq_jax.errors import UserError
from rvq_jax.evaluate import listening, stimuli


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    results = add_sounds(folder, codecs(names=("Übercodec", "second"), levels=(1, 2)))
    paths = listening.write(folder, results)
    return results, folder, {path.name: path.read_text(encoding="utf-8") for path in paths}


def data(text: str) -> dict:
    """What a page knows."""
    return json.loads(re.search('id="data">(.*?)</script>', text, re.S).group(1))


def heard(page: dict, sound: str) -> np.ndarray:
    return soundfile.read(io.BytesIO(base64.b64decode(page["audio"][sound])), dtype="int16")[0]


def test_the_pages_name_no_system_and_no_file(built):
    """Neither by name nor by level, bitrate or kind; and need nothing from outside."""
    results, _, pages = built
    for name in ("abx.html", "mushra.html"):
        said = pages[name]
        page = data(said)
        audio = page.pop("audio")
        own = {s[k] for s in results["systems"] for k in ("name", "family", "kind")}
        for word in {*own, stimuli.ANCHOR, *(p["file"] for p in results["players"])}:
            assert word not in json.dumps(page, ensure_ascii=False)
            assert all(word.encode() not in base64.b64decode(x)[:200] for x in audio.values())
        assert set(re.findall(r'(?:src|href)="([^"]*)"', said)) == {"data:,"}
        assert list(audio) == sorted(audio)
        assert all(re.fullmatch("[0-9a-f]{12}", x) for x in audio)
        assert page["evaluation"] == key(built[1])["evaluation"]


def test_mushra_has_reference_anchor_and_every_system_for_each_clip(built):
    results, folder, pages = built
    page, hidden = data(pages["mushra.html"]), key(folder)
    names = {stimuli.REFERENCE, stimuli.ANCHOR, *(s["name"] for s in results["systems"])}
    assert len(page["clips"]) == 2
    for clip in page["clips"]:
        assert {hidden["sounds"][x] for x in clip["sounds"]} == names
        assert clip["sounds"] == sorted(clip["sounds"])
        reference = [x for x in clip["sounds"] if hidden["sounds"][x] == stimuli.REFERENCE]
        assert clip["reference"] not in clip["sounds"]
        assert np.array_equal(heard(page, clip["reference"]), heard(page, reference[0]))


def test_sounds_are_those_of_the_files_under_one_gain(built):
    """But for the fades; the gain is 1 where nothing would clip."""
    results, folder, pages = built
    page, hidden = data(pages["mushra.html"]), key(folder)
    files = {said["file"]: said for said in hidden["clips"].values()}
    inner = slice(RATE // 20, -RATE // 20)
    for player in results["players"]:
        for sound in files[player["file"]]["sounds"]:
            name = hidden["sounds"][sound]
            if name in player["systems"]:
                wanted = soundfile.read(folder / player["systems"][name], dtype="int16")[0]
                found = heard(page, sound)
                assert len(found) == len(wanted) and found[0] == found[-1] == 0
                np.testing.assert_allclose(found[inner], wanted[inner], atol=2)


def test_trials_are_the_pairs_of_every_clip(built):
    results, folder, pages = built
    page, hidden = data(pages["abx.html"]), key(folder)
    pairs = [tuple(trial["pair"]) for trial in hidden["trials"].values()]
    wanted = stimuli.pairs(results["systems"])
    assert sorted(pairs) == sorted(wanted * 2)
    assert sorted(t["id"] for group in page["groups"] for t in group) == sorted(hidden["trials"])
    for group in page["groups"]:
        assert len({tuple(hidden["trials"][t["id"]]["pair"]) for t in group}) == 1
        for trial in group:
            named = {hidden["sounds"][x] for x in trial["sounds"]}
            assert named == set(hidden["trials"][trial["id"]]["pair"])
            assert trial["sounds"] == sorted(trial["sounds"])


def test_written_again_the_pages_take_the_same_answers_until_a_sound_changes(tmp_path):
    results = add_sounds(tmp_path, codecs(levels=(1,)), files=("one.flac",))

    def written() -> dict:
        listening.write(tmp_path, results)
        return key(tmp_path)

    first = written()
    assert written() == first
    place = tmp_path / results["players"][0]["systems"]["mine, 1 level"]
    audio, rate = soundfile.read(place)
    soundfile.write(place, 0.5 * audio, rate)
    assert not set(written()["sounds"]) & set(first["sounds"])
    second = key(tmp_path)
    (tmp_path / "listening.json").write_text('{"secret": ')
    assert written()["evaluation"] != second["evaluation"]


def system(name: str, kbps: float, kind: str = "codec", family: str = "mine") -> dict:
    return {"name": name, "family": family, "kind": kind, "kbps": kbps, "scores": {}}


def test_pairs_are_with_the_nearest_bitrate_and_with_the_original():
    points = [system("a", 1.5), system("b", 6.0)]
    baselines = [system("opus 6", 6.5, "opus", "Opus"), system("mp3", 16.0, "mp3", "MP3")]
    assert stimuli.pairs(points + baselines) == [
        ("a", "opus 6"), ("a", "original"), ("b", "opus 6"), ("b", "original")]  # fmt: skip
    other = [system("c", 2.0, family="other"), system("d", 5.0, family="other")]
    assert stimuli.pairs(points + other) == [
        ("a", "c"), ("a", "original"), ("c", "original"), ("d", "b"), ("d", "original"),
        ("b", "original")]  # fmt: skip
    assert stimuli.pairs(points[:1]) == [("a", "original")]
    assert stimuli.pairs(baselines) == [
        ("opus 6", "mp3"), ("opus 6", "original"), ("mp3", "original")]  # fmt: skip
    assert len(stimuli.pairs([system(f"{k}", k + 1.0) for k in range(40)])) <= 2 * stimuli.POINTS


def test_a_trial_holds_no_more_systems_than_the_standard_allows():
    many = [system(f"{k}", k + 1.0) for k in range(40)]
    kept = stimuli.chosen(many)
    assert len(kept) == stimuli.SYSTEMS and kept[0] is many[0] and kept[-1] is many[-1]


@pytest.mark.parametrize("rate", [16000, 24000, 44100])
def test_the_anchor_is_that_of_the_standard(rate):
    """0.1 dB to 3.5 kHz, 25 dB down at 4 kHz, 50 dB at 4.5 kHz; and no delay."""
    pulse = np.zeros((2 * 4000 + 1, 2))
    pulse[4000] = 1
    found = stimuli.anchor(pulse, rate)
    assert np.argmax(found[:, 0]) == 4000 and np.allclose(found, found[::-1])
    level = 20 * np.log10(np.abs(np.fft.rfft(found[:, 1])) + 1e-9)
    hertz = np.fft.rfftfreq(len(found), 1 / rate)
    assert np.abs(level[hertz <= 3500]).max() < 0.1
    assert level[hertz >= 4000].max() < -25 and level[hertz >= 4500].max() < -50


def test_sounds_of_another_rate_length_or_loudness_are_made_comparable(tmp_path):
    """One gain for the clip: what would pass full scale lowers all of them alike."""
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    files = {"original": (0.5 * tone, RATE), "short": (0.25 * tone[: RATE // 2], RATE),
             "stereo": (np.stack([tone, tone], 1)[::2] * 0.5, RATE // 2),
             "loud": (2.0 * tone, RATE)}  # fmt: skip
    for name, (audio, rate) in files.items():
        soundfile.write(tmp_path / f"{name}.wav", audio, rate, subtype="FLOAT")
    systems = {name: f"{name}.wav" for name in files if name != "original"}
    clip = {"original": "original.wav", "systems": systems}
    sounds, rate = stimuli.prepared(tmp_path, clip, [*systems, "absent"])
    assert rate == RATE and {len(x) for x in sounds.values()} == {RATE}
    assert set(sounds) == {stimuli.REFERENCE, stimuli.ANCHOR, *systems}
    middle = slice(RATE // 8, RATE // 4)
    peaks = {name: np.abs(x[middle].astype(int)).max() / 32767 for name, x in sounds.items()}
    wanted = {"original": 0.25, "short": 0.125, "stereo": 0.25, "loud": 1.0, stimuli.ANCHOR: 0.25}
    assert peaks == pytest.approx(wanted, rel=0.02)
    assert not sounds["short"][RATE // 2 :].any()


def test_a_rate_without_room_for_the_anchor_has_none(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.ones(4000) / 9, 8000)
    sounds, _ = stimuli.prepared(tmp_path, {"original": "a.wav", "systems": {}}, [])
    assert set(sounds) == {stimuli.REFERENCE}


def test_a_long_clip_is_cut_and_many_clips_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(stimuli, "SECONDS", 0.25)
    monkeypatch.setattr(listening, "BYTES", 1)
    files = tuple(f"{i}.flac" for i in range(5))
    results = add_sounds(tmp_path, codecs(names=("a",), levels=(1,), baselines=False), files)
    listening.write(tmp_path, results)
    page = data((tmp_path / "mushra.html").read_text())
    assert len(page["clips"]) == listening.FEWEST
    assert {len(heard(page, x)) for x in page["audio"]} == {RATE // 4}


def test_without_systems_sounds_or_originals_there_is_nothing_to_hear(tmp_path):
    assert listening.write(tmp_path, codecs()) == []
    assert listening.write(tmp_path, add_sounds(tmp_path, tokens())) == []
    results = add_sounds(tmp_path / "x", codecs(levels=(1,)), files=("one.flac",))
    results["players"][0]["original"] = None
    assert listening.write(tmp_path / "x", results) == []
    assert not list(tmp_path.rglob("*.html")) + list(tmp_path.rglob("*.json"))


def test_a_missing_sound_is_told_in_one_line(tmp_path):
    results = add_sounds(tmp_path, codecs(levels=(1,)), files=("one.flac",))
    (tmp_path / "audio" / "0" / "1.flac").unlink()
    with pytest.raises(UserError, match=r"1\.flac is not there"):
        listening.write(tmp_path, results)
    assert [path.name for path in tmp_path.iterdir()] == ["audio"]
