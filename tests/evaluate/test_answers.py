"""Answers are counted by system; what cannot be an answer is left out by name."""

import json

import listeners
import numpy as np
import pytest
from evaluations import add_sounds, codecs
from listeners import saved
from scipy import special

from rvq_jax.errors import UserError
from rvq_jax.evaluate import answers, listening, stimuli


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One codec point and one baseline, seven clips: trials are of two pairs."""
    place = tmp_path_factory.mktemp("evaluation")
    results = codecs(names=("mine",), levels=(1,))
    results["systems"] = [s for s in results["systems"] if s["kind"] != "mp3"][:2]
    files = tuple(f"{i}.flac" for i in range(7))
    listening.write(place, add_sounds(place, results, files, seconds=0.05))
    return place


def score(name: str, clip: int = 0) -> int:
    return {stimuli.REFERENCE: 100, stimuli.ANCHOR: 20, "Opus 6": 80}.get(name, 60)


def by_pair(found: dict) -> dict:
    return {(row["a"], row["b"]): row for row in found["abx"]}


def test_abx_counts_the_right_by_pair_over_listeners(folder, tmp_path):
    """p is the upper tail of the binomial, summed here by hand."""
    pairs = [tuple(t["pair"]) for t in listeners.key(folder)["trials"].values()]
    against = ("mine, 1 level", "Opus 6")
    one = listeners.abx(folder, lambda i: pairs[i] == against, "1")
    two = listeners.abx(folder, lambda i: i % 2 == 0, "2")
    found = answers.read(saved(tmp_path, one, two), folder)
    assert found["mushra"] == [] and found["excluded"] == []
    assert set(by_pair(found)) == {against, ("mine, 1 level", "original")}
    for pair, row in by_pair(found).items():
        hits = [i % 2 == 0 for i, other in enumerate(pairs) if other == pair]
        right = sum(hits) + (len(hits) if pair == against else 0)
        n = 2 * len(hits)
        assert (row["right"], row["trials"], row["listeners"]) == (right, n, 2)
        tail = sum(special.comb(n, k, exact=True) for k in range(right, n + 1)) / 2**n
        assert row["p"] == pytest.approx(tail)


def test_mushra_has_means_best_first_and_the_wider_of_two_intervals(folder, tmp_path):
    """Listeners who differ widen it, as do clips that differ: a score is no sample of its own."""
    rng = np.random.default_rng(0)
    taste = rng.normal(0, 8, 12)
    files = [
        listeners.mushra(folder, lambda n, c, t=t: score(n, c) - (n == "Opus 6") * (10 + t), f"{i}")
        for i, t in enumerate(taste)
    ]
    found = answers.read(saved(tmp_path, *files), folder)["mushra"]
    names = ["hidden reference", "Opus 6", "mine, 1 level", stimuli.ANCHOR]
    assert [row["system"] for row in found] == names
    assert [row["count"] for row in found] == [12 * 7] * 4
    rows = dict(zip(names, found, strict=True))
    mine = rows["mine, 1 level"]
    assert [mine[x] for x in ("mean", "low", "high", "count")] == [60.0, 60.0, 60.0, 84]
    opus = rows["Opus 6"]
    assert opus["mean"] == pytest.approx(70 - taste.mean())
    spread = taste.std() / np.sqrt(12)  # of a mean over listeners; over all scores a third
    assert 1.4 * spread < (opus["high"] - opus["low"]) / 2 < 2.6 * spread
    hard = listeners.mushra(folder, lambda n, c: score(n) - (n == "Opus 6") * 5 * c, "alone")
    alone = answers.read(saved(tmp_path, hard), folder)["mushra"][1]
    assert alone["mean"] == 65 and alone["low"] < 62 and alone["high"] > 68


def test_one_score_has_no_interval(folder, tmp_path):
    found = listeners.mushra(folder, score)
    found["answers"] = found["answers"][:1]
    row = answers.read(saved(tmp_path, found), folder)["mushra"][0]
    assert (row["low"], row["high"], row["count"]) == (None, None, 1)


@pytest.mark.parametrize(("low", "counted"), [(0, True), (1, True), (2, False)])
def test_who_misses_the_hidden_reference_too_often_is_left_out(folder, tmp_path, low, counted):
    """In more than 15 % of the clips: one of seven is less, two are more; 90 itself will do."""

    def judge(name: str, clip: int) -> int:
        if name == stimuli.REFERENCE:
            return 89 if clip < low else 90
        return score(name)

    careless = listeners.mushra(folder, judge, "1", name="Ann\x1b[2J")
    found = answers.read(saved(tmp_path, careless, listeners.mushra(folder, score, "2")), folder)
    assert found["mushra"][0]["count"] == (14 if counted else 7)
    if counted:
        assert found["excluded"] == []
    else:
        (row,) = found["excluded"]
        assert row["listener"] == "Ann\\x1b[2J"
        assert row["why"].startswith("gave the hidden reference less than 90 in 29 % of the clips")


def test_a_file_given_twice_counts_once(folder, tmp_path):
    """Also of screened listeners; a listener's answers to the other page are others."""
    one = listeners.abx(folder, lambda i: True, "1")
    both = listeners.mushra(folder, score, "1")
    found = answers.read(saved(tmp_path, one, both, one), folder)
    assert {row["trials"] for row in found["abx"]} == {7} and found["mushra"][0]["count"] == 7
    (row,) = found["excluded"]
    assert row["listener"] == "2.json" and "0.json" in row["why"] and "once" in row["why"]


def spoiled(folder):
    """Files that are no answers of this evaluation, by what is wrong with them."""
    good = json.dumps(listeners.mushra(folder, score))
    abx = json.dumps(listeners.abx(folder, lambda i: True))

    def other(text=good, **fields):
        return json.dumps(json.loads(text) | fields)

    def changed(text, change):
        found = json.loads(text)
        change(found["answers"][0])
        return json.dumps(found)

    def rate(value):
        return changed(good, lambda a: a["scores"].update({next(iter(a["scores"])): value}))

    return {
        "of another evaluation": other(evaluation="0123456789ab"),
        "there is no test": other(test="mos"),
        "no answers": other(answers=[]),
        "twice": other(answers=json.loads(good)["answers"] * 2),
        "0..100, not 101": rate(101),
        "0..100, not -1": rate(-1),
        "0..100, not nan": rate(float("nan")),
        "0..100, not True": rate(True),
        "0..100, not '90'": rate("90"),
        "no score of a sound": changed(good, lambda a: a["scores"].popitem()),
        "a clip that is not there": changed(good, lambda a: a.update(clip="x")),
        "a trial that is not there": changed(abx, lambda a: a.update(trial="x")),
        "not of its trial": changed(abx, lambda a: a.update(x="x")),
        "a name is no text": other(listener=None),
        "Unterminated": good[:50],
        "'answers'": json.dumps({k: v for k, v in json.loads(good).items() if k != "answers"}),
        "list indices": "[1, 2]",
    }


def test_what_cannot_be_an_answer_is_left_out_by_name_and_the_rest_counts(folder, tmp_path):
    wrong = spoiled(folder)
    paths = saved(tmp_path, listeners.mushra(folder, score, "good"), *wrong)
    for path, text in zip(paths[1:], wrong.values(), strict=True):
        path.write_text(text)
    found = answers.read([*paths, tmp_path / "absent.json", tmp_path], folder)
    assert found["mushra"][0]["count"] == 7 and found["abx"] == []
    *rows, absent, no_file = found["excluded"]
    assert [row["listener"] for row in rows] == [path.name for path in paths[1:]]
    for row, why in zip(rows, wrong, strict=True):
        assert why in row["why"] and len(row["why"]) < 300
    assert "No such file" in absent["why"] and "directory" in no_file["why"]


def test_no_file_that_counts_is_an_error_and_no_file_at_all_is_not(folder, tmp_path):
    (path,) = saved(tmp_path, {"test": "abx"})
    with pytest.raises(UserError, match=r"no answers can be counted; 0\.json: .*cannot be read"):
        answers.read([path], folder)
    assert answers.read([], folder) == {"abx": [], "mushra": [], "excluded": []}


def test_a_missing_or_damaged_key_is_told(folder, tmp_path):
    with pytest.raises(UserError, match=r"listening\.json cannot be read"):
        answers.read([], tmp_path)
    key = listeners.key(folder)
    for field in ("evaluation", "clips", "sounds", "trials"):
        (tmp_path / "listening.json").write_text(json.dumps(key | {field: [1]}))
        with pytest.raises(UserError, match=r"listening\.json cannot be read"):
            answers.read([], tmp_path)
