"""Every kind of model is served as it generates by itself."""

import base64
import functools

import jax
import pytest
import small_parallel
from serving import serving

from rvq_jax.audio import io

MODELS = {
    "MusicGen": small_parallel.autoregressive,
    "SoundStorm": small_parallel.soundstorm,
    "MAGNeT": small_parallel.magnet,
    "VALL-E": functools.partial(small_parallel.valle, 60),
}
SECONDS = 0.5
OWN = {
    "MusicGen": {"guidance_scale": 3, "temperature": 1, "top_k": 250, "top_p": 0},
    "SoundStorm": {"guidance_scale": 1, "temperature": 1, "top_k": 0, "top_p": 0},
    "MAGNeT": {"guidance_scale": None, "temperature": 3, "top_k": 0, "top_p": 0.9},
    "VALL-E": {"guidance_scale": 1, "temperature": 1, "top_k": 0, "top_p": 0},
}
MORE = {"temperature": 0.5, "top_k": 3}


@pytest.mark.parametrize(
    ("kind", "asked"),
    [(kind, {}) for kind in MODELS]
    + [(kind, MORE | ({} if kind == "VALL-E" else {"guidance_scale": 2.0})) for kind in MODELS],
)
def test_what_is_left_out_is_as_the_kind_has_it(kind, asked):
    model = MODELS[kind]()
    with serving(model) as place:
        events = list(place.generate("slow", SECONDS, seed=3, **asked))
        health = place.health()
    own = {name: health["defaults"][name] for name in OWN[kind]}
    found = b"".join(base64.b64decode(e["pcm"]) for e in events if e["event"] == "audio")
    if kind == "VALL-E":
        said = model.speak(["slow"], jax.random.key(3), seconds=SECONDS, **asked)
        audio = said.audio[:, : said.samples[0]]
    else:
        audio = model.generate(["slow"], SECONDS, jax.random.key(3), **asked)
    assert found == io.pcm16(audio[0]) and own == OWN[kind]
    assert health["system"].partition(" · ")[0] == kind
