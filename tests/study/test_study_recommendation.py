"""What a study recommends, and when it does not; its commands run as they stand."""

import shlex

import pytest
from studies import NAMES, make_results, results_of

from rvq_jax.cli.evaluate import Evaluate
from rvq_jax.cli.generate import Generate
from rvq_jax.cli.quickstart import Quickstart
from rvq_jax.cli.terminal import parse
from rvq_jax.study import recommendation, report
from rvq_jax.study.next_steps import next_steps
from rvq_jax.study.recommendation import answer

FLAT, QUICK, QUICKER = (
    ("flat", 400, 10, 0.1),
    ("quick", 103, 11, 0.1),
    ("quicker", 100, 12, 0.1),
)


def test_answer_follows_the_numbers():
    """Each clause appears exactly when the numbers call for it."""
    text = answer(results_of(QUICKER, FLAT, QUICK))
    assert "flat has the fewest bits per frame: 10.00 ± 0.10, in 400 steps" in text
    assert "quicker costs least: 100 steps, 0.1 s" in text and "20.0% more bits" in text
    assert "quick takes hardly more (103 steps) with 10.0% more bits than flat." in text
    assert "quick for 3.9 times fewer steps" in text and "seeds" not in text
    assert answer(results_of(QUICK, QUICKER)).endswith("Use quick: it takes hardly more steps.")
    assert answer(results_of(("both", 100, 9, 0.1), FLAT)).endswith("fewest steps.")
    alone = results_of(FLAT)
    alone["patterns"][0]["bits_per_frame"]["values"] = [10]
    assert answer(alone).endswith("10.00, in 400 steps for 100 frames.")


@pytest.mark.parametrize("alike", [[("quicker", "flat")], [("quicker", "flat"), ("quick", "flat")]])
def test_nothing_is_recommended_that_clips_cannot_tell(alike):
    """Then what costs least is said, and no pattern is the one to use."""
    text = answer(results_of(QUICKER, QUICK, FLAT, alike=alike))
    assert "cannot be told from it; quicker is the cheapest of them: 100 steps." in text
    assert "Use" not in text and "trade-off" not in text
    assert recommendation.heard(results_of(QUICKER, QUICK, FLAT, alike=alike)) == "quicker"


def test_nor_that_seeds_cannot_tell():
    text = answer(results_of(QUICKER, ("flat", 400, 11.9, 0.1)))
    assert "spread of the seeds or the held-out clips, quicker cannot be told from it;" in text
    assert "hardly" not in text and "Use" not in text


def test_nor_where_clips_were_not_compared():
    for pairs in ({}, {"pairs": []}):
        results = results_of(QUICKER, QUICK) | pairs
        if not pairs:
            del results["pairs"]
        text = answer(results)
        assert "None is recommended" in text and "Use" not in text


def test_a_middle_that_is_as_good_is_the_trade_off():
    """Two that cannot be told apart, and a third that costs less and has more bits."""
    middle = ("middle", 200, 10.05, 0.01)
    text = answer(results_of(("flat", 400, 10, 0.01), middle, QUICKER, alike=[("flat", "middle")]))
    assert "middle is the cheapest of them: 200 steps." in text
    assert "middle for likelihood, quicker for 2.0 times fewer steps" in text


@pytest.mark.parametrize(
    ("spoiled", "say"),
    [({"perplexity": 1.3}, "level 1 has a perplexity of 1.3"), ({"si_sdr_db": -31.0}, "-31 dB")],
)
def test_a_collapsed_codec_recommends_nothing(spoiled, say):
    results = results_of(QUICK, QUICKER)
    assert recommendation.collapse(results) is None
    results["codec"]["levels"][0] |= spoiled
    text = answer(results)
    assert "No pattern is recommended: the codec has collapsed" in text and say in text
    assert "Use" not in text and text.count("collapsed") == 1
    assert recommendation.heard(results) is None


def test_one_seed_has_no_spread(tmp_path):
    results = make_results(tmp_path)
    assert "±" in report.markdown(results).replace("± is", "")
    results["seeds"] = [0]
    for row in results["patterns"]:
        row["bits_per_frame"] |= {"std": 0.0, "values": row["bits_per_frame"]["values"][:1]}
    assert "±" not in report.markdown(results).replace("± is", "")


def test_commands_are_of_the_run_and_are_read_by_what_they_call(tmp_path):
    """Their models are there, their flags too, and each study has a folder of its own."""
    results = make_results(tmp_path)
    place = tmp_path / "my run"
    results["command"] = f"rvq-jax quickstart --out '{place}' --seeds 3 --top_k 7 --model.batch=4"
    results["seeds"] = [3]
    for model in (None, NAMES[0]):  # a model that is not there is not spoken of
        commands = [shlex.split(command) for _, command in next_steps(place, results, model)]
        assert {words[1] for words in commands} == {"quickstart"}
    model = place / "models" / f"pattern={NAMES[0]},seed=3"
    (model / "model").mkdir(parents=True)
    commands = [shlex.split(command) for _, command in next_steps(place, results, NAMES[0])]
    assert [words[1] for words in commands] == ["generate", "evaluate"] + ["quickstart"] * 3
    for kind, words in zip((Generate, Evaluate), commands, strict=False):
        parsed = parse(kind, words[2:], words[1])
        assert f"{model}" in (f"{getattr(parsed, 'model', '')}", *getattr(parsed, "models", ()))
        assert getattr(parsed, "prompt", ("a slow piano",)) == ("a slow piano",)
    studies = [parse(Quickstart, words[2:], "quickstart") for words in commands[2:]]
    assert len({study.out for study in studies} | {place}) == 4
    assert {study.config.top_k for study in studies} == {7}
    assert studies[0].config.seeds == (0, 1, 2) and studies[1].config.seeds == (3,)
    assert studies[1].config.model.loop.steps == 10 * results["patterns"][0]["updates"]


@pytest.mark.parametrize("command", ["python run.py", "rvq-jax quickstart 'x", ""])
def test_what_was_asked_otherwise_has_no_such_commands(tmp_path, command):
    results = make_results(tmp_path) | {"command": command}
    assert next_steps(tmp_path, results, NAMES[0]) == []
