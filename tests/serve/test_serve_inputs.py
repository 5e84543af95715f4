"""What models take beside a text: a melody, audio to continue, iterations; as `generate` does."""

import base64
import functools
import io as memory
import json

import jax
import numpy as np
import pytest
import small_musicgen
import small_parallel
import soundfile
from serving import serving
from tiers import tried

from rvq_jax.audio import io, resample
from rvq_jax.serve import Limits
from rvq_jax.serve.requests import body_limit

RATE, HOP = small_musicgen.RATE, small_musicgen.HOP
LIMITS = Limits(seconds=1.0, audio=20_000)
MODELS = {
    "melody": functools.partial(small_musicgen.small, "melody"),
    "stereo": functools.partial(small_musicgen.small, "stereo", "stereo_delay"),
    "MAGNeT": small_parallel.magnet,
    "SoundStorm": small_parallel.soundstorm,
}
TAKEN = {
    "melody": ["continue", "melody", "text_guidance_scale"],
    "stereo": ["continue"],
    "MAGNeT": ["continue", "iterations"],
    "SoundStorm": ["continue", "iterations"],
}


@pytest.fixture(scope="module", params=tried(["melody", "SoundStorm"], MODELS))
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def place(kind):
    with serving(MODELS[kind](), LIMITS) as place:
        yield place


@pytest.fixture(scope="module")
def melodic():
    with serving(MODELS["melody"](), LIMITS) as place:
        yield place


def audio_file(samples: int, rate: int = RATE, channels: int = 1, form: str = "FLAC") -> bytes:
    phase = np.arange(samples)[:, None] * np.arange(1, channels + 1) / 7
    file = memory.BytesIO()
    soundfile.write(file, 0.3 * np.sin(phase), rate, format=form)
    return file.getvalue()


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def heard(data: bytes, channels: int) -> np.ndarray:
    """As a model takes it, `[1, S, C]`."""
    audio_SC, rate = soundfile.read(memory.BytesIO(data), dtype="float32", always_2d=True)
    return resample.fitted(audio_SC, rate, RATE, channels)[None]


def sound(place, **fields) -> bytes:
    events = list(place.generate("slow", 0.5, seed=3, **fields))
    assert events[-1]["event"] == "done", events[-1]
    return b"".join(base64.b64decode(e["pcm"]) for e in events if e["event"] == "audio")


def test_a_clip_goes_on_from_the_audio_that_is_sent(kind, place):
    """Of any rate and channels; in whole frames, as `generate` has it."""
    model = MODELS[kind]()
    assert place.health()["inputs"] == TAKEN[kind]
    data = audio_file(408, 1700, 2)
    prompt = heard(data, model.channels)
    whole = prompt[:, : prompt.shape[1] // HOP * HOP]
    assert whole.shape[1] == 240
    expected = model.generate(["slow"], 0.5, jax.random.key(3), prompt=whole)
    assert sound(place, **{"continue": coded(data)}) == io.pcm16(expected[0])
    assert sound(place) != io.pcm16(expected[0])


def test_a_clip_follows_the_melody_that_is_sent(melodic):
    model, data = MODELS["melody"](), audio_file(1700, 1700, 2, "WAV")
    melody, found = heard(data, 1), {}
    for options in ({}, {"text_guidance_scale": 2.0}):
        expected = model.generate(["slow"], 0.5, jax.random.key(3), melody=melody, **options)
        found[str(options)] = sound(melodic, melody=coded(data), **options)
        assert found[str(options)] == io.pcm16(expected[0])
    assert len({sound(melodic), *found.values()}) == 3


def test_iterations_are_those_that_are_asked_for(kind, place):
    if "iterations" not in TAKEN[kind]:
        return
    model = MODELS[kind]()
    own = place.health()["defaults"]["iterations"]
    assert len(own) == small_musicgen.K and sound(place, iterations=own) == sound(place)
    expected = model.generate(["slow"], 0.5, jax.random.key(3), iterations=(2, 1, 1))
    assert sound(place, iterations=[2, 1, 1]) == io.pcm16(expected[0])


FILE = coded(audio_file(240))


@pytest.mark.parametrize("name", ["melody", "continue"])
@pytest.mark.parametrize(
    ("value", "say"),
    [
        (3, "must be an audio file in base64, not 3"),
        (None, "must be an audio file in base64, not null"),
        ([FILE], "must be an audio file in base64, not a list"),
        ("a", "is not base64"),
        ("data:audio/wav;base64,UklGRg==", "is not base64"),
        ("../../etc/passwd", "is not base64"),
        ("", "has 0 bytes"),
        (coded(bytes(20_001)), "has 20001 bytes; send an audio file of 1 to 20000"),
    ],
)
def test_a_field_that_is_no_file_is_refused(melodic, name, value, say):
    body = json.dumps({"prompt": "slow", name: value})
    status, answer = melodic.answer("POST", "/generate", body)
    assert status == 422 and f"{name} {say}" in answer["error"] and answer["error"].isprintable()


def test_a_body_has_room_for_the_files_that_a_model_takes(melodic):
    assert body_limit(LIMITS, ("voice_text", "iterations")) == LIMITS.body
    assert body_limit(LIMITS, TAKEN["stereo"]) == LIMITS.body + 26_668
    most = body_limit(LIMITS, TAKEN["melody"])
    assert melodic.answer("POST", "/generate", "x" * most)[0] == 400
    assert melodic.answer("POST", "/generate", "x" * (most + 1))[0] == 413


@pytest.mark.parametrize("name", ["melody", "continue"])
@pytest.mark.parametrize(
    ("data", "say"),
    [
        (b"RIFF" + bytes(60), ""),
        (bytes(100), ""),
        (b"\xff\xfb\x90\x64" * 50, ""),
        (audio_file(240)[:-40], ""),
        (audio_file(1001), "is longer than 1 s"),
        (audio_file(0, form="WAV"), ""),
        (audio_file(40, 50, form="WAV"), "rate of 50 Hz"),
        (audio_file(24, channels=5, form="WAV"), ""),
    ],
    ids=["a head", "zeros", "an mp3 of nothing", "cut", "long", "empty", "slow", "five channels"],
)
def test_a_hostile_file_ends_its_own_request_alone(melodic, name, data, say):
    """Mixed to mono or refused in one line, which names no place of this machine."""
    events = list(melodic.generate("slow", 0.5, **{name: coded(data)}))
    if events[-1]["event"] == "error":
        line = events[-1]["error"]
        called = {"continue": "the audio to continue"}.get(name, f"the {name}")
        assert line.startswith(called) and say in line and "/tmp" not in line, line
        assert line.isprintable() and len(line) < 300
    else:
        assert not say and data[:4] == b"RIFF"
    assert list(melodic.generate("slow", 0.5))[-1]["event"] == "done"


@pytest.mark.parametrize(
    ("kind_of", "fields", "say"),
    [
        ("melody", {"continue": coded(audio_file(500))}, "lasts 0.50 s, and the seconds, which"),
        ("melody", {"continue": coded(audio_file(9))}, "shorter than a frame of 10 samples"),
        ("SoundStorm", {"continue": coded(audio_file(39))}, "shorter than a semantic token"),
        ("MAGNeT", {"iterations": [1, 1]}, "iterations are of 3 levels, got 2"),
    ],
)
def test_what_does_not_fit_the_model_is_told_in_its_words(kind_of, fields, say):
    with serving(MODELS[kind_of](), LIMITS) as place:
        *_, last = place.generate("slow", 0.5, **fields)
        assert last["event"] == "error" and say in last["error"], last
        assert "failed" not in last["error"]


@pytest.mark.parametrize(
    ("value", "say"),
    [
        (3, "must be a list of one for each level, not 3"),
        ([], "must be a list of one for each level, not a list"),
        ([1, 0, 1], "must be whole numbers from 1 to 100, not 0"),
        ([101], "must be whole numbers from 1 to 100, not 101"),
        ([1.5], "must be whole numbers from 1 to 100, not 1.5"),
        ([[1]], "must be whole numbers from 1 to 100, not a list"),
        ([True], "must be whole numbers from 1 to 100, not true"),
    ],
)
def test_iterations_that_are_none_are_refused(value, say):
    with serving(MODELS["MAGNeT"](), LIMITS) as place:
        body = json.dumps({"prompt": "slow", "iterations": value})
        status, answer = place.answer("POST", "/generate", body)
    assert status == 422 and f"iterations {say}" in answer["error"]
