"""The report of an evaluation holds every number and plays every sound, whatever their names."""

import re
import shlex
import sys

import evaluations
import jax
import pytest
from evaluations import add_sounds, codecs, score, tokens
from page_elements import Page
from tiers import slow

from rvq_jax.cli.evaluate import Evaluate
from rvq_jax.cli.terminal import parse
from rvq_jax.errors import UserError, printable
from rvq_jax.evaluate import curves, report, sounds, summary


@pytest.fixture(autouse=True)
def mixed_ranks():
    """The spectral transforms multiply frames by a window of lower rank."""
    with jax.numpy_rank_promotion("allow"):
        yield


def written(folder, results) -> Page:
    return Page(report.write(folder, results).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A codec whose names mean something to browsers and plots, beside Opus and MP3."""
    folder = tmp_path_factory.mktemp("evaluation")
    results = codecs(names=evaluations.EVIL[:2], levels=(1,))
    add_sounds(folder, results, files=("<b>.flac",))
    (folder / "listening.json").write_text("{}")
    with jax.numpy_rank_promotion("allow"):
        return results, folder, written(folder, results)


def test_every_number_and_every_name_is_on_the_page(built):
    results, _, page = built
    for table in summary.codec_tables(results):
        for cell in [table.title, *table.head, *(x for row in table.rows for x in row)]:
            assert printable(cell) in page.texts
    assert "PESQ is left out: needs pesq: pip install 'rvq_jax[metrics]'" in page.texts
    assert results["command"] in page.texts and results["commit"] in page.texts


def test_sounds_stand_side_by_side_in_the_order_of_the_table(built):
    results, _, page = built
    wanted = ["original", *(printable(system["name"]) for system in results["systems"])]
    assert [a["aria-label"] for a in page.all("audio")] == [f"<b>.flac: {x}" for x in wanted]
    assert sum(i["alt"].startswith("Spectrogram of ") for i in page.all("img")) == len(wanted)


def test_each_metric_that_is_there_has_a_plot(built):
    _, _, page = built
    alts = [chart["aria-label"] for chart in page.all("svg")]
    assert alts == ["SI-SDR against bitrate", "mel distance against bitrate"]


def test_nothing_comes_from_outside_and_no_name_becomes_an_element(built):
    _, _, page = built
    sources = [a[key] for _, a in page.elements for key in ("src", "srcset") if key in a]
    assert sources and all(source.startswith("data:") for source in sources)
    links = {a["href"] for _, a in page.elements if not a.get("href", "#").startswith("#")}
    assert links == {"data:,", "abx.html", "mushra.html"}
    assert not page.all("script") and not page.all("b")


def test_many_sounds_stay_in_the_files_beside_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(sounds, "INSIDE", 10_000)
    results = add_sounds(tmp_path, tokens(names=("a b#",)), files=("one.flac",))
    place = tmp_path / "audio" / "0" / "1.flac"
    place.rename(place.with_name("a b#?.flac"))
    results["players"][0]["systems"]["a b#"] = "audio/0/a b#?.flac"
    page = written(tmp_path, results)
    sources = [sound["src"] for sound in page.all("audio")]
    assert sources == ["audio/0/original.flac", "audio/0/a%20b%23%3F.flac"]
    assert any(sounds.BESIDE in text for text in page.texts)
    assert all(a["href"].startswith("#") for a in page.all("a"))  # no listening pages


def test_a_page_of_token_models(tmp_path):
    """Without an original there is still a player, with its caption, and a model may be one."""
    results = add_sounds(tmp_path, tokens(names=("delay",)), files=("one.flac",))
    results["players"][0]["original"] = None
    page = written(tmp_path, results)
    assert [a["aria-label"] for a in page.all("audio")] == ["one.flac: delay"]
    assert "a slow <piano>" in page.texts and not page.all("piano")
    for table in summary.tables(results):
        assert all(cell in page.texts for row in [table.head, *table.rows] for cell in row)


@pytest.mark.parametrize(
    ("kbps", "value"),
    [
        ((0.75,), score(1.0)),
        slow((6.0, 6.2, 6.4), score(1.0, None)),
        slow((0.0,), score(2.0)),
        slow((0.01, 1411.2), score(None)),
        slow((3.0, 8.0), score(-1e6, 1e5)),
    ],
)
def test_a_plot_is_made_of_whatever_points_there_are(kbps, value):
    """One point, points close together, none of any value, none of a bitrate that has a place."""
    systems = [
        {"family": "mine", "kind": "codec", "kbps": rate, "scores": {"si_sdr": value}}
        for rate in kbps
    ]
    chart = curves.quality(evaluations.METRICS[0], systems)
    assert chart.startswith("<svg ") and len(chart) > 1000
    assert chart == curves.quality(evaluations.METRICS[0], systems)


@pytest.mark.parametrize(
    ("forwards", "plots"),
    [((60, 240), 3), ((60, 60), 3), ((60,), 1), slow((60, None), 1), slow((None, None), 1)],
)
def test_what_forwards_buy_is_plotted_where_two_models_are_heard(forwards, plots, tmp_path):
    results = tokens(names=[f"model {i}" for i in range(len(forwards))])
    for model, count in zip(results["models"], forwards, strict=True):
        model["forwards"] = count
    page = written(tmp_path, results)
    named = [chart["aria-label"] for chart in page.all("svg")]
    about = ["Bits per frame by level", "Bits per frame against forwards"]
    assert named == [*about, "Fréchet distance against forwards"][:plots]


@pytest.mark.parametrize("make", [codecs, tokens])
@pytest.mark.parametrize("more", ["", " --listened 3 --generate.seed=7", " --out 'a b'"])
def test_what_next_are_commands_that_add_to_what_was_asked(make, more, tmp_path):
    """They are read by the command itself, and ask for nothing that was asked otherwise."""
    results = make(names=("mine",))
    results["command"] += more
    found = [x for x in written(tmp_path, results).texts if x.startswith("rvq-jax evaluate")]
    commands = {parse(Evaluate, shlex.split(x)[2:], "evaluate").__repr__() for x in {*found}}
    assert len(commands) == (2 if "seed" in more else 3)  # with the command itself
    results["command"] = "python study.py"
    assert not any(x == "What next" for x in written(tmp_path, results).texts)


def test_a_missing_sound_is_told_in_one_line_and_no_page_is_written(tmp_path):
    results = add_sounds(tmp_path, tokens(names=("delay",)), files=("one.flac",))
    (tmp_path / "audio" / "0" / "1.flac").unlink()
    with pytest.raises(UserError, match=r"1\.flac is not there"):
        report.write(tmp_path, results)
    results["players"][0]["systems"] = {"delay": "audio/0/1.aiff"}
    with pytest.raises(UserError, match=r"1\.aiff: browsers play \.flac"):
        report.write(tmp_path, results)
    assert [path.name for path in tmp_path.iterdir()] == ["audio"]


def test_missing_matplotlib_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=re.escape("pip install 'rvq_jax[report]'")):
        report.write(tmp_path, codecs())
    assert list(tmp_path.iterdir()) == []
