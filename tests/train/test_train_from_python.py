"""Training from Python leaves what the command leaves; what how_to/from_python.md shows runs."""

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from command import run
from small_codec_runs import RATE, run_of
from small_folders import codec
from small_runs import CONFIG_FILE, CONSTANT, code_set, one_device, one_window
from small_runs import RUN as SMALL

import rvq_jax as rj
from rvq_jax.train import folders, sharding
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.tasks.adversarial import AdversarialConfig

DOCS = Path(__file__).parents[2] / "docs" / "how_to"


def blocks_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


BLOCKS = blocks_of("from_python.md")
SHORT = LoopConfig(steps=2, log_every=1, checkpoint_every=2, evaluate_every=0)
RUN = dataclasses.replace(SMALL, loop=SHORT, optimizer=CONSTANT)
CODEC_RUN = run_of(adversarial=AdversarialConfig(), loop=SHORT)
CODEC_FILE = """
from small_codec_runs import run_of
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.tasks.adversarial import AdversarialConfig

def get_config():
    return run_of(adversarial=AdversarialConfig(), loop={loop!r})
"""


@pytest.fixture(autouse=True)
def one_device_each(monkeypatch):
    """The programs are then those of other tests."""
    mesh = one_device()
    monkeypatch.setattr(sharding, "make_mesh", lambda **sizes: mesh)


def files_of(folder: Path) -> dict[str, bytes]:
    places = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in places}


def test_a_token_model_is_that_of_the_command(capsys, tmp_path):
    """And so is the run's config: what one has begun the other goes on with."""
    codes = tmp_path / "codes.npz"
    code_set().save(codes)
    codec(RUN.lm.levels, RUN.lm.codebook_size).save(tmp_path / "codec")
    (tmp_path / "config.py").write_text(CONFIG_FILE.format(run=RUN))
    words = ["train", tmp_path / "config.py", "--data", codes, "--codec", tmp_path / "codec"]
    assert run(capsys, *words, "--out", tmp_path / "typed")[0] == 0
    model = rj.train_lm(codes, tmp_path / "called", RUN, codec=tmp_path / "codec")
    typed = files_of(tmp_path / "typed" / "model")
    assert "config.json" in {Path(name).name for name in typed}
    assert files_of(tmp_path / "called" / "model") == typed
    assert model.pattern == "delay" and model.codec.levels == RUN.lm.levels
    configs = [tmp_path / name / "config.json" for name in ("typed", "called")]
    assert configs[0].read_bytes() == configs[1].read_bytes()


@pytest.mark.slow
def test_a_codec_is_that_of_the_command(capsys, tmp_path):
    """Of a folder of audio, and of the dataset that `data build` makes of it."""
    for i in range(6):
        noise = 0.3 * np.random.default_rng(i).normal(size=(RATE // 2, 1))
        rj.save_audio(tmp_path / "audio" / f"{i}.wav", noise, RATE)
    words = ["data", "build", tmp_path / "audio", "--out", tmp_path / "data", "--rate", RATE]
    assert run(capsys, *words)[0] == 0
    (tmp_path / "config.py").write_text(CODEC_FILE.format(loop=SHORT))
    words = ["train", tmp_path / "config.py", "--data", tmp_path / "data"]
    with one_window():
        assert run(capsys, *words, "--out", tmp_path / "typed")[0] == 0
        rj.train_codec(tmp_path / "audio", tmp_path / "called", CODEC_RUN)
    typed = files_of(tmp_path / "typed" / "model")
    assert typed and files_of(tmp_path / "called" / "model") == typed
    given = folders._dataset(tmp_path / "data", tmp_path / "given", RATE, 1)
    assert given == tmp_path / "data" and not (tmp_path / "given").exists()


def test_codes_are_made_where_there_are_none(tmp_path):
    """By the codec that is kept beside the model; without one that is said."""
    for i in range(4):
        noise = 0.3 * np.random.default_rng(i).normal(size=(8_000, 1))
        rj.save_audio(tmp_path / "audio" / f"{i}.wav", noise, 8_000)
    codec(2, 7, lstm_layers=0).save(tmp_path / "codec")
    model = rj.train_lm(tmp_path / "audio", tmp_path / "out", RUN, codec=tmp_path / "codec")
    assert (tmp_path / "out" / "dataset" / "heldout.npz").is_file()
    assert model.codec.fingerprint() == rj.Codec.load(tmp_path / "codec").fingerprint()
    with pytest.raises(rj.UserError, match="audio is no code cache: name a codec"):
        rj.train_lm(tmp_path / "audio", tmp_path / "two", RUN)


@pytest.mark.slow
def test_a_quantizer_in_a_module_of_ones_own_learns():
    """The very blocks of the page."""
    found: dict = {}
    for block in blocks_of("own_module.md"):
        exec(block, found)
        if "nnx.Module" in block:
            break
    losses = found["losses"]
    assert np.mean(losses[-10:]) < 0.3 * np.mean(losses[:10])
    books = jax.tree.leaves(found["rest"])
    assert all(np.isfinite(leaf).all() for leaf in books)


def test_audio_goes_round_as_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rj.save_audio("song.wav", 0.1 * np.random.default_rng(0).normal(size=9_600), 16_000)
    (block,) = [block for block in BLOCKS if "load_audio" in block]
    exec(block, {})
    assert rj.load_audio("again.wav")[0].shape == (9_600, 1)


def test_the_other_blocks_name_what_there_is():
    """They would train for hours: names and arguments are those of the library."""
    for block in BLOCKS:
        compile(block, "from_python.md", "exec")
        for name in re.findall(r"\brj\.(\w+)", block):
            assert name in dir(rj), name
    fields = {field.name for field in dataclasses.fields(rj.LMConfig)}
    assert {"levels", "codebook_size"} <= fields
