"""The report holds every number, plays every sample, and needs nothing from outside."""

import json
import re
import sys
from pathlib import Path

import browser
import jax
import numpy as np
import pytest
from markdown_it import MarkdownIt
from page_elements import Page
from studies import BITS, NAMES, RATE, make_results, results_of
from tiers import tried

from rvq_jax import errors
from rvq_jax.errors import UserError
from rvq_jax.evaluate.plots import spectrograms
from rvq_jax.study import plots, report

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(autouse=True)
def mixed_ranks():
    """The spectral transforms multiply frames by a window of lower rank."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    results = make_results(folder)
    with jax.numpy_rank_promotion("allow"):
        path = report.write(folder, results)
    return results, path, Page(path.read_text(encoding="utf-8"))


def test_every_sample_has_a_labelled_player_with_its_file(built):
    results, _, page = built
    wanted = {f"{s['title']}: {p['label']}" for s in results["samples"] for p in s["players"]}
    players = page.all("audio")
    assert {player["aria-label"] for player in players} == wanted
    assert len(players) == sum(len(sample["players"]) for sample in results["samples"])
    assert all("controls" in player for player in players)


def test_nothing_comes_from_outside(built):
    """Also not from a style: no url(), no @import, no script."""
    _, path, page = built
    links = [a[key] for _, a in page.elements for key in ("src", "href", "srcset") if key in a]
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert not page.all("script")
    style = re.search("<style>(.*?)</style>", path.read_text(encoding="utf-8"), re.S).group(1)
    assert "url(" not in style and "@import" not in style
    assert {p.name for p in path.parent.iterdir()} == {"report.html", "samples"}


def test_every_plot_and_spectrogram_says_what_it_is(built):
    _, _, page = built
    images = page.all("img")
    spectrograms = [i for i in images if i["alt"].startswith("Spectrogram of ")]
    assert len(spectrograms) == len(page.all("audio"))
    assert len(images) == len(spectrograms)
    charts = {svg["aria-label"] for svg in page.all("svg")}
    words = ("Bits per frame", "SI-SDR", "mel distance", "code is used", "between levels")
    words += ("over lags", "Loss of codec", "Loss of parallel and delay")
    for word in words:
        assert sum(word in chart for chart in charts) == 1
    assert len(charts) == len(words)


def test_tables_hold_the_numbers(built):
    results, _, page = built
    text = "\n".join(page.texts)
    markdown = report.markdown(results)
    for row in report.pattern_table(results) + report.codec_table(results):
        for cell in row:
            assert cell in text and cell in markdown
    patterns = report.pattern_table(results)[1:]
    assert [row[0] for row in patterns] == [NAMES[i] for i in np.argsort(BITS)]
    assert patterns[0][1:3] == ["500", "19.47 ± 0.07"]
    assert patterns[0][3:] == ["", "0.167", "44", "34.4", "3.31 + 4.87 + 5.45 + 5.84"]
    # Compared the other way round its ends change places; parallel is a, flatten b.
    assert [row[3] for row in patterns if row[0] == "parallel"] == ["1.55 (1.44 to 1.67)"]
    assert [row[3] for row in patterns if row[0] == "coarse_first"] == ["0.48 (0.36 to 0.59)"]
    codec = report.codec_table(results)[1:]
    assert codec[1] == ["2", "0.70", "3.00", "0.650", "25.0%", "80%", "6.30", "79"]
    for wanted in ("0123456789ab", "rvq-jax quickstart --out run", "812 s", "2.5 GB", "0, 1"):
        assert wanted in text and wanted in markdown
    assert report.answer(results) in text and report.answer(results) in markdown
    assert "2026-11-28" in text and "2026-11-28" in markdown


def test_page_works_in_a_browser(built):
    """Where Chromium is installed, every player loads its audio and every image is drawn."""
    _, path, page = built
    seen = browser.inspect(path)
    if seen is not None:
        assert seen["playable"] == seen["players"] == len(page.all("audio"))
        assert seen["drawn"] == seen["images"] == len(page.all("img"))
        np.testing.assert_allclose(seen["seconds"], 0.5, atol=0.01)
        assert seen["fetched"] == []
        assert seen["overflow"] <= 0


def test_a_missing_or_foreign_sample_is_told_in_one_line(tmp_path):
    results = make_results(tmp_path)
    (tmp_path / "samples" / "delay.flac").write_bytes(b"not audio")
    with pytest.raises(UserError, match=r"delay\.flac"):
        report.write(tmp_path, results)
    results["samples"][0]["players"][0]["file"] = "samples/a.aiff"
    with pytest.raises(UserError, match=r"a\.aiff: browsers play \.flac"):
        report.write(tmp_path, results)
    assert [path.name for path in tmp_path.iterdir()] == ["samples"]


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"pip install 'rvq_jax\[report\]'"):
        plots.codebook_use(np.ones((2, 8)))


def test_plots_survive_the_smallest_studies():
    """One pattern, one level, one code, one update, no lag, silence: each still an image."""
    row = results_of(("delay", 3, 1.0, 0.0))["patterns"]
    levels = [{"level": 1, "si_sdr_db": -3.0, "mel_distance": 1.0}]
    charts = [
        plots.bits_against_steps(row),
        plots.bits_against_steps(row * 9),
        plots.against_levels(levels, "si_sdr_db", "SI-SDR"),
        plots.codebook_use([[5, 0, 0], [0, 0, 0]]),
        plots.shared_in_a_frame([[2.0]]),
        plots.shared_over_lags([[]]),
        plots.training_curves({"delay": [[0, 3.0]]}, "loss"),
        plots.training_curves({"codec": []}, "loss"),
    ]
    assert all(chart.startswith("<svg ") and len(chart) > 1000 for chart in charts)
    found = spectrograms([np.zeros(4000, np.float32), np.zeros(100, np.float32)], RATE)
    assert all(one.image.startswith("data:image/png") for one in found)


def test_equal_results_give_equal_bytes(built, tmp_path):
    results, path, _ = built
    before = path.read_bytes()
    assert report.write(path.parent, results).read_bytes() == before


def test_results_of_before_still_make_a_page(tmp_path):
    """Of a study that kept less: no pairs, no counts, no sounds, no date."""
    results = json.loads((EXPERIMENTS / "patterns" / "corpus=built-in.json").read_text())
    page = Page(report.write(tmp_path, results).read_text(encoding="utf-8"))
    assert "flatten" in page.texts and "None is recommended" in report.answer(results)
    assert " ± " in report.markdown(results)


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.json"
    report.write_json(path, {"a": [1, 2.5]})
    with pytest.raises(TypeError):
        report.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": [1, 2.5]}
    assert list(tmp_path.iterdir()) == [path]


EVIL = [
    "a|b",
    "`code`",
    "<script>alert(1)</script>",
    "![x](http://e.com/x.png)",
    "[x](javascript:alert)",
    "*bold* _it_ __b__ ~~s~~",
    "a\\|b\\",
    "# head",
    "- item",
    "1. item",
    "one\n\n## two\n| x |",
    "$x$ & &lt;",
    "\x1b[2J\u202e",
]


@pytest.mark.parametrize("name", EVIL)
def test_names_are_only_text_in_markdown(built, name):
    """What a reader of Markdown shows is the name, and nothing that it could start."""
    results = json.loads(json.dumps(built[0]))
    results["patterns"][3]["pattern"] = name
    results["data"]["name"] = results["command"] = name
    text = report.markdown(results)
    assert "\x1b" not in text and "\u202e" not in text
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    inline = [token for token in tokens if token.type == "inline"]
    kinds = {child.type for token in inline for child in token.children}
    assert kinds <= {"text", "text_special"}
    assert not [token for token in tokens if token.type in ("html_block", "code_block", "fence")]
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h1"] + ["h2"] * 3
    said = [
        "".join(child.content for child in token.children).strip().replace("\n", " ")
        for token in inline
    ]
    shown = errors.printable(name)
    assert shown in said and any(line.startswith(f"Command: {shown}") for line in said)
    assert any(line.startswith(f"{shown} has the fewest bits") for line in said)


@pytest.mark.parametrize(
    "name", tried(["<script>$\\frac{$\udcff"], ["<script>$\\frac{$\udcff", "_hidden", *EVIL])
)
def test_names_are_only_text_on_the_page_and_in_plots(built, tmp_path, name):
    results, _, page = built
    evil = json.loads(json.dumps(results))
    evil["patterns"][3]["pattern"] = evil["data"]["name"] = name
    evil["curves"] = {name: evil["curves"]["flatten"]}
    evil["samples"] = []
    again = report.write(tmp_path, evil)
    found = Page(again.read_text(encoding="utf-8"))
    assert len(found.all("script")) == len(page.all("script"))
    assert errors.printable(name) in found.texts
