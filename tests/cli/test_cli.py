"""The command line: a mistake is one line and exit code 2, and leaves nothing half-written."""

from pathlib import Path

import numpy as np
import pytest
from command import good, refuses, run

from rvq_jax import cli, files
from rvq_jax.cli.terminal import flags
from rvq_jax.data.codes import CodeSet

# Words that are not known.


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (["quickstrat"], ["'quickstrat'", "did you mean 'quickstart'"]),
        (["zzzzzz"], ["'zzzzzz'", "quickstart", "data build", "train", "generate"]),
        (["quickstart", "--model.lm.layerss", "6"], ["--model.lm.layerss", "'--model.lm.layers'"]),
        (["quickstart", "--model.lm.layerss=6"], ["--model.lm.layerss", "'--model.lm.layers'"]),
        (["quickstart", "--codec.loop.step", "6"], ["'--codec.loop.steps'"]),
        (["quickstart", "--seedz", "1"], ["'--seeds'"]),
        (["quickstart", "--model.condition-droput.all", "1"], ["'--model.condition-dropout.all'"]),
        (["data"], ["did you mean 'data build'"]),
        (["data", "build", "--chanels", "2"], ["'--channels'"]),
        (["generate", "--model", "m", "--prompt", "p", "--out", "o.wav", "--topk", "2"], ["top-k"]),
        (["data", "build", "one", "two"], ["two"]),
    ],
    ids=lambda value: " ".join(value[:3]),
)
def test_an_unknown_word_is_told_with_the_nearest_known(capsys, words, say):
    """The parser's own errors are boxes of many lines; a typo deserves one with the answer."""
    refuses(capsys, *words, say=say)


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (["data", "build", "--rate", "fast"], ["--rate", "fast"]),
        (["quickstart", "--model.lm.layers", "many"], ["--model.lm.layers", "many"]),
        (["quickstart", "--clips"], ["--clips"]),
        (["generate", "--prompt", "p", "--out", "o.wav"], ["--model"]),
        (["train"], ["config"]),
        (["data", "build", "--json", "maybe", "more"], ["more"]),
    ],
    ids=lambda value: " ".join(value[:3]),
)
def test_a_missing_or_impossible_value_is_told_in_one_line(capsys, words, say):
    refuses(capsys, *words, say=say)


def test_fields_of_a_config_are_not_called_unknown_where_data_is_missing(capsys):
    words = ["train", "c.py", "--loop.steps", "3", "--out", "o"]
    assert "--loop.steps" not in refuses(capsys, *words, say="--data")


def test_an_unknown_pattern_is_told_with_the_nearest(capsys, tmp_path):
    """Before anything is built."""
    out = tmp_path / "out"
    words = ["quickstart", "--patterns", "delay", "flaten", "--out", out]
    refuses(capsys, *words, say=("'flaten'", "'flatten'"))
    assert not out.exists()


def test_a_study_whose_halves_do_not_fit_is_told(capsys, tmp_path):
    words = ["quickstart", "--model.lm.levels", "3", "--out", tmp_path / "out"]
    refuses(capsys, *words, say=("model.lm.levels is 3", "the codec's is 4"))
    assert not (tmp_path / "out").exists()


# Places that cannot be written to, or belong to another.


@pytest.fixture
def no_folder(tmp_path):
    """A place under a file, where nobody, not even root, can make a folder."""
    (tmp_path / "file").write_text("kept")
    yield tmp_path / "file" / "out"
    assert (tmp_path / "file").read_text() == "kept"


CONFIG = """
from rvq_jax.lm.model import LMConfig
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import LMRun

def get_config():
    lm = LMConfig(levels=2, codebook_size=7, dim=16, layers=1, heads=2, mlp_dim=32, caption_bytes=8)
    return LMRun(lm=lm, loop=LoopConfig(steps=2), batch=2, frames=4)
"""


@pytest.fixture
def codes(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 7, (2, 9)).astype(np.int32) for _ in range(3)]
    texts = ["a", "b", "c"], ["", "", ""], ["", "", ""], 50.0, 7
    CodeSet(rows, *texts).save(tmp_path / "codes.npz")
    CodeSet([x[::-1] for x in rows], *texts).save(tmp_path / "heldout.npz")
    return tmp_path / "codes.npz"


@pytest.fixture
def config(tmp_path) -> Path:
    (tmp_path / "config.py").write_text(CONFIG)
    return tmp_path / "config.py"


def test_a_place_that_cannot_be_written_to_is_told(capsys, tmp_path, no_folder, codes, config):
    folder = good(tmp_path / "in")
    refuses(capsys, "data", "build", folder, "--out", no_folder, say=("cannot write", no_folder))
    refuses(capsys, "quickstart", "--data", folder, "--out", no_folder, say=("cannot write",))
    words = ["train", config, "--data", codes, "--out", no_folder]
    refuses(capsys, *words, say=("cannot write", no_folder))


def test_a_place_that_is_a_file_is_told(capsys, tmp_path, codes, config):
    folder, out = good(tmp_path / "in"), tmp_path / "out"
    out.write_text("kept")
    refuses(capsys, "data", "build", folder, "--out", out, say=(out,))
    refuses(capsys, "quickstart", "--data", folder, "--out", out, say=(out,))
    refuses(capsys, "train", config, "--data", codes, "--out", out, say=(out,))
    assert out.read_text() == "kept"


def test_a_folder_of_something_else_is_not_overwritten(capsys, tmp_path):
    folder, out = good(tmp_path / "in"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("kept")
    refuses(capsys, "data", "build", folder, "--out", out, say=(out, "no dataset"))
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_a_run_of_another_config_is_told(capsys, tmp_path, codes, config):
    """Which field differs, and both values; the folder stays as it was."""
    out = tmp_path / "out"
    files.write_json(out / "config.json", {"pattern": "flatten"})
    before = (out / "config.json").read_bytes()
    words = ["train", config, "--data", codes, "--out", out]
    refuses(capsys, *words, say=("another config", "batch: None there, 2 here"))
    refuses(capsys, "quickstart", "--out", out, say=("another config",))
    assert (out / "config.json").read_bytes() == before
    assert [path.name for path in out.iterdir()] == ["config.json"]


# The other inputs of train and generate.


def test_fields_of_a_config_file_are_flags_with_the_nearest_known(capsys, tmp_path, codes, config):
    words = ["train", config, "--data", codes, "--out", tmp_path / "out"]
    line = refuses(capsys, *words, "--loop.stepz", "3", say=("'--loop.steps'", "--loop.stepz"))
    assert "train" in line or "--loop.stepz" in line
    refuses(capsys, *words, "--lm.levels", "3", say=("--lm.levels is 3", "have 2"))
    refuses(capsys, *words[:-1], tmp_path / "two", "--pattern", "delya", say=("'delay'",))
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize(
    ("text", "say"),
    [
        (None, "not there"),
        ("def get_config(:", "SyntaxError"),
        ("x = 1", "get_config"),
        ("def get_config(): return 3", "CodecRun"),
        ("def get_config(): return 1 / 0", "ZeroDivisionError"),
        ("def get_config(): raise SystemExit(0)", "SystemExit"),
        ("import nowhere_to_be_found", "nowhere_to_be_found"),
        ("raise ValueError('one\\ntwo')", "one"),
    ],
)
def test_a_config_file_that_is_none_is_told(capsys, tmp_path, codes, text, say):
    path, out = tmp_path / "config.py", tmp_path / "out"
    if text is not None:
        path.write_text(text)
    refuses(capsys, "train", path, "--data", codes, "--out", out, say=("config.py", say))
    assert not out.exists()


def test_data_that_is_none_is_told(capsys, tmp_path, config):
    """A code cache that is not there, is damaged, or is a folder; a dataset that is not there."""
    out = tmp_path / "out"
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 and no more")
    for data in (tmp_path / "gone.npz", tmp_path / "bad.npz", tmp_path):
        refuses(capsys, "train", config, "--data", data, "--out", out, say=(data, "code cache"))
    text = "from rvq_jax.train.runs import CodecRun\n\ndef get_config():\n    return CodecRun()\n"
    (tmp_path / "codec.py").write_text(text)
    words = ["train", tmp_path / "codec.py", "--data", tmp_path / "gone", "--out", out]
    refuses(capsys, *words, say=("gone is not a dataset", "rvq-jax data build"))
    assert not out.exists()


def test_a_codec_folder_that_is_none_is_told_before_training(capsys, tmp_path, codes, config):
    """Not after hours of it."""
    words = ["train", config, "--data", codes, "--out", tmp_path / "out"]
    refuses(capsys, *words, "--codec", tmp_path / "gone", say=("gone", "not a model folder"))
    assert not (tmp_path / "out").exists()


def test_a_model_folder_that_is_none_is_told(capsys, tmp_path):
    out = tmp_path / "a.wav"
    words = ["generate", "--model", tmp_path / "gone", "--prompt", "x", "--out", out]
    refuses(capsys, *words, say=("gone", "not a model folder"))
    (tmp_path / "codec").mkdir()
    (tmp_path / "codec" / "config.json").write_text('{"model": "codec"}')
    words = ["generate", "--model", tmp_path / "codec", "--prompt", "x", "--out", out]
    refuses(capsys, *words, say=("holds a codec",))
    assert not out.exists()


# Help.


def test_no_arguments_and_help_list_the_commands(capsys):
    for words in ([], ["--help"], ["-h"]):
        code, out, lines = run(capsys, *words)
        assert code == 0 and lines == []
        assert all(name in out for name in cli.COMMANDS)


@pytest.mark.parametrize(
    ("command", "say"),
    [
        (
            "quickstart",
            ["--model.lm.layers", "--codec.seanet.ratios", "--patterns", "--seed"],
        ),
        ("data build", ["--rate", "resampled", "--channels", "mixed"]),
        ("train", ["get_config()", "--data", "--out", "--codec"]),
        ("generate", ["--guidance-scale", "--temperature", "--top-k", "--seconds", "Caption"]),
    ],
)
def test_help_of_each_command_explains_its_fields(capsys, command, say):
    """On standard output, with exit code 0, every flag with its default."""
    code, out, lines = run(capsys, *command.split(), "--help")
    assert code == 0 and lines == []
    assert [word for word in say if word not in out] == []
    assert "default" in out
    hidden = [flag for flag in flags(cli.load(command)) if flag not in out]
    # Of a part that is absent there is nothing to set.
    absent = "--codec.adversarial.discriminators.", "--model.lm.depth."
    hidden = [flag for flag in hidden if not flag.startswith(absent)]
    assert set(hidden) <= {"--config", "--folder", "--overrides"}


def test_help_after_a_config_file_lists_its_fields(capsys, config):
    """As the help of `train` promises, with the defaults of that very file."""
    code, out, lines = run(capsys, "train", config, "--help")
    assert code == 0 and lines == []
    assert "--loop.steps" in out and "--lm.caption-bytes" in out
