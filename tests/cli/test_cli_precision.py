"""--precision and the flags of a mesh: what a command makes is what the library makes with them."""

import typing

import jax
import numpy as np
import pytest
import small_folders
import small_parallel
import soundfile
from command import refuses, run
from tiers import slow

import rvq_jax as rj
from rvq_jax.cli import texts
from rvq_jax.lm import precision
from rvq_jax.meshes import make_mesh
from rvq_jax.systems.generators import load_generator

WORDS = ["--prompt", "slow", "x", "--seconds", 0.1]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return small_folders.folders(tmp_path_factory)


@pytest.mark.parametrize("flags", [["--precision", "int8"], slow(["--devices", 4, "--tensor", 2])])
def test_generate_is_the_library_with_the_same_choice(capsys, tmp_path, models, flags):
    kind = {"precision": "int8"}
    if "--tensor" in flags:
        kind = {"mesh": make_mesh(tensor=2, devices=jax.devices()[:4])}
    out = tmp_path / "out"
    code, _, lines = run(capsys, "generate", "--model", models["own"], *WORDS, *flags, "--out", out)
    assert (code, lines) == (0, [])
    model = rj.MusicGen.load(models["own"], **kind)
    audio = np.clip(model.generate(["slow", "x"], 0.1, jax.random.key(0)), -1, 1)
    for i in range(2):
        found, _ = soundfile.read(out / f"{i}.wav", dtype="float32", always_2d=True)
        np.testing.assert_allclose(found, audio[i], atol=2**-14)


def test_every_kind_is_loaded_in_fewer_bits_with_its_stages(tmp_path):
    """What it is of, matrices of each stage in int8; none is saved again."""
    kinds = small_parallel.valle(), small_parallel.soundstorm(), small_parallel.magnet()
    for made in kinds:
        place = tmp_path / type(made).__name__
        made.save(place)
        model = load_generator(place, precision="int8")
        inner = getattr(model, "first", None) or getattr(model, "semantic", None)
        for one in [model, *([inner.lm] if inner else [])]:
            assert precision.of(one.params) == "int8" and one.config.dtype == "bfloat16"
        with pytest.raises(rj.UserError, match="a model in int8 cannot be saved"):
            model.save(tmp_path / "again")
        assert not (tmp_path / "again").exists()


def test_flags_that_cannot_be_are_one_line(capsys, tmp_path, models):
    words = ["--model", models["own"], *WORDS, "--out", tmp_path / "out"]
    refuses(capsys, "generate", *words, "--precision", "int4", say=["--precision", "int4"])
    refuses(capsys, "generate", *words, "--devices", 99, say=["99 devices", "there are 8"])
    refuses(capsys, "generate", *words, "--devices", 3, "--fsdp", 2, say=["does not use the 3"])
    words = ["builtin", "--data", tmp_path, "--out", tmp_path / "e", "--precision", "int8"]
    refuses(capsys, "evaluate", *words, say=["--precision is not for codecs"])


def test_commands_know_the_precisions_of_the_library():
    assert typing.get_args(texts.Precision) == typing.get_args(precision.Precision)
