"""The report holds every number, plays every sample, and needs nothing from outside."""

import itertools
import json
import re
import sys

import browser
import jax
import numpy as np
import pytest
import soundfile
from markdown_it import MarkdownIt
from page_elements import Page
from tiers import tried

from rvq_jax import errors
from rvq_jax.errors import UserError
from rvq_jax.evaluate.plots import spectrograms
from rvq_jax.study import plots, report

RATE, LEVELS, SIZE = 16000, 4, 128
NAMES = ("parallel", "delay", "partial_delay", "flatten", "partial_flatten", "coarse_first")
STEPS = (125, 128, 126, 500, 250, 250)
BITS = (21.02, 20.34, 20.61, 19.47, 19.88, 19.95)


@pytest.fixture(autouse=True)
def mixed_ranks():
    """The spectral transforms multiply frames by a window of lower rank."""
    with jax.numpy_rank_promotion("allow"):
        yield


def make_results(folder) -> dict:
    """A study's results as the schema has them, and its samples as files in `folder`."""
    rng = np.random.default_rng(0)
    (folder / "samples").mkdir()

    def player(label: str, name: str, noise: float) -> dict:
        time = np.arange(RATE // 2) / RATE
        tone = 0.3 * np.sin(2 * np.pi * (300 + 500 * time) * time) * np.exp(-3 * time)
        audio = (tone + noise * rng.normal(size=len(time))).astype(np.float32)
        soundfile.write(folder / "samples" / name, audio, RATE)
        return {"label": label, "file": f"samples/{name}"}

    samples = []
    for clip in range(2):
        labels = ["original"] + [f"{k} level{'s' * (k > 1)}" for k in range(1, LEVELS + 1)]
        players = [
            player(label, f"clip{clip}_{k}.wav", 0.03 / (k + 1) * (k > 0))
            for k, label in enumerate(labels)
        ]
        samples.append(
            {
                "group": "reconstruction",
                "title": f"song {clip} <&'\">",
                "caption": 'a "bright" pad & drums',
                "players": players,
            }
        )
    for name in NAMES:
        players = [player("a slow piano", f"{name}.flac", 0.01)]
        samples.append({"group": "generation", "title": name, "caption": "", "players": players})

    def pattern(i: int) -> dict:
        values = [BITS[i] - 0.05, BITS[i] + 0.05]
        bits = {"mean": BITS[i], "std": 0.07, "values": values}
        return {"pattern": NAMES[i], "steps": STEPS[i], "frames": 125, "bits_per_frame": bits,
                "interval": {"mean": BITS[i], "low": BITS[i] - 0.3, "high": BITS[i] + 0.3},
                "bits_by_level": [BITS[i] * share for share in (0.17, 0.25, 0.28, 0.3)],
                "train_seconds": 41.0 + i, "updates": 200, "generate_seconds": STEPS[i] / 150,
                "real_time_factor": STEPS[i] / 3000, "frechet_distance": 31.4 + i}  # fmt: skip

    def pair(i: int, j: int) -> dict:
        mean = BITS[i] - BITS[j]
        return {"metric": "bits_per_frame", "a": NAMES[i], "b": NAMES[j], "different": True,
                "mean": mean, "low": mean - 0.11, "high": mean + 0.12, "count": 24}  # fmt: skip

    def level(k: int) -> dict:
        return {"level": k, "kbps": 0.35 * k, "si_sdr_db": 1.7 * k - 0.4,
                "mel_distance": 0.9 / k + 0.2, "energy_explained": 0.5**k, "use": 1 - 0.1 * k,
                "entropy_bits": 6.5 - k / 10, "perplexity": 2 ** (6.5 - k / 10)}  # fmt: skip

    decay = np.exp(-np.arange(8) / 2.0)
    apart = np.abs(np.subtract.outer(np.arange(LEVELS), np.arange(LEVELS)))
    counts = rng.multinomial(20000, rng.dirichlet(np.ones(SIZE)), LEVELS)
    counts[2, :40] = 0
    updates = np.arange(0, 600, 20)
    curves = {"codec": np.stack([updates, 40 * np.exp(-updates / 150) + 3], 1).tolist()}
    for i, name in enumerate(NAMES):
        losses = BITS[i] / 4 + 2 * np.exp(-updates / 100)
        curves[name] = np.stack([updates, losses], 1).tolist()
    return {
        "command": "rvq-jax quickstart --out run",
        "commit": "0123456789ab",
        "machine": {"cpu": "a processor", "cores": 2, "memory_gb": 25.0, "accelerator": None},
        "seeds": [0, 1],
        "wall_seconds": 812.3,
        "peak_memory_gb": 2.46,
        "versions": {"python": "3.13.0", "jax": "0.12.0", "rvq_jax": "0.1.0"},
        "data": {"name": "built-in", "rate": RATE, "train_minutes": 16.0,
                 "heldout_minutes": 2.4, "clips": 184},
        "codec": {"name": "trained here", "parameters": 462202, "hop": 320,
                  "frame_rate": 50.0, "codebook_size": SIZE,
                  "train_seconds": 240.0, "updates": 600,
                  "levels": [level(k) for k in range(1, LEVELS + 1)]},
        "patterns": [pattern(i) for i in range(len(NAMES))],
        "pairs": [pair(i, j) for i, j in itertools.combinations(range(len(NAMES)), 2)],
        "language_model": {"parameters": 1413760, "layers": 4},
        "information": {"levels": (3.0 * np.exp(-apart) + 3.3 * (apart == 0)).tolist(),
                        "lags": [(decay * 2 / k).tolist() for k in range(1, LEVELS + 1)]},
        "code_counts": counts.tolist(),
        "curves": curves,
        "samples": samples,
    }  # fmt: skip


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
    charts = {i["alt"] for i in images} - {i["alt"] for i in spectrograms}
    words = ("Bits per frame", "SI-SDR", "code is used", "Mutual information", "Loss")
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


def results_of(*rows, alike: tuple = ()) -> dict:
    """Patterns (name, steps, mean, std) of two seeds each; alike: pairs that clips cannot tell."""
    return {"pairs": [
        {"a": a[0], "b": b[0], "different": (a[0], b[0]) not in alike, "mean": a[2] - b[2],
         "low": a[2] - b[2], "high": a[2] - b[2]} for a, b in itertools.combinations(rows, 2)
    ], "patterns": [
        {"pattern": name, "steps": steps, "frames": 100, "real_time_factor": steps / 1000,
         "bits_per_frame": {"mean": mean, "std": std, "values": [mean - std, mean + std]}}
        for name, steps, mean, std in rows
    ]}  # fmt: skip


def test_answer_follows_the_numbers():
    """Each clause appears exactly when the numbers call for it."""
    flat, quick, quicker = (
        ("flat", 400, 10, 0.1),
        ("quick", 103, 11, 0.1),
        ("quicker", 100, 12, 0.1),
    )
    text = report.answer(results_of(quicker, flat, quick))
    assert "flat has the fewest bits per frame: 10.00 ± 0.10, in 400 steps" in text
    assert "quicker costs least: 100 steps, 0.1 s" in text and "20.0% more bits" in text
    assert "quick takes hardly more (103 steps) with 10.0% more bits than flat." in text
    assert "quick for 3.9 times fewer steps" in text and "seeds" not in text
    text = report.answer(results_of(quicker, ("flat", 400, 11.9, 0.1)))
    assert "spread of the seeds or the held-out clips, quicker cannot be told from it." in text
    assert "hardly" not in text
    assert report.answer(results_of(quick, quicker)).endswith(
        "Use quick: it takes hardly more steps."
    )
    assert report.answer(results_of(("both", 100, 9, 0.1), flat)).endswith("use it.")
    text = report.answer(results_of(quicker, flat, alike=[("quicker", "flat")]))
    assert "quicker cannot be told from it." in text
    alone = results_of(flat)
    alone["patterns"][0]["bits_per_frame"]["values"] = [10]
    assert report.answer(alone).endswith("10.00, in 400 steps for 100 frames.")


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
    uris = [
        plots.bits_against_steps(row),
        plots.bits_against_steps(row * 9),
        plots.distortion_against_levels([{"level": 1, "si_sdr_db": -3.0, "mel_distance": 1.0}]),
        plots.codebook_use([[5, 0, 0], [0, 0, 0]]),
        plots.mutual_information([[2.0]], [[]]),
        plots.training_curves({"delay": [[0, 3.0]]}),
        plots.training_curves({"codec": [], "delay": [[0, 3.0]]}),
        *spectrograms([np.zeros(4000, np.float32), np.zeros(100, np.float32)], RATE),
    ]
    assert all(uri.startswith("data:image/") and len(uri) > 1000 for uri in uris)


def test_equal_numbers_give_equal_bytes():
    levels = [{"level": k, "si_sdr_db": k, "mel_distance": 1 / k} for k in (1, 2)]
    assert plots.distortion_against_levels(levels) == plots.distortion_against_levels(levels)


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
