"""Runs as their folders tell of them, whoever wrote those: clips, logs, and what is none."""

import json

import numpy as np
import pytest
import soundfile
from command import refuses, run

from rvq_jax.evaluate import runs


def clips(place, *steps) -> None:
    for step in steps:
        (place / "samples" / f"{step}").mkdir(parents=True)
        soundfile.write(place / "samples" / f"{step}" / "0.flac", np.zeros(80), 8000)
    (place / "samples" / "labels.json").write_text('["one"]')


def test_the_newest_clips_of_runs_stand_side_by_side(tmp_path):
    places = {name: tmp_path / name for name in ("a", "b")}
    for place in places.values():
        clips(place, "9999999", "10000000")
    clips(places["a"], "original")
    found = runs.players([runs.RunLog(n, p, [], {}) for n, p in places.items()], 4)
    assert found == [
        {
            "file": "one",
            "original": f"{tmp_path}/a/samples/original/0.flac",
            "systems": {n: f"{p}/samples/10000000/0.flac" for n, p in places.items()},
        }
    ]


def a_link_out(place) -> None:
    (place / "samples" / "2" / "0.flac").rename(place.parent / "private.flac")
    (place / "samples" / "2" / "0.flac").symlink_to(place.parent / "private.flac")


def half_a_clip(place) -> None:
    (place / "samples" / "2" / "0.flac").write_bytes(b"fLaC")


def labels(text: str):
    return lambda place: (place / "samples" / "labels.json").write_text(text)


@pytest.mark.parametrize(
    "spoil",
    [
        a_link_out,
        half_a_clip,
        labels("5"),
        labels("[{}]"),
        labels("[[1]]"),
        labels("{"),
        labels(""),
    ],
)
def test_clips_that_are_none_are_not_played(tmp_path, spoil):
    clips(tmp_path / "run", "2")
    spoil(tmp_path / "run")
    assert runs.players([runs.RunLog("run", tmp_path / "run", [], {})], 4) == []


@pytest.mark.parametrize(
    "line",
    [
        '{"heldout": 5}',
        '{"heldout": {"loss": "x"}, "examples_per_second": "x"}',
        '{"memory_gb": null, "device": 7, "loss": true}',
        f'{{"loss": {"9" * 400}}}',
        '{"loss": 1e308, "heldout": {"loss": -1e308, "by": [1]}}',
        "{}",
    ],
)
def test_a_log_may_hold_anything(tmp_path, capsys, line):
    """Of others, or damaged: what is no number is not shown."""
    place = tmp_path / "run"
    place.mkdir()
    fields = json.loads(line)
    rows = [json.dumps({"step": i, "seconds": float(i), **fields}) for i in (1, 2)]
    (place / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    (place / "config.json").write_text("{}")
    code, _out, said = run(capsys, "compare", place, "--out", tmp_path / "x.html")
    assert code == 0, said
    (place / "config.json").write_text("[1, 2]")
    refuses(capsys, "compare", place, "--out", tmp_path / "x.html", say=("config.json",))


@pytest.mark.parametrize(("name", "say"), [("nowhere", "is no run"), ("empty", "no update yet")])
def test_what_is_no_run_is_told(tmp_path, capsys, name, say):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "metrics.jsonl").write_text("")
    refuses(capsys, "compare", tmp_path / name, "--out", tmp_path / "x.html", say=(say,))
    assert not (tmp_path / "x.html").exists()
