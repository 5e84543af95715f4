"""The pages in a real browser: listened through by script, their files read; wide, narrow, dark."""

import json
import time

import jax
import pytest
import tab as tabs
from evaluations import EVIL, add_sounds, codecs
from listeners import key
from tiers import slow

from rvq_jax.evaluate import answers, listening, report, stimuli

pytestmark = pytest.mark.skipif(tabs.binary() is None, reason="Chromium is not installed")

ROOT = "document.documentElement"
# Reads the trial as the page knows it, and answers as a listener with perfect ears would.
ABX = """(async () => {
  const audible = [];
  while (!document.querySelector('#trial').hidden) {
    if (!names.size || !document.querySelector('[data-answer]')) {
      await new Promise(done => setTimeout(done, 5));
      continue;
    }
    const press = key => dispatchEvent(new KeyboardEvent('keydown', {key}));
    press('1');  // too early: nothing has been heard
    audible.push(document.querySelector('#next').disabled);
    for (const name of ['a', 'x', 'b']) press(name);
    audible.push([...mixer.voices.keys()].join(''), mixer.current);
    const {a, x} = trials[place];
    press(a === x ? '1' : '2');
    audible.push(document.querySelector('#next').disabled);
    press(' ');
    audible.push(mixer.voices.size);
    press('Enter');
  }
  return audible;
})()"""
MUSHRA = """(async () => {
  const early = [];
  let seen = -1;
  while (!document.querySelector('#trial').hidden) {
    if (!names.size || seen === place) {
      await new Promise(done => setTimeout(done, 5));
      continue;
    }
    seen = place;
    const next = document.querySelector('#next');
    for (const [id, slider] of test.sliders) {
      slider.value = score(id);
      slider.dispatchEvent(new Event('input'));
    }
    early.push(next.disabled);
    for (const button of document.querySelectorAll('[data-play]')) button.click();
    early.push(next.disabled);
    next.click();
  }
  return early;
})()"""


@pytest.fixture(scope="module")
def tab():
    """One browser for all tests; none may leave an error in its log."""
    with tabs.chromium() as tab:
        yield tab
        tab.see("0")
        assert tab.problems == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A codec of an unkind name beside Opus: two clips, four stimuli, two pairs."""
    place = tmp_path_factory.mktemp("evaluation")
    results = codecs(names=EVIL[1:2], levels=(1,))
    results["systems"] = results["systems"][:2]
    add_sounds(place, results, seconds=0.2)
    listening.write(place, results)
    with jax.numpy_rank_promotion("allow"):
        report.write(place, results)
    return place


def look(tab, width: int, dark: bool) -> None:
    """A window so wide, of a person who likes light pages or dark ones."""
    tab.send("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1,
             mobile=width < 500)  # fmt: skip
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    tab.send("Emulation.setEmulatedMedia", features=[scheme])


def begin(tab, folder, name: str) -> None:
    tab.open((folder / name).as_uri())
    tab.see("document.querySelector('#begin').click()")
    tab.wait("names.size")


def saved(tab, place):
    """The file that the page's last button makes."""
    tab.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(place))
    tab.wait("!document.querySelector('#end').hidden")
    tab.see("document.querySelector('#save').click()")
    end = time.monotonic() + tabs.WAIT
    while not (found := list(place.glob("*.json"))):
        assert time.monotonic() < end, "no file was saved"
        time.sleep(0.02)
    return found[0]


def test_an_abx_session_ends_in_a_file_that_is_read(tab, folder, tmp_path):
    """By keys alone; too early an answer is none, and switching starts nothing anew."""
    tab.open((folder / "abx.html").as_uri())
    tab.see("document.querySelector('#name').value = ' Ann <&> 音 '")
    begin_at = tab.see("document.querySelector('#begin').click(), trials.length")
    assert begin_at == len(key(folder)["trials"]) == 4
    assert tab.see(ABX) == [True, "AXB", "B", False, 0] * 4
    path = saved(tab, tmp_path)
    assert path.name == "abx-ann-音.json" and json.loads(path.read_text())["name"] == "Ann <&> 音"
    found = answers.read([path], folder)
    assert found["excluded"] == [] and len(found["abx"]) == 2
    for row in found["abx"]:
        assert (row["right"], row["trials"], row["listeners"], row["p"]) == (2, 2, 1, 0.25)


def test_a_mushra_session_ends_in_a_file_that_is_read(tab, folder, tmp_path):
    """Nothing goes on before all are scored and played; scores reach the systems they are of."""
    hidden = key(folder)["sounds"]
    wanted = {stimuli.REFERENCE: 95, stimuli.ANCHOR: 12, "Opus 6": 71, f"{EVIL[1]}, 1 level": 40}
    begin(tab, folder, "mushra.html")
    tab.see(
        f"globalThis.score = id => ({json.dumps({x: wanted[n] for x, n in hidden.items()})})[id]"
    )
    assert tab.see(MUSHRA) == [True, False] * 2
    path = saved(tab, tmp_path)
    found = answers.read([path], folder)
    names = {"hidden reference": stimuli.REFERENCE}
    assert {names.get(r["system"], r["system"]): r["mean"] for r in found["mushra"]} == wanted
    assert found["excluded"] == [] and {row["count"] for row in found["mushra"]} == {2}


def test_switching_keeps_the_place_and_one_sound_is_heard(tab, folder):
    """All voices start at one time of the audio clock; only the gain of one is up."""
    begin(tab, folder, "abx.html")
    tab.see("play('A')")
    started = tab.see("mixer.at")
    tab.wait("mixer.position > .05")
    tab.see("play('X')")
    gains = "[...mixer.voices.values()].map(voice => Math.round(voice.gain.value))"
    tab.wait(f"{gains}.join() === '0,1,0'")
    assert tab.see("[mixer.at, mixer.voices.size]") == [started, 3]
    tab.see("stop()")
    place = tab.see("mixer.from")
    tab.see("play('B')")
    assert tab.see("mixer.from") == place


def test_orders_are_drawn_anew_for_each_listener(tab, folder):
    tab.open((folder / "mushra.html").as_uri())
    orders = tab.see("[...Array(12)].map(() => JSON.stringify(test.draw()))")
    assert len(set(orders)) > 6
    tab.open((folder / "abx.html").as_uri())
    drawn = tab.see("[...Array(40)].flatMap(() => test.draw())")
    same = sum(trial["a"] == trial["x"] for trial in drawn)
    assert {trial["x"] in (trial["a"], trial["b"]) for trial in drawn} == {True}
    assert 40 < same < 120  # of 160, six standard deviations around the half
    assert 40 < sum(trial["a"] < trial["b"] for trial in drawn) < 120


@pytest.mark.parametrize(
    ("width", "dark"), [(1280, False), (360, True), slow(1280, True), slow(360, False)]
)
def test_pages_fit_a_wide_window_and_a_phone_light_and_dark(tab, folder, width, dark):
    look(tab, width, dark)
    spill = f"{ROOT}.scrollWidth - {ROOT}.clientWidth"
    ground = "getComputedStyle(document.body).backgroundColor"
    for name in ("abx.html", "mushra.html"):
        tab.open((folder / name).as_uri())
        assert tab.see(spill) <= 0
        assert (tab.see(ground) == "rgb(16, 21, 27)") == dark
        begin(tab, folder, name)
        assert tab.see(spill) <= 0
        unnamed = """[...document.querySelectorAll('input, button')].filter(
          e => !(e.labels?.length || e.ariaLabel || e.textContent)).length"""
        assert tab.see(unnamed) == 0
        assert tab.see("performance.getEntriesByType('resource').length") == 0
    tab.open((folder / "report.html").as_uri())
    assert tab.see(spill) <= 0
    tab.wait("[...document.images].every(image => image.complete && image.naturalWidth)")
    tab.wait("[...document.querySelectorAll('audio')].every(a => a.readyState && a.duration)")
