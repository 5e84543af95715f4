"""The page's takes and history in a real browser: heard, seen, sought in, asked for again."""

from io import BytesIO

import jax
import numpy as np
import pytest
import small_musicgen
import soundfile
import tab as tabs
from served_page import CHOOSE, DONE, ask, opening, part, samples, text
from serving import RATE, Sines

from rvq_jax.serve import Limits

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


def key(tab, name: str) -> None:
    """Presses a key in the pictures of the last take."""
    tab.see(f"""takes.at(-1).slider.dispatchEvent(
        new KeyboardEvent('keydown', {{key: '{name}', cancelable: true}}))""")


def test_takes_have_seeds_and_players_of_their_own(tab, page):
    model = Sines()
    page(model)
    ask(tab, "a sine", seconds=0.4, seed=7, takes=3)
    tab.wait(DONE)
    for i in range(3):
        assert part(tab, "numbers", i) == f"Take {i + 1} of 3 · seed {7 + i} · 0.4 s"
        assert samples(tab, i) == model.pcm(0.4)
    tab.wait("takes.every(take => take.player.readyState >= 1)")
    assert tab.see("document.querySelectorAll('#clips article').length") == 1
    links = tab.see("takes.map(take => take.part('.download').download)")
    assert links == ["a-sine-7.wav", "a-sine-8.wav", "a-sine-9.wav"]
    # They sound one after another: each begins where the one before it ended.
    assert tab.see("takes.map(take => take.from)") == pytest.approx([0, 0.4, 0.8])
    # And of several players one plays.
    tab.see("takes[0].player.play()")
    tab.see("takes[1].player.play()")
    assert tab.see("takes.map(take => take.player.paused)") == [True, False, True]
    ask(tab, "a sine", takes=5)
    tab.wait("!document.querySelector('#error').hidden")
    assert text(tab, "error") == "Takes must be a whole number from 1 to 4, not 5"


def test_earlier_clips_stay_with_their_settings_and_can_be_asked_for_again(tab, page):
    model = Sines()
    page(model)
    ask(tab, "the first", seconds=0.3, seed=5, top_k=9, takes=2)
    tab.wait(DONE)
    ask(tab, "the second", seconds=0.2, seed=1, top_k=2, takes=1)
    tab.wait(f"{DONE} && takes.length === 3")
    heads = tab.see("[...document.querySelectorAll('#clips h3')].map(h => h.textContent)")
    assert heads == ["the second", "the first"]
    lines = tab.see("[...document.querySelectorAll('#clips h3 + p')].map(p => p.textContent)")
    assert lines[1] == "0.3 s · guidance 3 · temperature 1 · top-k 9 · top-p 0"
    assert samples(tab, 1) == model.pcm(0.3)
    tab.see("takes[1].part('.again').click()")
    tab.see("document.querySelector('#go').click()")
    tab.wait(f"{DONE} && takes.length === 4")
    first, last = model.calls[1], model.calls[3]
    assert (last.prompts, last.seconds, last.options) == (["the first"], 0.3, first.options)
    assert np.array_equal(*(jax.random.key_data(call.key) for call in (first, last)))
    assert len(model.calls) == 4


def test_one_seeks_in_the_pictures_by_pointer_and_keyboard(tab, page):
    page(Sines())
    ask(tab, "a sine", seconds=2, seed=1)
    tab.wait(f"{DONE} && takes[0].player.readyState >= 1")
    tab.see("live?.close()")
    box = tab.see("takes[0].slider.getBoundingClientRect().toJSON()")
    at = {"x": box["left"] + box["width"] / 4, "y": box["top"] + 10, "button": "left"}
    for kind in ("mousePressed", "mouseReleased"):
        tab.send("Input.dispatchMouseEvent", type=kind, clickCount=1, **at)
    now = "takes[0].player.currentTime"
    tab.wait(f"{now} > 0")
    assert tab.see(now) == pytest.approx(0.5, abs=0.01)
    for name, to in {"ArrowRight": 0.54, "PageUp": 0.74, "ArrowDown": 0.7, "End": 2}.items():
        key(tab, name)
        assert tab.see(now) == pytest.approx(to, abs=0.01), name
    key(tab, "Home")
    key(tab, "PageUp")
    tab.wait("takes[0].slider.ariaValueText === '0.2 of 2.0 seconds'")
    assert tab.see("takes[0].part('.head').style.left") == "10%"
    key(tab, " ")
    assert not tab.see("takes[0].player.paused")
    key(tab, " ")
    assert tab.see("takes[0].player.paused")


@pytest.mark.parametrize("gain", [1.0, 0.001])
def test_a_quiet_clip_is_seen_as_well_as_a_loud_one(tab, page, gain):
    """Both pictures go by the clip's own peak, and say it; the tone is where it belongs."""
    page(Sines(spoil=lambda number, chunk: gain / 1.1 * chunk))
    ask(tab, "a sine", seconds=1)
    tab.wait(f"{DONE} && takes[0].spectrogram.done === COLUMNS")
    tall = """(() => {
      const {width} = takes[0].part('.wave');
      const pixels = takes[0].part('.wave').getContext('2d').getImageData(0, 4, width, 1).data;
      return [...Array(width).keys()].filter(x => pixels[4 * x + 3] > 0).length / width;
    })()"""
    tab.wait(f"{tall} > 0.5")
    level = {1.0: "0.0 dB", 0.001: "−59.9 dB"}[gain]
    assert part(tab, "peak") == f"Both pictures are scaled to its peak, {level}."
    found = tab.see("""(() => {
      const {values, bins, size} = takes[0].spectrogram, column = COLUMNS / 2;
      const rows = [...Array(ROWS).keys()].map(row => values[row * COLUMNS + column]);
      const row = rows.indexOf(Math.max(...rows));
      return [bins[row] * clip.rate / size, bins[row + 1] * clip.rate / size];
    })()""")
    assert found[0] - RATE / 512 < 220 < found[1] + RATE / 512


def test_silence_and_other_paces_are_said(tab, page):
    page(Sines(spoil=lambda number, chunk: 0 * chunk))
    ask(tab, "nothing", seconds=0.5)
    tab.wait(DONE)
    assert part(tab, "peak") == "It is silent."
    pace = {(2, 4.2): "2.1 times faster than it plays", (62, 2): "31 times slower than it plays",
            (3, 3.1): "as fast as it plays", (0, 1): "1000 times faster than it plays"}  # fmt: skip
    for (spent, seconds), say in pace.items():
        assert tab.see(f"paceOf({spent}, {seconds})") == say


def test_the_model_is_named_and_a_melody_is_sent_and_kept(tab, page):
    """Its file is taken again with the settings; a model without one has no field for it."""
    model = small_musicgen.small("melody")
    page(model, Limits(seconds=1.0, audio=5_000), name="tunes")
    assert text(tab, "name") == "tunes" and tab.see("document.title") == "Generate audio · tunes"
    assert text(tab, "model").startswith(" · MusicGen\xa0·\xa0delay · 1\xa0kHz\xa0mono")
    assert tab.see("shown('melody') && shown('continue') && !shown('voice')")
    file = BytesIO()
    soundfile.write(file, 0.3 * np.sin(np.arange(400) / 7), small_musicgen.RATE, format="WAV")
    tab.see(CHOOSE % ("melody", list(file.getvalue()), "tune.wav"))
    ask(tab, "slow", seconds=0.4, seed=1)
    tab.wait(DONE)
    assert "melody tune.wav" in tab.see("document.querySelector('#clips h3 + p').textContent")
    tab.see("document.querySelector('.remove:not([hidden])').click()")
    assert tab.see("document.querySelector('#melody').files.length") == 0
    ask(tab, "slow")
    tab.wait(f"{DONE} && takes.length === 2")
    tab.see("takes[0].part('.again').click()")
    tab.see("document.querySelector('#go').click()")
    tab.wait(f"{DONE} && takes.length === 3")
    assert samples(tab, 0) == samples(tab, 2) != samples(tab, 1)
    tab.see(CHOOSE % ("continue", [0] * 5001, "long.wav"))
    ask(tab, "slow")
    tab.wait("!document.querySelector('#error').hidden")
    assert text(tab, "error").startswith("The file of continue has 5001 bytes; take one of 5000")
