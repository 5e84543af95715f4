"""Pages on a phone and in the dark: charts in the page's colours, letters that are read, axes."""

import re

import jax
import numpy as np
import pytest
import tab as tabs
from evaluations import add_sounds, codecs, tokens
from page_elements import Page
from studies import make_results, results_of
from tiers import slow

from rvq_jax.evaluate import curves, page, plots
from rvq_jax.evaluate import report as evaluated
from rvq_jax.study import plots as study_plots
from rvq_jax.study import report

LIGHT, DARKEST = "#ffffff", "#1e1e1e"  # pages; of dark ones the lightest that browsers have
LETTERS = """[...document.querySelectorAll('.plot text')].map(text => {
  const svg = text.ownerSVGElement, scale = svg.clientWidth / svg.viewBox.baseVal.width;
  return scale * parseFloat(getComputedStyle(text).fontSize); })"""
WIDER = """[...document.querySelectorAll('main *')].filter(x => !x.closest('.scroll, .plot')
  && x.getBoundingClientRect().right > innerWidth + 1).length"""
INKS = """[...document.querySelectorAll('.plot text')].map(x => getComputedStyle(x).fill)"""


@pytest.fixture(autouse=True)
def mixed_ranks():
    """The spectral transforms multiply frames by a window of lower rank."""
    with jax.numpy_rank_promotion("allow"):
        yield


def contrast(one: str, other: str) -> float:
    """Of two colours, after WCAG 2."""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def test_lines_are_seen_on_a_light_page_and_on_a_dark_one():
    colours = plots.COLOURS[:-1]  # the last is the page's ink
    assert len(plots.DARK) == len(colours) == len({*plots.DARK}) == len({*colours})
    assert all(contrast(colour, LIGHT) >= 3 for colour in colours)
    assert all(contrast(colour, DARKEST) >= 3 for colour in plots.DARK)


def charts() -> list[str]:
    rows = results_of(*((f"p{i}", 60 * (i + 1), 10 + i, 0.1) for i in range(9)))["patterns"]
    models = tokens(names=[f"model {i}" for i in range(9)])["models"]
    results = codecs()
    return [
        study_plots.bits_against_steps(rows),
        study_plots.codebook_use(np.ones((3, 8))),
        curves.bits_against_forwards(models),
        curves.quality(results["metrics"][0], results["systems"]),
    ]


def test_a_chart_has_no_paper_and_no_ink_of_its_own():
    for chart in charts():
        colours = set(re.findall(r"#[0-9a-f]{6}", re.sub(r"var\([^)]*\)", "", chart)))
        assert colours <= {"#808080"}  # a grey that is seen on any page
        used = set(re.findall(r"var\((--line-\d), (#[0-9a-f]{6})\)", chart))
        assert used and all(f"{name}: {colour};" in plots.THEME for name, colour in used)
        assert "currentColor" in chart and "font-family: 'DejaVu" not in chart
        assert not re.search(r'<\w+ id="[^"]*_\d+"|<style|<metadata|<!--', chart)
        assert "@media (prefers-color-scheme: dark)" in plots.standalone(chart)


@pytest.mark.parametrize("name", ["#000000", 'style="fill: #000000"', '<b> id="a_1"', "$x_1$"])
def test_a_name_in_a_chart_stays_as_it_is(name):
    rows = results_of((name, 60, 10.0, 0.1), ("b", 120, 11.0, 0.1))["patterns"]
    found = Page(page.plot(study_plots.bits_against_steps(rows), name))
    assert name in found.texts and found.all("svg")[0]["aria-label"] == name
    assert not found.all("b")


@pytest.mark.parametrize(
    "steps", [(60, 61, 63, 120, 120, 240), (60, 240), (500, 2000), (125, 128), (60,)]
)
def test_points_of_a_scatter_take_its_whole_width(steps, monkeypatch):
    """They begin as near to one end as they end to the other, and no third is empty there."""
    figures = []
    monkeypatch.setattr(plots, "svg", lambda figure: figures.append(figure) or "")
    rows = [(f"pattern_{i}", x, 10.0 + i, 0.1) for i, x in enumerate(steps)]
    study_plots.bits_against_steps(results_of(*rows)["patterns"])
    axis = figures[0].axes[0]
    points = axis.transData.transform([(x, 10) for x in steps])
    across = axis.transAxes.inverted().transform(points)[:, 0]
    assert across.min() + across.max() == pytest.approx(1)
    assert across.min() < 1 / 3 or max(steps) < 1.1 * min(steps)
    assert len(axis.get_xticks()) > 1


@pytest.mark.parametrize("letters", [1, 4, 7, 10, 15, 19, 28])
def test_a_legend_stays_within_its_chart(letters, monkeypatch):
    """Of names as wide as letters are, as many columns as there is room for."""
    figures = []
    monkeypatch.setattr(plots, "svg", lambda figure: figures.append(figure) or "")
    rows = [(f"{i}" + "n" * (letters - 1), 60 + i, 10.0, 0.1) for i in range(6)]
    study_plots.bits_against_steps(results_of(*rows)["patterns"])
    figure = figures[0]
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x1 <= figure.bbox.x1 and box.width > figure.bbox.width / 4
    assert figure.axes[0].get_window_extent().height > 100 * figure.dpi / 72


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100])
def test_a_tone_is_where_the_axis_says(rate):
    """The loudest row of a tone is that at the place of its frequency."""
    time = np.arange(rate) / rate
    for text, place in plots.spectrograms([np.zeros(rate)], rate)[0].hertz:
        number, unit = text.split()
        hertz = float(number) * {"Hz": 1, "kHz": 1000}[unit]
        window = 2 ** round(np.log2(0.032 * rate))
        tone = np.sin(2 * np.pi * hertz * time)
        mel = plots.spectral.log_mel(tone, rate, window, window // 4, plots.BANDS)
        loudest = int(np.asarray(mel)[10:-10].mean(0).argmax())
        assert abs((loudest + 0.5) / plots.BANDS - place) <= 1 / plots.BANDS


@pytest.mark.parametrize("seconds", [0.05, 0.4, 1.2, 4.0, 10.0, 90.0])
def test_marks_of_an_axis_have_room(seconds):
    rate = 8000
    one = plots.spectrograms([np.zeros(round(seconds * rate))], rate)[0]
    for marks, least in ((one.seconds, 0.15), (one.hertz, plots.APART)):
        places = [place for _, place in marks]
        assert len(places) > 1 and min(np.diff(places)) >= least
        assert 0 <= places[0] and places[-1] <= 1 + 1e-9
    assert one.seconds[0] == ("0 s", 0.0)


def test_sections_have_links(tmp_path):
    for results in (codecs(), add_sounds(tmp_path, tokens(), files=("one.flac",))):
        found = Page(evaluated.write(tmp_path, results).read_text(encoding="utf-8"))
        links = [a["href"][1:] for a in found.all("a") if a["href"].startswith("#")]
        heads = [x["id"] for tag, x in found.elements if tag in ("h2", "summary")]
        assert links == heads and len({*links}) == len(links) > 3


@pytest.mark.skipif(tabs.binary() is None, reason="Chromium is not installed")
@pytest.mark.parametrize("kind", ["study", slow("evaluation")])
def test_a_page_is_read_on_a_phone_in_any_light(kind, tmp_path):
    if kind == "study":
        path = report.write(tmp_path, make_results(tmp_path))
    else:
        path = evaluated.write(tmp_path, add_sounds(tmp_path, codecs(), files=("one.flac",)))
    with tabs.chromium() as tab:
        phone = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        tab.send("Emulation.setDeviceMetricsOverride", **phone)
        for theme in ("light", "dark"):
            media = [{"name": "prefers-color-scheme", "value": theme}]
            tab.send("Emulation.setEmulatedMedia", features=media)
            tab.open(path.as_uri())
            assert tab.see("document.documentElement.scrollWidth") <= 360
            assert tab.see(WIDER) == 0
            assert min(tab.see(LETTERS)) >= 11
            inks = set(tab.see(INKS)) - {"rgb(255, 255, 255)", "rgb(17, 17, 17)"}  # on a heat map
            assert inks == {tab.see("getComputedStyle(document.body).color")}
            assert tab.problems == []
