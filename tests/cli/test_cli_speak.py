"""speak: texts and voices to files, what was cut is said, and what cannot be said."""

import json

import jax
import numpy as np
import pytest
import small_parallel
import soundfile
from command import refuses, run
from small_parallel import RATE

from rvq_jax.audio import resample
from rvq_jax.systems.valle import Voice


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, one that does not speak, and a voice of another rate and two channels."""
    place = tmp_path_factory.mktemp("speak")
    small_parallel.valle().save(place / "valle")
    small_parallel.magnet().save(place / "magnet")
    time = np.arange(round(0.15 * 8000))[:, None] / 8000
    sound = 0.3 * np.sin(2 * np.pi * np.array([[90, 110]]) * time)
    soundfile.write(place / "voice.wav", sound.astype("f4"), 8000, subtype="FLOAT")
    return place


def heard(path) -> np.ndarray:
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == RATE
    return audio


def test_texts_are_said_in_a_voice(place, tmp_path, capsys):
    """Each to a file of its own length; which share a batch does not matter."""
    voice = ["--voice", place / "voice.wav", "--voice-text", "So"]
    words = ["two", "a", "one two"]
    texts = tmp_path / "texts.txt"
    texts.write_text("two\n\na\none two\n")
    common = ["--model", place / "valle", *voice, "--seconds", 0.2, "--seed", 3, "--top-k", 9]
    out = ["--texts", texts, "--out", tmp_path / "many", "--batch", 2, "--json"]
    code, said, lines = run(capsys, "speak", *common, *out)
    assert code == 0, lines
    found = json.loads(said)
    assert found["texts"] == words
    cut = [
        f"{text!r} did not end" for text, end in zip(words, found["ended"], strict=True) if not end
    ]
    assert len(lines) == len(cut) and all(x in y for x, y in zip(cut, lines, strict=True))
    stereo, rate = soundfile.read(place / "voice.wav", dtype="float32")
    mono = resample.to_rate(stereo.mean(1, keepdims=True), rate, RATE)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(3), np.arange(3))
    speech = small_parallel.valle().speak(
        words, keys, voices=[Voice(mono, "So")], seconds=0.2, top_k=9
    )
    assert found["samples"] == speech.samples.tolist()
    for i, count in enumerate(speech.samples):
        np.testing.assert_allclose(
            heard(tmp_path / "many" / f"{i}.wav"),
            np.clip(speech.audio[i, :count], -1, 1),
            atol=2**-14,
        )


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (["--out", "x.wav"], "there is no text; give --text or --texts"),
        (["--text", "two", "--texts", "x", "--out", "x.wav"], "not both"),
        (["--text", "two", "a", "--out", "x.wav"], "several texts need a folder"),
        (["--text", "two", "--voice", "nowhere.wav", "--voice-text", "a", "--out", "x.wav"],
         "nowhere.wav is not there"),
        (["--text", "two", "--voice-text", "a", "--out", "x.wav"], "are the words of --voice"),
        (["--text", "two", "--voice", "nowhere.wav", "--out", "x.wav"], "give --voice-text"),
        (["--text", "two!", "--out", "x.wav"], "has '!', which the model was not trained on"),
        (["--text", "two", "--seconds", "9", "--out", "x.wav"], "more than the 0.4 s"),
        (["--text", "two", "--top-p", "2", "--out", "x.wav"], "top-p"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_leaves_nothing(words, say, place, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuses(capsys, "speak", "--model", place / "valle", *words, say=(say,))
    assert not list(tmp_path.iterdir())


def test_a_model_that_does_not_speak(place, tmp_path, capsys):
    words = ["--model", place / "magnet", "--text", "two", "--out", tmp_path / "x.wav"]
    refuses(capsys, "speak", *words, say=("was not trained on speech",))
