"""What a training leaves is used by the folder of its run: its model, its sizes, its codec."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import small_folders
import small_parallel
import soundfile
from command import RATE, refuses, run, tone
from small_codec_runs import JUDGES
from small_runs import CONFIG_FILE, RUN, code_set, one_device

from rvq_jax import builtin
from rvq_jax import config as configs
from rvq_jax.cli.terminal import parse
from rvq_jax.cli.train import load_config
from rvq_jax.codec.discriminators import init_params
from rvq_jax.errors import UserError
from rvq_jax.evaluate.heldout import open_model
from rvq_jax.lm.depth import DepthConfig
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.systems import discriminators
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.generators import load_generator
from rvq_jax.systems.magnet import MAGNeT
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.semantic import SemanticModel
from rvq_jax.systems.soundstorm import SoundStorm
from rvq_jax.systems.valle import VALLE
from rvq_jax.train import codes as coding
from rvq_jax.train.runs import LMRun, sizes

# Every function that reads a model's folder, by what it reads.
READERS = {
    "codec": [Codec.load, coding.load_codec],
    "delay": [MusicGen.load, load_generator, open_model, coding.load_codec],
    "soundstorm": [SoundStorm.load, load_generator, open_model],
    "magnet": [MAGNeT.load, load_generator, open_model],
    "valle": [VALLE.load, load_generator, open_model],
    "semantic": [SemanticModel.load],
}
MODELS = {
    "codec": lambda: small_folders.codec(2, 16),
    "delay": small_folders.own,
    "soundstorm": small_parallel.soundstorm,
    "magnet": small_parallel.magnet,
    "valle": small_parallel.valle,
    "semantic": small_parallel.semantic,
}


def begin_run(place) -> None:
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text(json.dumps(configs.to_dict(LMRun())))
    (place / "metrics.jsonl").write_text('{"step": 1, "seconds": 1.0}\n')


@pytest.mark.parametrize(
    ("kind", "read"), [(kind, read) for kind in READERS for read in READERS[kind]]
)
def test_a_run_stands_for_the_model_that_it_ended_with(tmp_path, kind, read):
    begin_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"is a run without a model"):
        read(tmp_path / "run")
    MODELS[kind]().save(tmp_path / "run" / "model")
    both = [read(tmp_path / "run"), read(tmp_path / "run" / "model")]
    found = [getattr(x, "model", x) for x in both]
    weights = [getattr(getattr(x, "lm", x), "params", None) for x in found]
    assert type(found[0]) is type(found[1])
    parts = [(getattr(x, "semantic", None), getattr(x, "text", None)) for x in found]
    assert [x is None for x in parts[0]] == [x is None for x in parts[1]]
    jax.tree.map(np.testing.assert_array_equal, *weights)


def test_a_folder_with_weights_is_the_model_that_it_holds(tmp_path):
    """Whatever else is in it."""
    MODELS["codec"]().save(tmp_path / "mine")
    MODELS["delay"]().save(tmp_path / "mine" / "model")
    assert isinstance(Codec.load(tmp_path / "mine"), Codec)


def test_discriminators_of_a_run_are_those_of_its_codec(tmp_path):
    begin_run(tmp_path)
    MODELS["codec"]().save(tmp_path / "model")
    params = init_params(JUDGES.discriminators, jax.random.key(0))
    discriminators.save(JUDGES.discriminators, params, tmp_path / "model")
    found = discriminators.load(tmp_path, JUDGES.discriminators)
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_commands_take_a_run_for_its_model(tmp_path, capsys):
    begin_run(tmp_path / "run")
    begin_run(tmp_path / "codec")
    small_folders.own().save(tmp_path / "run" / "model")
    small_folders.codec(2, 16).save(tmp_path / "codec" / "model")
    soundfile.write(tmp_path / "a.wav", tone(0.1), RATE)
    lines = [
        f"encode {tmp_path}/a.wav {tmp_path}/a.rvq --codec {tmp_path}/codec",
        f"decode {tmp_path}/a.rvq {tmp_path}/b.wav --codec {tmp_path}/codec",
        f"export {tmp_path}/codec --out {tmp_path}/exported",
        f"generate --model {tmp_path}/run --prompt x --seconds 0.05 --out {tmp_path}/c.wav",
    ]
    for line in lines:
        code, _, said = run(capsys, *line.split())
        assert code == 0, said
    both = [Codec.load(tmp_path / name).fingerprint() for name in ("exported", "codec")]
    assert both[0] == both[1]


# Sizes are the codes'.


@pytest.mark.parametrize("lm", [LMConfig(), MaskedLMConfig(), LMConfig(levels=8)])
def test_a_token_model_has_the_codes_sizes(lm, capsys):
    made = sizes.sized_as_codes(lm, code_set())
    assert (made.levels, made.codebook_size) == (2, 7)
    others = {"levels": lm.levels, "codebook_size": lm.codebook_size}
    assert dataclasses.replace(made, **others) == lm
    said = capsys.readouterr().err
    assert "lm.levels is 2" in said and "lm.codebook_size is 7" in said
    assert sizes.sized_as_codes(made, code_set()) is made
    assert capsys.readouterr().err == ""
    first = sizes.sized_as_codes(lm, code_set(), "first", levels=False)
    assert (first.levels, first.codebook_size) == (lm.levels, 7)


def test_sizes_that_a_model_cannot_have_are_told():
    codes = dataclasses.replace(code_set(), codes=[x[:1] for x in code_set().codes])
    with pytest.raises(UserError, match=r"lm.levels is 1.*depth transformer"):
        sizes.sized_as_codes(LMConfig(depth=DepthConfig()), codes)


# A model without a codec.


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A token model that was trained with no codec named, in its run's folder."""
    place = tmp_path_factory.mktemp("alone")
    codec = small_folders.codec(2, 16)
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 16, (2, 9)).astype(np.int32) for _ in range(3)]
    made = dataclasses.replace(code_set(3), codes=rows, codebook_size=16, frame_rate=100.0)
    for name in ("train", "heldout"):
        dataclasses.replace(made, codec=codec.fingerprint().hex()).save(place / f"{name}.npz")
    loop = dataclasses.replace(RUN.loop, steps=1, evaluate_every=0)
    (place / "config.py").write_text(CONFIG_FILE.format(run=dataclasses.replace(RUN, loop=loop)))
    config = dataclasses.replace(RUN, loop=loop)
    config.train(place / "run", place / "train.npz", one_device()).save(place / "run" / "model")
    codec.save(place / "codec")
    return place


def test_a_model_without_a_codec_is_kept_and_made_to_be_heard(alone, capsys, tmp_path):
    model = MusicGen.load(alone / "run")
    assert model.codec is None and (model.config.levels, model.config.codebook_size) == (2, 16)
    line = ["generate", "--model", alone / "run", "--prompt", "x", "--seconds", "0.05"]
    line += ["--out", tmp_path / "x.wav"]
    refuses(capsys, *line, say=("no codec", "--codec"))
    code, _, said = run(capsys, *line, "--codec", alone / "codec")
    assert code == 0, said
    refuses(capsys, *line, "--codec", builtin.WORD, say=("8 levels of 1024", "2 of 16"))
    whole = dataclasses.replace(model, codec=Codec.load(alone / "codec"))
    whole.save(tmp_path / "whole")
    more = ["--model", tmp_path / "whole", "--codec", alone / "codec"]
    refuses(capsys, *line[:1], *more, *line[3:], say=("has its codec",))


def test_the_codec_of_the_library_is_known_by_its_codes():
    codes = dataclasses.replace(code_set(), codec=builtin.FINGERPRINT)
    assert sizes.codec_of(None, codes).fingerprint().hex() == builtin.FINGERPRINT
    assert sizes.codec_of(None, dataclasses.replace(codes, codec=None)) is None


OWN_RUN = """
from dataclasses import dataclass

from rvq_jax.train.runs import LMRun


@dataclass(frozen=True)
class OwnRun(LMRun):
    sharpness: float = 1.0  # of something new


def get_config():
    return OwnRun()
"""


def test_a_config_file_may_define_its_own_kind_of_run(tmp_path):
    """Its flags are those of the fields, as of any other."""
    path = tmp_path / "own.py"
    path.write_text(OWN_RUN)
    default = load_config(path)
    run = parse(type(default), ["--sharpness", "2", "--loop.steps", "3"], "train own.py", default)
    assert (run.sharpness, run.loop.steps, type(run).__name__) == (2.0, 3, "OwnRun")
