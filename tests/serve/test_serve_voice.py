"""Speech by the server: in the voice of a file that comes with the request, as long as it is."""

import base64
import dataclasses
import io as memory
import json

import jax
import numpy as np
import pytest
import small_parallel
import soundfile
from serving import Sines, serving

from rvq_jax.audio import io, resample
from rvq_jax.serve import Limits
from rvq_jax.serve.requests import Refused, parse
from rvq_jax.systems.speech import Voice

LIMITS = Limits(seconds=1.0, audio=20_000)
SAMPLES = 240


def audio_file(audio_SC: np.ndarray, rate: int = small_parallel.RATE, kind: str = "WAV") -> bytes:
    file = memory.BytesIO()
    soundfile.write(file, audio_SC, rate, format=kind)
    return file.getvalue()


def tone(samples: int = SAMPLES, channels: int = 1) -> np.ndarray:
    phase = np.arange(samples)[:, None] * np.ones(channels) / 7
    return (0.3 * np.sin(phase)).astype(np.float32)


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def place():
    with serving(small_parallel.valle(60), LIMITS) as place:
        yield place


def sound(events: list[dict]) -> bytes:
    return b"".join(base64.b64decode(e["pcm"]) for e in events if e["event"] == "audio")


def ask(place, **fields) -> list[dict]:
    return list(place.generate(fields.pop("prompt", "two"), fields.pop("seconds", 0.3), **fields))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [small_parallel.RATE, 1700])
def test_it_is_said_in_the_voice_that_is_sent(place, rate, channels):
    """Of any rate and channels."""
    data = audio_file(tone(channels=channels), rate, "FLAC")
    events = ask(place, seed=5, voice=coded(data), voice_text="so be")
    audio_SC, found = soundfile.read(memory.BytesIO(data), dtype="float32", always_2d=True)
    model = small_parallel.valle(60)
    voice = Voice(resample.fitted(audio_SC, found, model.codec.config.rate, 1), "so be")
    said = model.speak(["two"], jax.random.key(5), voices=[voice], seconds=0.3)
    assert sound(events) == io.pcm16(said.audio[0, : said.samples[0]])
    assert events[-1]["ended"] == said.ended[0] and events[-1]["samples"] == said.samples[0]


def test_it_is_as_long_as_it_is_said(place):
    """By some seeds it ends by itself, by others it is cut where it was trained to, and says so."""
    assert place.health()["inputs"] == ["voice", "voice_text"]
    assert place.health()["defaults"]["seconds"] is None
    last = [ask(place, seconds=None, seed=seed)[-1] for seed in range(8)]
    assert {end["ended"] for end in last} == {True, False}
    assert all((end["samples"] == 600) == (not end["ended"]) for end in last)


def test_it_is_no_longer_than_a_request_may_be():
    """Of a model that was trained on more, or on any length."""
    storm = small_parallel.speaking()
    short = dataclasses.replace(storm, config=dataclasses.replace(storm.config, window=20))
    models = small_parallel.valle(60), small_parallel.valle(None), storm, short
    for model in models:
        with serving(model, Limits(seconds=0.2)) as place:
            last = [ask(place, seconds=None, seed=seed)[-1] for seed in range(8)]
        assert max(end["samples"] for end in last) == 200


VOICE = coded(audio_file(tone()))


@pytest.mark.parametrize(
    ("fields", "say"),
    [
        ({"voice": VOICE}, "voice_text is missing"),
        ({"voice_text": "a"}, "voice is missing"),
        ({"voice": VOICE, "voice_text": " "}, "voice_text is empty; say what is said"),
        ({"voice": VOICE, "voice_text": "a\x07"}, "voice_text has the control character U+0007"),
        ({"voice": VOICE, "voice_text": 3}, "voice_text must be text, not 3"),
        ({"voice": 3, "voice_text": "a"}, "voice must be an audio file in base64, not 3"),
        ({"voice": None, "voice_text": "a"}, "voice must be an audio file in base64, not null"),
        ({"voice": "a", "voice_text": "a"}, "voice is not base64"),
        ({"voice": "é", "voice_text": "a"}, "voice is not base64"),
        ({"voice": "", "voice_text": "a"}, "voice has 0 bytes"),
        ({"voice": coded(bytes(20_001)), "voice_text": "a"}, "voice has 20001 bytes"),
        ({"voize": VOICE, "voice_text": "a"}, "did you mean 'voice'?"),
        ({"seconds": 2}, "seconds must be a number from 0.1 to 1, not 2"),
    ],
)
def test_a_request_that_is_none_is_refused(place, fields, say):
    body = json.dumps({"prompt": "two", **fields})
    status, answer = place.answer("POST", "/generate", body)
    assert status == 422 and say in answer["error"] and answer["error"].isprintable()


@pytest.mark.parametrize(
    ("fields", "say"),
    [
        ({"voice": coded(b"RIFF" + bytes(60))}, "the voice: "),
        ({"voice": coded(bytes(100))}, "the voice: "),
        ({"voice": coded(audio_file(0 * tone()))}, "the voice is silent"),
        ({"voice": coded(audio_file(tone(50)))}, "a voice must be 0.1 s or longer"),
        ({"voice": coded(audio_file(tone(3001)))}, "the voice: is longer than 1 s"),
        ({"voice": coded(audio_file(tone(800)))}, "take a shorter clip"),
        ({"voice": coded(audio_file(tone(), 50))}, "the voice: "),
        ({"guidance_scale": 2}, "without guidance"),
        ({"prompt": "six?"}, "'?'"),
        ({"seconds": 0.9}, "ask for at most"),
    ],
)
def test_what_cannot_be_said_ends_its_own_request_alone(place, fields, say):
    voiced = {"voice_text": "a"} if "voice" in fields else {}
    events = ask(place, **{"prompt": "two", **voiced, **fields})
    assert events[-1]["event"] == "error" and say in events[-1]["error"], events[-1]
    assert "/tmp" not in events[-1]["error"]
    assert ask(place)[-1]["event"] == "done"


def test_a_model_that_does_not_speak_takes_no_voice():
    body = json.dumps({"prompt": "a", "voice": VOICE, "voice_text": "a"}).encode()
    with pytest.raises(Refused, match="unknown field 'voice'"):
        parse(body, Limits())
    with serving(Sines()) as place:
        health = place.health()
        assert health["inputs"] == [] and health["defaults"]["seconds"] == 10
        assert place.answer("POST", "/generate", "x" * 20_000)[0] == 413
