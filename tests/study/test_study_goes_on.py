"""What a study keeps of itself: damaged it is made again, and stops nothing."""

import json
import os

import pytest
import soundfile
from command import RATE, run, tone

from rvq_jax.data import builder
from rvq_jax.study import models, quickstart

DAMAGED = (b"", b"{", b"[" * 100_000, b"\xff", b"null", b'"x"', b"[]", b"{}", b"1e999", b"1" * 5000)
SCORE = {"train_seconds": 1.5, "bits_by_clip": [[2.0, 3.0]]}
SCORES = (SCORE | {"bits_by_clip": [[1.0]]}, SCORE | {"bits_by_clip": 3}, {"train_seconds": 1.5})
SCORES += (SCORE | {"bits_by_clip": [[None, 1]]}, SCORE | {"train_seconds": "long"})
SCORES += (
    SCORE | {"bits_by_clip": [[1.0], [1.0, 2.0]]},
    {"train_seconds": 1, "bits_by_level": [2]},
)


@pytest.mark.parametrize("data", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_note_of_time_counts_for_nothing(tmp_path, data):
    (tmp_path / "wall.json").write_bytes(data)
    assert 0 <= quickstart._stopwatch(tmp_path)() < 60
    (tmp_path / "wall.json").write_text("100.0")
    assert 100 <= quickstart._stopwatch(tmp_path)() < 160


@pytest.mark.parametrize("data", [*DAMAGED, *(json.dumps(x).encode() for x in SCORES)], ids=len)
def test_damaged_scores_are_made_again(tmp_path, data):
    (tmp_path / "scores.json").write_bytes(data)
    assert models._score_of(tmp_path / "scores.json", (1, 2)) is None
    (tmp_path / "scores.json").write_text(json.dumps(SCORE))
    assert models._score_of(tmp_path / "scores.json", (1, 2)) == SCORE


@pytest.mark.parametrize("name", ["\udcff.wav", "\udcff/a.wav", "a\udc80b.wav"], ids=repr)
def test_a_clip_whose_name_is_no_text_is_kept_under_its_escapes(capsys, tmp_path, name):
    for one in ("a.wav", "b.wav", name):
        (tmp_path / "in" / one).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "in" / "made.wav", tone(), RATE)
        (tmp_path / "in" / "made.wav").rename(tmp_path / "in" / one)
    words = ["data", "build", tmp_path / "in", "--out", tmp_path / "out"]
    assert run(capsys, *words)[0] == 0
    splits = [builder.open_split(tmp_path / "out", split) for split in ("train", "heldout")]
    names = [record["name"] for split in splits for record in split]
    assert os.fsencode(name).decode(errors="backslashreplace") + "#0" in names
