"""Whose folder it is: a run goes on with its own config, data and model, and alone."""

import dataclasses
import json
import os

import numpy as np
import pytest
from small_runs import LM, RECORDS, RUN, TUNING, code_set, point_task, points

from rvq_jax import config as configs
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.errors import UserError
from rvq_jax.train import guards, runs
from rvq_jax.train.checkpoint import Checkpoints
from rvq_jax.train.loop import LoopConfig, fit, open_run
from rvq_jax.train.runs import LMRun


def test_a_run_folder_belongs_to_one_config(tmp_path):
    """The same config opens it again; another is refused with the fields that differ."""
    open_run(tmp_path, configs.to_dict(RUN))
    before = (tmp_path / "config.json").read_bytes()
    open_run(tmp_path, configs.to_dict(RUN))
    others = {
        "lm.layers: 1 there, 3 here": dataclasses.replace(
            RUN, lm=dataclasses.replace(LM, layers=3)
        ),
        "loop.seed: 0 there, 1 here": dataclasses.replace(
            RUN, loop=dataclasses.replace(RUN.loop, seed=1)
        ),
        "pattern: delay there, flatten here": dataclasses.replace(RUN, pattern="flatten"),
    }
    for words, other in others.items():
        with pytest.raises(UserError) as caught:
            open_run(tmp_path, configs.to_dict(other))
        assert words in str(caught.value) and "\n" not in str(caught.value)
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "\x00"])
def test_a_damaged_config_is_told(tmp_path, text):
    """Anything but an object of fields is refused and named."""
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError) as caught:
        open_run(tmp_path, {"a": 1})
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_config_comes_back_from_its_dict():
    """Through JSON, nested, with tuples as lists in between."""
    again = configs.from_dict(LMRun, json.loads(json.dumps(configs.to_dict(RUN))), "here")
    assert again == RUN
    seanet = SEANetConfig(ratios=(4, 2))
    data = json.loads(json.dumps(configs.to_dict(seanet)))
    assert configs.from_dict(SEANetConfig, data, "here") == seanet
    with pytest.raises(UserError, match=r"here: lm: unknown field 'layerz', .*'layers'"):
        configs.from_dict(LMRun, {"lm": {"layerz": 1}}, "here")


def test_data_that_changed_are_refused_with_the_difference(tmp_path):
    config = LoopConfig(steps=2, checkpoint_every=1)
    before = {"records": 8, "contents": "ab"}
    fit(tmp_path, point_task(), points(RECORDS), config, TUNING, dataset=before)
    for now, words in (
        ({"records": 7, "contents": "cd"}, "contents: ab there, cd here; records: 8 there, 7 here"),
        ({"records": 8, "contents": "cd"}, r"changed \(contents: ab there, cd here\)"),
    ):
        with pytest.raises(UserError, match=words):
            fit(tmp_path, point_task(), points(RECORDS), config, TUNING, dataset=now)


def test_codes_are_told_apart():
    """A code, a name, a caption, an order, a record less: each is other data."""
    one = code_set()
    conditions = [one.describe()]
    codes = [x.copy() for x in one.codes]
    codes[3][1, 2] += 1
    conditions.append(dataclasses.replace(one, codes=codes).describe())
    conditions.append(dataclasses.replace(one, codes=one.codes[::-1]).describe())
    conditions.append(dataclasses.replace(one, captions=["other", *one.captions[1:]]).describe())
    conditions.append(dataclasses.replace(one, names=["other", *one.names[1:]]).describe())
    conditions.append(code_set(8).describe())
    assert code_set().describe() == conditions[0] and len({str(x) for x in conditions}) == len(
        conditions
    )
    assert conditions[0]["records"] == 9 and conditions[-1]["records"] == 8


def test_codes_that_do_not_fit_the_model_are_told(tmp_path):
    run = dataclasses.replace(RUN, lm=dataclasses.replace(LM, levels=3))
    with pytest.raises(UserError, match="2 levels of 7, the model 3 of 7"):
        runs.train_lm(tmp_path, code_set(), run)


def test_checkpoints_of_another_model_are_told(tmp_path):
    """Orbax's own message has many lines; ours is one that names the folder."""
    config = LoopConfig(steps=2)
    fit(tmp_path, point_task(), points(RECORDS), config, TUNING)
    wide = np.ones((8, 5), np.float32)
    with pytest.raises(UserError, match="another model") as caught:
        fit(tmp_path, point_task(5), points(wide), config, TUNING)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_two_runs_in_one_folder_are_refused(tmp_path):
    """The second is told who is at work; after the first the folder is free."""
    with (
        guards.alone(tmp_path),
        pytest.raises(UserError, match=rf"another run .*process {os.getpid()} on"),
        guards.alone(tmp_path),
    ):
        pass
    with guards.alone(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    """A file where the folder should be: every place a run writes to raises the user's error."""
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError):
            open_run(folder, {})
        with pytest.raises(UserError):
            Checkpoints(folder / "checkpoints")
