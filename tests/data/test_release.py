"""A codec takes the built-in one's place only where an evaluation says that it is better."""

import sys
from pathlib import Path

import pytest
from refusals import refused

sys.path.append(str(Path(__file__).parents[2] / "experiments" / "codec"))

import release
import sections


def results(signal: str, mine: float, *, different: bool = True, families=("builtin", "mine")):
    """An evaluation in which every metric of the built-in codec is 2, and of the other `mine`."""
    metrics = [{"name": n, "better": "less" if n == "mel" else "more"} for n in sorted(NAMES)]
    systems, pairs = [], []
    for family, value in zip(families, (2.0, mine)[-len(families) :], strict=True):
        for levels in release.LEVELS:
            name, scores = f"{family}, {levels}", {n: {"mean": value} for n in NAMES}
            systems.append({"name": name, "family": family, "levels": levels, "scores": scores})
    for levels in release.LEVELS:
        a, b = (f"{family}, {levels}" for family in ("mine", "builtin"))
        pairs += [{"metric": n, "a": a, "b": b, "different": different} for n in NAMES]
    return {"data": {"signal": signal}, "metrics": metrics, "systems": systems, "pairs": pairs}


NAMES = {name for metrics in release.JUDGED.values() for name in metrics}


@pytest.mark.parametrize(
    ("signal", "mine", "different", "taken"),
    [
        ("music", 3.0, True, False),  # ViSQOL better, mel distance worse
        ("music", 2.0, False, False),  # no difference is no reason
        ("music", 3.0, False, False),
    ],
)
def test_what_is_worse_in_one_metric_or_within_the_intervals_takes_no_place(
    signal, mine, different, taken
):
    found = release.verdicts(results(signal, mine, different=different), "mine")
    assert release.takes(found) is taken


def test_better_beyond_the_intervals_takes_the_place(monkeypatch):
    """Of a metric that wants less, less is better; and the first of all needs no other."""
    monkeypatch.setattr(release, "JUDGED", {"speech": ("pesq",), "music": ("mel",)})
    better = release.verdicts(results("speech", 2.5), "mine")
    assert release.takes(better) and release.takes(
        better + release.verdicts(results("music", 1.5), "mine")
    )
    assert not release.takes(better + release.verdicts(results("music", 2.5), "mine"))
    first = release.verdicts(results("speech", 1.0, families=("mine",)), "mine")
    assert release.takes(first) and "before" not in first[0]
    refused(lambda: release.verdicts(results("speech", 2.5), "other"), "lack 8 levels of other")


def test_a_section_of_the_results_is_written_in_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "RESULTS", tmp_path / "RESULTS.md")
    for name, text in (("a", "# A"), ("b", "# B"), ("a", "# A again")):
        sections.write(name, text)
    found = (tmp_path / "RESULTS.md").read_text()
    assert found.index("# A again") < found.index("# B") and found.count("# A") == 1
