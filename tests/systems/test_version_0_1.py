"""What version 0.1 wrote: its folders are read under today's names, its runs are refused.

The fixture was written by the last commit that had the old names.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

import rvq_jax as rj
from rvq_jax import config as configs
from rvq_jax.lm.model import LMConfig
from rvq_jax.train.loop import open_run

FOLDER = Path(__file__).parents[1] / "fixtures" / "v0_1"


def test_a_folder_of_0_1_computes_what_it_did():
    """A MusicGen of our own format with its codec: the same codes and bits as then."""
    model = rj.MusicGen.load(FOLDER / "musicgen")
    assert (model.config.codebook_size, model.config.mlp_dim) == (11, 12)
    absent = "text_dim", "melody_bins", "window"
    assert [getattr(model.config, name) for name in absent] == [None] * 3
    with np.load(FOLDER / "expected.npz") as expected:
        assert np.array_equal(model.codec.encode(expected["audio"]).codes, expected["codes"])
        bits = model.score(expected["codes"], ["ab"], guidance_scale=2.0)
        np.testing.assert_allclose(bits, expected["bits"], atol=1e-5, rtol=0)


def test_a_folder_of_0_1_is_written_under_todays_names(tmp_path):
    rj.MusicGen.load(FOLDER / "musicgen").save(tmp_path / "again")
    fields = json.loads((tmp_path / "again" / "config.json").read_text())
    assert not {"size", "hidden", "melody"} & fields.keys() and fields["codebook_size"] == 11
    assert rj.MusicGen.load(tmp_path / "again").config.window is None


def test_a_name_that_no_version_had_is_still_refused():
    refused(
        lambda: configs.from_dict(LMConfig, {"mlp_dm": 3}, "config.json"), "'mlp_dm'", "'mlp_dim'"
    )


@pytest.mark.parametrize("kind", ["lm", "codec"])
def test_a_run_of_0_1_is_refused_in_one_line(kind, tmp_path):
    """Its checkpoints hold a state of other parts."""
    old = json.loads((FOLDER / f"{kind}_run" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(old))
    refused(lambda: open_run(tmp_path, {"lm": {}}), f"{tmp_path} is a run of rvq_jax 0.1", "--out")
