"""Tables say what the numbers allow, in the width of a terminal, and names are only text."""

import re
from pathlib import Path

import evaluations
import pytest
from evaluations import codecs, score, tokens
from markdown_it import MarkdownIt

from rvq_jax.errors import printable
from rvq_jax.evaluate import cells, summary, table

ROOT = Path(__file__).parents[2]


def of_two(different: bool, **fields) -> dict:
    """Two systems of which b has the greater mean, and whether that is beyond chance."""
    results = codecs(names=("a", "b"), levels=(1,), baselines=False) | fields
    for system, mean in zip(results["systems"], (1.0, 2.0), strict=True):
        system["scores"] = {"si_sdr": score(mean), "mel": score(mean)}
    names = [system["name"] for system in results["systems"]]
    results["pairs"] = [
        {"metric": m, "a": names[0], "b": names[1], "mean": -1.0, "low": -2.0, "high": -0.1,
         "different": different} for m in ("si_sdr", "mel")
    ]  # fmt: skip
    return results


def test_the_best_is_marked_and_all_that_paired_intervals_cannot_tell_from_it():
    chief = summary.codec_tables(of_two(True))[0]
    assert chief.head[2:] == ["SI-SDR, dB ↑", "mel distance ↓"]
    assert chief.best == {(1, 2), (0, 3)}
    assert summary.codec_tables(of_two(False))[0].best == {(0, 2), (1, 2), (0, 3), (1, 3)}
    alone = codecs(names=("a",), levels=(1,), baselines=False)
    assert not summary.codec_tables(alone)[0].best
    assert "Bold" not in table.markdown(alone) and "*" not in table.table(alone)
    lines = table.table(of_two(True)).splitlines()
    assert [re.findall(r"0\.20( \*)?", line) for line in lines[3:5]] == [["", " *"], [" *", ""]]


def test_a_metric_left_out_has_no_column_but_a_line():
    text = table.table(codecs())
    head = next(line for line in text.splitlines() if line.startswith("system"))
    assert "PESQ" not in head
    assert "PESQ is left out: needs pesq: pip install 'rvq_jax[metrics]'" in text


def test_what_is_undefined_is_a_dash_and_a_line():
    results = codecs(names=("a",), levels=(1,), baselines=False)
    results["systems"][0]["scores"] = {
        "si_sdr": score(None, count=0, undefined=30),
        "mel": score(0.5, None, count=1, undefined=29),
    }
    rows = summary.codec_tables(results)[0].rows
    assert rows == [["a, 1 level", "0.75", "–", "0.500"]]
    text = table.table(results)
    assert "SI-SDR is undefined for up to 30 of 30 files of a system" in text
    assert "mel distance is undefined for up to 29 of 30 files" in text
    assert "nan" not in text.lower() and "None" not in text


@pytest.mark.parametrize("half", [0.0, 0.0004, 0.03, 0.2, 12.0, None])
def test_decimals_are_those_that_intervals_justify(half):
    """The half of an interval shows to two digits, within none and three decimals."""
    text = cells.number(score(3.14159, half))
    mean, *rest = text.split(" ± ")
    assert abs(float(mean) - 3.14159) <= 0.5 * 10.0 ** -len(mean.partition(".")[2])
    assert bool(rest) == (half is not None)
    if half and 0.01 < half < 10:
        assert len(rest[0].replace(".", "").lstrip("0")) == 2


@pytest.mark.parametrize("metrics", [0, 2, 9])
def test_lines_fit_a_terminal_and_every_number_is_there(metrics):
    """More columns than fit follow in a block of their own, each with what its rows are of."""
    results = codecs(names=(*evaluations.EVIL, "mine"))
    extra = [{**evaluations.METRICS[0], "name": f"m{i}", "label": f"Metric {i}"} for i in range(9)]
    results["metrics"] = results["metrics"] + extra[:metrics]
    for system in results["systems"]:
        system["scores"] |= {f"m{i}": score(1000.0 + i, 0.12) for i in range(metrics)}
    text = table.table(results)
    assert max(map(table.width, text.splitlines())) <= table.WIDTH
    assert all(text.count(f"{1000 + i}.00 ± 0.12") == 15 for i in range(metrics))
    heads = [line for line in text.splitlines() if line.startswith("system ")]
    assert all(re.match(r"system +kbps ", head) for head in heads)
    assert len(heads) == -(-(metrics + 2) // 3)
    assert all(line == printable(line) for line in text.splitlines())


def test_columns_stand_below_their_heads_whatever_the_letters():
    """A wide letter takes two columns of a terminal, an accent of its own none."""
    results = codecs(names=("ab", "音声", "e\u0301"), levels=(1,), baselines=False)
    places = [line.index("±") for line in table.table(results).splitlines()[3:6]]
    assert places == [places[0], places[0] - 2, places[0] + 1]


def test_token_models_have_their_tables():
    results = tokens()
    text, markdown = table.table(results), table.markdown(results)
    for said in ("20.00 ± 0.20 *", "0.31", "5.750 ± 0.050", "31.4 ± 3.0", "12.0 ± 1.0", "tempo"):
        assert said in text and said.removesuffix(" *") in markdown
    assert "**20.00 ± 0.20**" in markdown
    results["models"][0]["agreement"] = None
    assert "Agreement" not in table.table(results)


def test_a_bound_is_marked_and_explained():
    """And the bits of semantic tokens have a column of their own."""
    results = tokens(names=("delay", "storm"))
    for each in summary.token_tables(results)[:2]:
        assert "≤" not in f"{each.rows}" and "semantic tokens" not in each.head
    bound = {"bits": "bound", "samples": 8, "standard_error": 0.0123}
    results["models"][1] |= bound | {"bits_of_semantic_tokens": score(2.5, 0.05), "forwards": 1234}
    chief, by_level = summary.token_tables(results)[:2]
    assert [row[3] for row in chief.rows] == ["20.00 ± 0.20", "≤ 19.00 ± 0.20"]
    assert chief.rows[1][4] == "1,234" and 3 not in chief.left and 4 not in chief.left
    said = " ".join(chief.said("Bold"))
    assert "8 random masks" in said and "standard error, 0.012 bits" in said
    assert by_level.head[1] == "semantic tokens"
    assert [row[1] for row in by_level.rows] == ["–", "2.500 ± 0.050"]
    assert by_level.rows[1][2].startswith("≤ 2.750")


def test_listeners_are_in_the_table():
    results = codecs()
    results["listening"] = {
        "abx": [{"a": "mine, 1 level", "b": "Opus 6", "right": 17, "trials": 20, "p": 0.00129,
                 "listeners": 4}],
        "mushra": [{"system": "hidden reference", "mean": 97.25, "low": 96.0, "high": 99.0,
                    "count": 40}],
        "excluded": [{"listener": "b.json", "why": "it is of another evaluation"}],
    }  # fmt: skip
    for text in (table.table(results), table.markdown(results)):
        assert re.search(r"mine, 1 level\W+Opus 6\W+17 of 20\W+4\W+0\.0013", text)
        assert re.search(r"hidden reference\W+97\.2 ± 1\.5\W+40", text)
        assert "Not counted: b.json: it is of another evaluation" in text
    results["listening"]["abx"] = []
    assert "Not counted: b.json" in table.table(results) and "(ABX)" not in table.table(results)


def test_pairs_that_differ_are_named_and_the_others_counted():
    pairs = summary.codec_tables(of_two(True))[2]
    assert pairs.rows[0] == ["SI-SDR", "a, 1 level", "b, 1 level", "-1.00 ± 0.95"]
    assert pairs.notes[-1] == "Of 2 pairs 0 cannot be told apart."
    assert "differ" not in table.markdown(of_two(True))


def test_names_are_only_text_in_markdown():
    results = codecs(names=evaluations.EVIL)
    results["command"] = results["data"]["folder"] = evaluations.EVIL[1]
    found = (
        MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(table.markdown(results))
    )
    inline = [token for token in found if token.type == "inline"]
    kinds = {child.type for token in inline for child in token.children}
    assert kinds <= {"text", "text_special", "strong_open", "strong_close"}
    assert not [token for token in found if token.type in ("html_block", "code_block", "fence")]
    said = ["".join(child.content for child in token.children) for token in inline]
    assert all(f"{name}, 4 levels" in said for name in evaluations.EVIL)
    assert f"Command: {evaluations.EVIL[1]}" in said


@pytest.mark.parametrize("style", [".2f", ".0f", ".1%", ".2g"])
def test_one_seed_has_no_spread(style):
    """Whatever a table says of it: that of one number is 0, or not a number."""
    for std in (None, 0.0, float("nan"), 1.0):
        assert cells.spread(std, 1, style) == cells.spread(None, 3, style) == ""
    assert cells.spread(0.5, 2, style) == f" ± {0.5:{style}}"
    alone = {"mean": 1.0, "low": None, "high": None}  # an interval of one file
    assert cells.number(alone) == "1.00" and cells.column([alone, None]) == ["1.00", "–"]


def test_a_spread_is_written_in_one_place():
    """No other table of the library, or of an experiment, formats a ± of its own."""
    sources = [path for part in ("rvq_jax", "experiments") for path in (ROOT / part).rglob("*.py")]
    own = [path.name for path in sources if re.search(r"± ?\{|\+/-", path.read_text())]
    assert own == ["cells.py"]
