"""What models say, judged: which texts and voices, what each number is of, what is written."""

import dataclasses

import jax
import numpy as np
import pytest
import small_parallel as small
from command import refuses, run
from page_elements import Page
from tiers import slow

from rvq_jax.audio import io
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.evaluate import recognition, speech, spoken
from rvq_jax.evaluate.recognition import word_errors
from rvq_jax.evaluate.settings import GenerationSettings
from rvq_jax.evaluate.speech import DECODED, NEAREST, REAL, evaluate_speech, silence
from rvq_jax.evaluate.spoken import Heard, ask, can_say, nearest, say
from rvq_jax.systems.speech import Voice

TEXTS = ("two", "one", "one two", "be so", "so", "two two")
WHO = ("ann", "ann", "bob", "bob", "ann", "bob")
SETTINGS = GenerationSettings(clips=4, batch=2, seed=1)


def code_set(texts=TEXTS, who=WHO, lengths=None, names=None) -> CodeSet:
    """Random codes of utterances, of 0.1 s and more unless lengths are given."""
    lengths = lengths or [9 + len(text) for text in texts]
    rng = np.random.default_rng(len(texts))
    codes = [rng.integers(0, small.N, (small.K, n)).astype(np.int32) for n in lengths]
    names = names or [f"{i}.flac" for i in range(len(texts))]
    return CodeSet(codes, names, list(texts), list(who), 100.0, small.N)


class Told:
    """A recognizer that knows what is said in a clip by its length, and nothing of others."""

    known: dict[int, str] = {}  # noqa: RUF012
    words: list = []  # noqa: RUF012

    def __init__(self, words=None):
        if words is not None:
            self.words.append(words)

    def unknown(self, words):
        return []

    def heard(self, audio_SC, rate):
        return self.known.get(len(audio_SC), "")


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(speech, "Recognizer", Told)
    monkeypatch.setattr(recognition, "check", lambda: None)
    monkeypatch.setattr(speech, "missing", lambda measure: "needs speechmos")
    monkeypatch.setattr(Told, "known", {})
    monkeypatch.setattr(Told, "words", [])
    return Told


def test_a_voice_is_another_recording_of_who_says_it():
    codes = code_set()
    for seed in range(5):
        asked = ask(codes, 9, seed)
        assert sorted(asked.clips) == [0, 1, 2, 3, 4, 5]
        for clip, voice in zip(asked.clips, asked.voices, strict=True):
            assert clip != voice and WHO[clip] == WHO[voice]
    assert len(ask(codes, 2, 0).clips) == 2
    # What was cut to pieces has the words of the whole.
    cut = code_set(names=["a#0", "a#1", "b#0", "c", "d", "e"])
    assert sorted(ask(cut, 9, 0).clips) == [2, 3, 5]
    drawn = {tuple(ask(codes, 3, seed).clips) for seed in range(9)}
    assert len(drawn) > 3


def test_a_voice_leaves_room_for_what_is_said():
    codes = code_set(lengths=[10, 30, 10, 30, 25, 9])
    asked = ask(codes, 9, 0, frames=41)
    lengths = np.array([x.shape[1] for x in codes.codes])
    assert (lengths[asked.clips] + lengths[asked.voices] < 41).all()
    assert 1 in asked.clips and 2 in asked.clips
    assert lengths[asked.voices].min() == 10  # what is shorter than 0.1 s is no voice


def test_a_voice_leaves_room_for_the_words_that_are_said():
    codes = code_set()
    asked = ask(codes, 9, 0, fits=lambda text: len(text) < 9)
    texts = [f"{TEXTS[j]} {TEXTS[i]}" for i, j in zip(*asked, strict=True)]
    assert texts and max(map(len, texts)) < 9
    models = [small.valle(), small.speaking()]
    assert can_say(models, "two one") and not can_say(models, "two one be so")
    assert can_say(models[:1], "two one be so") and not can_say(models[:1], "six?")


def test_without_a_pair_of_one_label_there_are_no_voices():
    asked = ask(code_set(who=list("abcdef")), 4, 0)
    assert len(asked.clips) == 4 and len(asked.voices) == 0
    assert len(ask(code_set(who=[""] * 6), 4, 0).voices) == 0
    assert len(ask(code_set(), 4, 0, frames=12).voices) == 0
    few = ask(code_set(who=list("abcdef")), 9, 0, fits=lambda text: len(text) < 4)
    assert sorted(few.clips) == [0, 1, 4]
    assert ask(code_set(texts=["", "one", "…", "two", "so", "be"]), 9, 0).clips.tolist() != []
    with pytest.raises(UserError, match="no held-out clip has words"):
        ask(code_set(), 4, 0, fits=lambda text: False)
    with pytest.raises(UserError, match="no held-out clip has words"):
        ask(code_set(texts=["", " ", "…", "-", "!", "?"]), 4, 0)


def test_the_nearest_clip_differs_in_the_fewest_words():
    train = code_set()
    found = nearest(["two two one", "be so so", "one", "x"], ["bob", "bob", "ann", "eve"], train)
    assert found.tolist()[:3] == [5, 3, 1]
    for text, label, i in zip(["so", "be two"], ["ann", "bob"], nearest(["so", "be two"],
                              ["ann", "bob"], train), strict=True):  # fmt: skip
        wrong = {j: sum(word_errors(text, TEXTS[j])[1:]) for j in range(6) if WHO[j] == label}
        assert wrong[i] == min(wrong.values())


def test_what_is_silence():
    """Frames of 20 ms that are 40 dB below the loudest; of a hum below that all, of nothing all."""
    rate = 1000
    sound = np.sin(np.arange(1000) / 3)[:, None]
    assert silence(sound, rate) == 0.0
    quiet = np.concatenate([sound, 0.005 * sound, 0 * sound, 0.02 * sound])
    assert silence(quiet, rate) == pytest.approx(0.5, abs=0.02)
    assert silence(0 * sound, rate) == silence(sound[:3], rate) == silence(sound[:0], rate) == 1.0
    assert silence(np.concatenate([sound, 0 * sound], 1), rate) == 0.0


@pytest.mark.parametrize("kind", ["valle", slow("soundstorm")])
def test_a_text_is_said_alike_in_any_batch(kind):
    model = small.valle() if kind == "valle" else small.speaking()
    rng = np.random.default_rng(0)
    voices = [Voice(rng.normal(0, 0.1, (n, 1)).astype(np.float32), "a") for n in (120, 160, 120)]
    texts = ["two", "so", "be"]
    alone, together = (
        say(model, texts, voices, GenerationSettings(batch=batch, seed=5)) for batch in (1, 2)
    )
    assert alone.ended.tolist() == together.ended.tolist()
    for a, b in zip(alone.audio, together.audio, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert alone.cost > 0 and together.cost > 0 and len(alone.audio[2]) > 0
    assert say(model, texts[:2], [], GenerationSettings(batch=2)).cost is None
    with pytest.raises(UserError, match=r"'\?'"):
        say(model, ["two?"], [], GenerationSettings())


def test_each_number_is_of_what_was_heard(told, tmp_path):
    """Of a recognizer that hears every recording right: accuracies 1 and, of other texts, less;
    a nearest clip is as wrong as its words are."""
    heldout, model = code_set(), small.valle()
    train = code_set(("one", "two two"), ("ann", "bob"))
    other = dataclasses.replace(train, codec="another codec")
    hop = 10
    audio = [
        {"name": name, "audio": np.random.default_rng(i).normal(0, 0.1, (100 + i, 1))}
        for i, name in enumerate(heldout.names)
    ]
    told.known.update({100 + i: text for i, text in enumerate(TEXTS)})
    told.known.update({hop * train.codes[i].shape[1]: train.captions[i] for i in range(2)})
    found = evaluate_speech(
        {"mine": model}, heldout, audio=audio, train=train, out=tmp_path, settings=SETTINGS
    )
    assert found["clips"] == 4 and found["voices"]
    asked = ask(heldout, 4, 1, 40)
    texts = [TEXTS[i] for i in asked.clips]
    words = sorted({word for text in texts for word in text.split()})
    assert told.words == [words] and found["vocabulary"] == len(words)
    left = evaluate_speech({"mine": model}, heldout, train=other, settings=SETTINGS)
    assert [row["name"] for row in left["systems"]] == [DECODED, "mine"]
    rows = {row["name"]: row for row in found["systems"]}
    assert list(rows) == [REAL, DECODED, NEAREST, "mine"]
    assert rows[REAL]["accuracy"]["mean"] == 1.0 and rows[REAL]["heard"] == texts
    assert rows[REAL]["chance"]["mean"] < 1.0 and rows[REAL]["duration"]["mean"] == 1.0
    assert rows[REAL]["ended"] is None and rows[REAL]["cost"] is None
    at = nearest(texts, [WHO[i] for i in asked.clips], train)
    errors = [word_errors(*pair) for pair in zip(texts, np.array(train.captions)[at], strict=True)]
    words = sum(one.words for one in errors)
    for kind in ("substitutions", "insertions", "deletions"):
        assert rows[NEAREST][kind] == sum(getattr(one, kind) for one in errors) / words
    wrong = sum(sum(one[1:]) for one in errors)
    assert rows[NEAREST]["accuracy"]["mean"] == pytest.approx(1 - wrong / words)
    mine = rows["mine"]
    assert 0 <= mine["ended"] <= 1 and 0 <= mine["silence"]["mean"] <= 1 and mine["cost"] > 0
    voices = [Voice(audio[i]["audio"], TEXTS[i]) for i in asked.voices]
    said = say(model, texts, voices, SETTINGS)
    samples = sum(len(x) for x in said.audio)
    recorded = sum(100 + i for i in asked.clips)
    assert mine["duration"]["mean"] == pytest.approx(samples / recorded)
    assert len(found["players"]) == 4
    for player, text, clip in zip(found["players"], texts, asked.clips, strict=True):
        assert (player["caption"], player["label"]) == (text, WHO[clip])
        assert list(player["systems"]) == [speech.VOICE, *rows]
        real_SC, rate = io.read(tmp_path / player["systems"][REAL])
        assert (len(real_SC), rate) == (100 + clip, small.RATE)


def test_what_is_not_of_the_codes_is_refused(told):
    heldout = code_set()
    audio = [{"name": f"other{i}", "audio": np.zeros((100, 1))} for i in range(6)]
    with pytest.raises(UserError, match="not of this audio"):
        evaluate_speech({"mine": small.valle()}, heldout, audio=audio)
    with pytest.raises(UserError, match="delay was not trained on speech"):
        evaluate_speech({"delay": small.autoregressive()}, heldout)


def test_the_command(told, tmp_path, capsys):
    """A table on the terminal and in the report, with players of what was said; models that do not
    speak, and codecs, are refused before anything is done."""
    small.valle().save(tmp_path / "mine")
    small.autoregressive().save(tmp_path / "delay")
    code_set().save(tmp_path / "heldout.npz")
    code_set(("one", "two two"), ("ann", "bob")).save(tmp_path / "train.npz")
    words = ["evaluate", tmp_path / "mine", "--data", tmp_path / "heldout.npz", "--speech"]
    words += ["--out", tmp_path / "out", "--generate.clips", 2, "--generate.batch", 2]
    code, out, lines = run(capsys, *words)
    assert code == 0, lines
    assert "Speech of 2 held-out texts" in out and "a grammar of" in out
    assert DECODED in out and NEAREST in out and REAL not in out  # there are codes alone
    page = Page((tmp_path / "out" / "report.html").read_text())
    text = " ".join(page.texts)
    assert "Speech of 2 held-out texts" in text and "said in the voice of another" in text
    assert "DNSMOS is left out: needs speechmos" in text
    assert len(page.all("audio")) >= 2 * 3
    other = [tmp_path / "delay" if word == tmp_path / "mine" else word for word in words]
    refuses(capsys, *other, say=("delay was not trained on speech",))
    codec = ["evaluate", "builtin", "--data", tmp_path, "--speech", "--out", tmp_path / "codec"]
    refuses(capsys, *codec, say=("--speech is not for codecs",))


def test_what_ends_at_once_is_kept_and_told(told, tmp_path):
    """As silence in its file, of no words; a model's name is not taken for the recordings'."""
    heldout, model = code_set(), small.valle()
    found = evaluate_speech({REAL: model}, heldout, out=tmp_path, settings=SETTINGS)
    assert [row["name"] for row in found["systems"]] == [DECODED, f"{REAL} (model)"]
    mute = Heard([np.zeros((0, 1), np.float32)] * 2, np.ones(2, bool))
    row = speech._judged(mute, ["one", "two"], np.array([9, 9]), Told(), small.RATE)
    assert (row["accuracy"]["mean"], row["deletions"], row["silence"]["mean"]) == (0.0, 1.0, 1.0)
    players = speech._players(tmp_path, heldout.rows([0, 1]), {"mute": mute}, small.RATE)
    audio_SC, _ = io.read(tmp_path / players[1]["systems"]["mute"])
    assert len(audio_SC) and not audio_SC.any()


def test_a_word_that_nobody_knows_is_left_to_the_language_model(told, monkeypatch):
    monkeypatch.setattr(Told, "unknown", lambda self, words: ["zwei"])
    found = evaluate_speech({"mine": small.valle()}, code_set(), settings=SETTINGS)
    assert found["vocabulary"] is None and told.words == []


def test_most_frames_are_those_of_every_part():
    assert spoken.window([small.valle(40), small.valle(30)]) == 30
    assert spoken.window([small.valle(None)]) is None
    storm = small.speaking()
    assert spoken.window([storm]) == 60
    short = dataclasses.replace(storm, config=dataclasses.replace(storm.config, window=30))
    assert spoken.window([small.valle(40), short]) == 28  # whole tokens
    with pytest.raises(ValueError, match=r"ask for at most 0\.28"):
        short.speak(["so"], jax.random.key(0), seconds=0.5)
