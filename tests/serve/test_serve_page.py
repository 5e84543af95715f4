"""The web page in a real browser: typed in, clicked, heard, stopped, closed."""

import itertools
import threading
import wave
from io import BytesIO

import jax
import numpy as np
import pytest
import small_folders
import small_parallel
import soundfile
import tab as tabs
from served_page import CHOOSE, DONE, PLAYER, ask, hidden, opening, part, samples, text
from serving import CHUNK, RATE, WAIT, Sines, serving

from rvq_jax.audio import io
from rvq_jax.serve import Limits
from rvq_jax.systems.speech import Voice

pytestmark = pytest.mark.skipif(tabs.binary() is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def tab():
    """One browser for all tests; none may leave an error in its log."""
    with tabs.chromium() as tab:
        yield tab


@pytest.fixture
def page(tab):
    """Opens the page of a model and gives back its Place; the page has logged no error."""
    with opening(tab) as open_page:
        yield open_page


def test_a_clip_is_generated_shown_and_can_be_kept(tab, page):
    """The file made in the browser holds the very samples of the model."""
    model = Sines(2)
    page(model)
    assert text(tab, "model") == "Sines · 8\xa0kHz\xa0stereo · up\xa0to\xa030\xa0s"
    assert hidden(tab, "result") and hidden(tab, "error") and hidden(tab, "history")
    assert hidden(tab, "inputs")
    ask(tab, " a sine,\nrather  <b>loud</b> ", seconds=1.5, seed=7, top_k=9)
    tab.wait(DONE)
    tab.wait(f"{PLAYER}.readyState >= 1")
    assert tab.see(f"{PLAYER}.duration") == pytest.approx(1.5)
    assert text(tab, "go") == "Generate" and hidden(tab, "error")
    assert part(tab, "numbers") == "Clip · seed 7 · 1.5 s"
    assert part(tab, "pace").startswith("Made in ") and "times faster than" in part(tab, "pace")
    assert tab.see("takes[0].part('.download').download") == "a-sine-rather-b-loud-b-7.wav"
    data = bytes(tab.see("clip.wav().arrayBuffer().then(b => [...new Uint8Array(b)])"))
    with wave.open(BytesIO(data)) as file:
        assert file.getparams()[:4] == (2, 2, RATE, 12000)
        assert file.readframes(12000) == model.pcm(1.5)
    call = model.calls[0]
    assert call.prompts == ["a sine, rather <b>loud</b>"] and call.options["top_k"] == 9


def test_done_is_said_when_the_button_asks_again(tab, page):
    """A click at "Done" is a new request, however long the answer's connection takes to end."""
    page(Sines())
    tab.see("""void new MutationObserver(() => {
        if (document.querySelector('#status').textContent === 'Done')
            window.seen = [document.querySelector('#go').textContent, request];
    }).observe(document.querySelector('#status'), {childList: true})""")
    ask(tab, "a sine", seconds=0.2)
    assert tab.wait("window.seen") == ["Generate", None]


def test_a_clip_of_a_real_model(tab, page):
    """MusicGen's own stream, from the fields of the page to the samples of the file."""
    model = small_folders.own()
    page(model)
    ask(tab, "slow", seconds=0.5, seed=3, guidance_scale=2)
    tab.wait(DONE)
    data = bytes(tab.see("clip.wav().arrayBuffer().then(b => [...new Uint8Array(b)])"))
    with wave.open(BytesIO(data)) as file:
        assert file.getparams()[:4] == (1, 2, small_folders.RATE, 500)
        found = np.frombuffer(file.readframes(500), "<i2")
    audio = np.asarray(model.generate(["slow"], 0.5, jax.random.key(3), guidance_scale=2.0))[
        0, :, 0
    ]
    np.testing.assert_allclose(found, np.clip(audio, -1, 1) * 32767, atol=4)


def test_it_sounds_while_it_is_generated(tab, page):
    """The clock of the sound moves on over the first chunks; a dry spell makes it wait."""
    model = Sines(steps=threading.Semaphore(0))
    page(model)
    ask(tab, "a sine", seconds=3)
    tab.wait("document.querySelector('#status').textContent.startsWith('Preparing')")
    assert tab.see("document.querySelector('#progress').position") == -1
    model.steps.release(5)
    tab.wait("clip.length === 4000")
    assert tab.see("document.querySelector('#progress').value") == pytest.approx(0.5 / 3)
    assert text(tab, "status") == "Generating" and text(tab, "go") == "Stop"
    tab.wait("live.position >= 0.5 && live.dry")
    assert tab.see("live.spans.length") == 5
    # From 0.5 s on one second is waited for, then all of it follows without a gap.
    model.steps.release(9)
    tab.wait("clip.length === 11200")
    assert tab.see("[live.spans.length, live.held.length]") == [5, 9]
    model.steps.release(16)
    tab.wait(DONE)
    spans = tab.see("live.spans")
    assert len(spans) == 30
    assert spans[5]["at"] > spans[4]["at"] + 0.1
    for one, two in [*itertools.pairwise(spans[:5]), *itertools.pairwise(spans[5:])]:
        assert two["at"] == pytest.approx(one["at"] + CHUNK / RATE)
        assert two["from"] == pytest.approx(one["from"] + CHUNK / RATE)


def test_the_sound_can_be_turned_off_before_the_end(tab, page):
    model = Sines(steps=threading.Semaphore(0))
    page(model)
    ask(tab, "a sine", seconds=1)
    model.steps.release(5)
    tab.wait("!document.querySelector('#mute').hidden && live.context.state === 'running'")
    tab.see("document.querySelector('#mute').click()")
    tab.wait("document.querySelector('#mute').hidden && live.context.state === 'closed'")
    model.steps.release(5)
    tab.wait(DONE)
    tab.wait(f"{PLAYER}.readyState >= 1 && !{PLAYER}.hidden")
    assert tab.see(f"{PLAYER}.duration") == pytest.approx(1) and tab.see(f"{PLAYER}.paused")


def test_the_waveform_is_drawn_as_it_arrives(tab, page):
    """To the right of what has arrived there is only the thin line of what is to come."""
    model = Sines(steps=threading.Semaphore(0))
    page(model)
    ask(tab, "a sine", seconds=2)
    model.steps.release(10)
    tab.wait("clip && clip.length === 8000")
    tall = """(() => {
      const canvas = document.querySelector('.wave'), {width, height} = canvas;
      const pixels = canvas.getContext('2d').getImageData(0, height / 8, width, 1).data;
      const drawn = [...Array(width).keys()].filter(x => pixels[4 * x + 3] > 0);
      return Math.max(0, ...drawn) / width;
    })()"""
    tab.wait(f"{tall} > 0.4")
    assert tab.see(tall) < 0.55
    model.steps.release(10)
    tab.wait(DONE)
    tab.wait(f"{tall} > 0.95")


def test_stop_ends_the_generation_and_keeps_what_there_is(tab, page):
    model = Sines(steps=threading.Semaphore(0))
    place = page(model)
    ask(tab, "a sine", seconds=3)
    model.steps.release(4)
    tab.wait("clip && clip.length === 3200")
    tab.see("document.querySelector('#go').click()")
    tab.wait("document.querySelector('#status').textContent === 'Stopped'")
    job = place.server.config.app.state.line.running
    assert job.unwanted.wait(WAIT)
    model.steps.release()
    assert model.calls[0].ended.wait(WAIT) and model.calls[0].end == "closed"
    tab.wait(f"{PLAYER}.readyState >= 1")
    assert tab.see(f"{PLAYER}.duration") == pytest.approx(0.4)
    assert hidden(tab, "error") and text(tab, "go") == "Generate"
    model.steps.release(2)
    ask(tab, "another", seconds=0.2)
    tab.wait(DONE)


def test_the_place_in_the_queue_is_shown(tab, page):
    model = Sines(steps=threading.Semaphore(0))
    place = page(model)
    others = [place.generate(seconds=0.1) for _ in range(2)]
    ask(tab, "a sine", seconds=0.1)
    status = "document.querySelector('#status').textContent"
    tab.wait(f"{status} === 'Waiting, number 2 in the queue'")
    model.steps.release()
    tab.wait(f"{status} === 'Waiting, number 1 in the queue'")
    model.steps.release(2)
    tab.wait(DONE)
    assert [[*other][-1]["event"] for other in others] == ["done", "done"]


@pytest.mark.parametrize(
    ("fields", "say"),
    [
        ({"prompt": ""}, "Prompt is empty"),
        ({"seconds": "31"}, "Seconds must be a number from 0.1 to 30, not 31"),
        ({"top_k": "2.5"}, "Top-k must be a whole number"),
        ({"top_p": "-1"}, "Top-p must be a number from 0 to 1, not -1"),
    ],
)
def test_a_mistake_is_told_on_the_page_and_can_be_put_right(tab, page, fields, say):
    model = Sines()
    page(model)
    ask(tab, **{"prompt": "a sine", **fields})
    tab.wait("!document.querySelector('#error').hidden")
    assert say in text(tab, "error") and hidden(tab, "history") and not model.calls
    ask(tab, **{**dict.fromkeys(fields, ""), "prompt": "a sine"})
    tab.wait(DONE)
    assert hidden(tab, "error") and model.calls[0].seconds == 10
    # A later mistake leaves the clip where it is.
    ask(tab, **{"prompt": "a sine", **fields})
    tab.wait("!document.querySelector('#error').hidden")
    assert not hidden(tab, "history") and tab.see(f"!{PLAYER}.hidden") and len(model.calls) == 1


def test_an_error_midway_is_told_and_what_came_is_kept(tab, page):
    def spoil(number, chunk):
        if number == 3:
            raise RuntimeError("out of <memory>")
        return chunk

    page(Sines(spoil=spoil))
    ask(tab, "a sine", seconds=1, takes=2)
    tab.wait("!document.querySelector('#error').hidden")
    assert "out of <memory>" in text(tab, "error")
    tab.wait(f"{PLAYER}.readyState >= 1")
    assert tab.see(f"{PLAYER}.duration") == pytest.approx(0.3) and text(tab, "status") == "Stopped"
    assert tab.see("takes.length") == 1


def test_a_server_that_went_away_is_told(tab, page):
    place = page(Sines())
    place.server.should_exit = True
    tab.wait("fetch('health').then(() => false, () => true)")
    ask(tab, "a sine")
    tab.wait("!document.querySelector('#error').hidden")
    assert text(tab, "error") == "The server does not answer; is it still running?"
    assert text(tab, "go") == "Generate"
    tab.problems.clear()  # the browser's own, of the connections refused


def test_nothing_is_loaded_from_outside_and_everything_has_a_name(tab, page):
    place = page(Sines())
    own = f"http://127.0.0.1:{place.port}/"
    fetched = tab.see("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith(own) or name == "data:," for name in fetched)
    ask(tab, "a sine " + 60 * "l", seconds=0.5, takes=2)
    tab.wait(DONE)
    unnamed = """[...document.querySelectorAll('input, textarea, button, audio, progress, canvas')]
      .filter(e => !(e.labels?.length || e.ariaLabel || e.tagName === 'BUTTON' && e.textContent))
      .filter(e => !(e.ariaHidden && e.closest('[role=slider]').ariaLabel))
      .map(e => e.id)"""
    assert tab.see(unnamed) == []
    names = "[...document.querySelectorAll('.takes [aria-label]')].map(e => e.ariaLabel)"
    assert len(set(tab.see(names))) == len(tab.see(names)) == 6
    root = "document.documentElement"
    tab.see("document.querySelector('details').open = true")
    for width in (360, 1280):
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        tab.send("Emulation.setDeviceMetricsOverride", **size)
        assert tab.see(f"{root}.scrollWidth - {root}.clientWidth") <= 0
    tab.send("Emulation.clearDeviceMetricsOverride")


def test_a_closed_tab_stops_its_generation():
    model = Sines(steps=threading.Semaphore(0))
    with serving(model) as place, tabs.chromium() as tab:
        tab.open(f"http://127.0.0.1:{place.port}/")
        ask(tab, "a sine", seconds=3)
        model.steps.release()
        tab.wait("clip && clip.length === 800")
        job = place.server.config.app.state.line.running
        tab.close()
        assert job.unwanted.wait(WAIT)
        model.steps.release()
        assert model.calls[0].ended.wait(WAIT) and model.calls[0].end == "closed"


def test_a_model_that_speaks_is_asked_in_a_voice(tab, page):
    """The file that is chosen is sent with its words; what does not go together is told; a text
    that did not end by itself is said to be cut."""
    model = small_parallel.valle(60)
    page(model, Limits(seconds=1.0))
    tab.wait("shown('voice')")
    assert text(tab, "of-prompt") == "Text" and tab.see("document.title") == "Speech from text"
    assert hidden(tab, "of-guidance") and text(tab, "model").startswith("VALL-E · 1\xa0kHz")
    file, voice_SC = BytesIO(), np.sin(np.arange(240) / 7)[:, None].astype(np.float32)
    soundfile.write(file, voice_SC, small_parallel.RATE, format="WAV")
    tab.see(CHOOSE % ("voice", list(file.getvalue()), "voice.wav"))
    ask(tab, "two", seed=1)
    tab.wait("!document.querySelector('#error').hidden")
    assert text(tab, "error") == "Say what is said in the voice"
    heard_SC, _ = soundfile.read(BytesIO(file.getvalue()), dtype="float32", always_2d=True)
    voices, ended = [Voice(heard_SC, "so be")], set()
    for seed in range(8):
        ask(tab, "two", seed=seed, voice_text="so be")
        tab.wait("request === null && document.querySelector('#go').textContent === 'Generate'")
        found = samples(tab)
        speech = model.speak(["two"], jax.random.key(seed), voices=voices)
        assert found == io.pcm16(speech.audio[0, : speech.samples[0]])
        assert text(tab, "error").startswith("It did not end") == (not speech.ended[0])
        ended.add(bool(speech.ended[0]))
    assert ended == {True, False}
