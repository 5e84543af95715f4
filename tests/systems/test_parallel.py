"""SoundStorm and MAGNeT as users hold them: folders, prompts, rows of their own, mistakes."""

import dataclasses

import jax
import numpy as np
import pytest
import small_parallel as small
from command import refuses, run
from small_lm import KEY

from rvq_jax.audio import io
from rvq_jax.errors import UserError
from rvq_jax.systems import generators
from rvq_jax.systems.generators import load_generator
from rvq_jax.systems.magnet import MAGNeT
from rvq_jax.systems.soundstorm import SoundStorm

CAPTIONS, SECONDS = ["slow", "né"], 0.2  # 20 frames
MODELS = {"soundstorm": small.soundstorm, "magnet": small.magnet}
each = pytest.mark.parametrize("kind", MODELS)


def made(model, captions, seconds=SECONDS, key=KEY, **options):
    """Audio in few iterations."""
    return model.generate(captions, seconds, key, iterations=(3, 1, 1), **options)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("parallel")
    for kind, model in MODELS.items():
        model().save(place / kind)
    return place


@each
def test_a_folder_is_the_model(folders, kind):
    model, again = MODELS[kind](), load_generator(folders / kind)
    assert type(again) is type(model)
    np.testing.assert_array_equal(made(again, CAPTIONS), made(model, CAPTIONS))


@each
def test_a_row_is_what_it_is_alone(kind):
    """Whatever the others are, and however long."""
    model = MODELS[kind]()
    together = made(model, CAPTIONS, (0.2, 0.13))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, np.arange(2))
    for i, seconds in enumerate((0.2, 0.13)):
        alone = made(model, CAPTIONS[i : i + 1], seconds, keys[i : i + 1])
        np.testing.assert_allclose(together[i, : alone.shape[1]], alone[0], rtol=0, atol=1e-4)
        assert not together[i, alone.shape[1] :].any()


@each
def test_a_stream_is_the_whole_in_pieces(kind):
    model = MODELS[kind]()
    pieces = list(model.stream(CAPTIONS, SECONDS, KEY, chunk=0.07, iterations=(3, 1, 1)))
    assert [x.shape[1] for x in pieces] == [70, 70, 60]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), made(model, CAPTIONS))


@each
def test_codes_that_are_given_are_kept(kind, monkeypatch):
    """A beginning, an end, and a level given for finer ones; what is decoded are all codes."""
    model, seen = MODELS[kind](), []
    monkeypatch.setattr(
        "rvq_jax.systems.decoding.audio.decode",
        lambda codec, codes, lengths, *_: seen.append(codes) or np.zeros((2, 200, 1)),
    )
    captions = {"captions": CAPTIONS}
    if kind == "soundstorm":
        captions = {"captions": None, "semantic": np.zeros((2, 5), np.int32)}
    rng = np.random.default_rng(0)
    for keep in (np.s_[:, :7], np.s_[:, 12:], np.s_[:1, :], np.s_[1:2, 3:6]):
        prompt = np.full((2, small.K, 20), -1)
        whole = rng.integers(0, small.N, (2, small.K, 20))
        prompt[(slice(None), *keep)] = whole[(slice(None), *keep)]
        model.generate(seconds=SECONDS, key=KEY, prompt=prompt, iterations=(3, 1, 1), **captions)
        codes = seen.pop()
        assert codes.min() >= 0
        np.testing.assert_array_equal(codes[prompt >= 0], prompt[prompt >= 0])


def test_soundstorm_goes_on_from_audio():
    """Its semantic tokens go on from those of the prompt, and its codes from the codec's."""
    model = small.soundstorm()
    prompt = np.random.default_rng(0).normal(size=(2, 100, 1)).astype(np.float32)
    audio = made(model, CAPTIONS, prompt=prompt)
    assert audio.shape == (2, 200, 1) and np.isfinite(audio).all()
    bare = dataclasses.replace(model.semantic, tokenizer=None)
    with pytest.raises(ValueError, match="a tokenizer"):
        made(dataclasses.replace(model, semantic=bare), CAPTIONS, prompt=prompt)


def test_rows_whose_tokens_end_are_silent_from_there_on():
    model = small.soundstorm()
    audio = made(model, ["a", "b", "c", "d"], 0.6)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, np.arange(4))
    first = jax.vmap(jax.random.fold_in, (0, None))(keys, 0)
    tokens = model.semantic.sample(["a", "b", "c", "d"], 0.6, first)
    assert audio.shape[1] == 600 and 0 == tokens.lengths.min() < tokens.lengths.max()
    for row, length in zip(audio, tokens.lengths, strict=True):
        assert row[: length * 40].any() == (length > 0) and not row[length * 40 :].any()


def test_magnet_asks_another_model():
    """What it begins with, and what is sure; neither without the other model."""
    model, other = small.magnet(), small.autoregressive()
    alone = made(model, CAPTIONS)
    for how in ({"rescore": 0.9}, {"hybrid": 0.1}, {"rescore": 1.0, "hybrid": 0.05}):
        audio = made(model, CAPTIONS, autoregressive=other, **how)
        assert audio.shape == alone.shape and np.abs(audio - alone).max() > 1e-3
        with pytest.raises(ValueError, match="goes with"):
            made(model, CAPTIONS, **how)


@pytest.mark.parametrize(
    ("how", "say"),
    [
        ({"seconds": 0.0}, "positive"),
        ({"seconds": (0.1, 0.2, 0.3)}, "one for each row"),
        ({"iterations": (3, 1)}, "3 levels"),
        ({"iterations": (3, 0, 1)}, "at least 1"),
        ({"prompt": np.zeros((2, 3, 21), int)}, "21 frames"),
        ({"prompt": np.zeros((2, 4, 5), int)}, "4 levels"),
        ({"prompt": np.full((2, 3, 5), small.N)}, "must be in"),
        ({"rescore": 2.0}, "rescore"),
        ({"hybrid": -1.0}, "hybrid"),
        ({"autoregressive": small.autoregressive}, "goes with"),
    ],
)
def test_what_magnet_cannot_do_is_said(how, say):
    how = {name: x() if name == "autoregressive" else x for name, x in how.items()}
    with pytest.raises(ValueError, match=say):
        small.magnet().generate(CAPTIONS, **({"seconds": SECONDS, "key": KEY} | how))


@pytest.mark.parametrize(
    ("how", "say"),
    [
        ({"captions": None}, "give captions"),
        ({"semantic": np.zeros((2, 5), int)}, "give captions"),
        ({"captions": None, "semantic": np.zeros((2, 4), int)}, "need 5 semantic tokens"),
        ({"captions": None, "semantic": np.full((2, 5), small.TOKENS)}, "semantic tokens lie"),
        ({"captions": None, "semantic": np.zeros((2, 5))}, "integers"),
        ({"prompt": np.zeros((2, 3, 5), int)}, "must be audio"),
        ({"prompt": np.zeros((2, 30, 1))}, "shorter than a semantic token"),
    ],
)
def test_what_soundstorm_cannot_do_is_said(how, say):
    asked = {"captions": CAPTIONS, "seconds": SECONDS, "key": KEY, "iterations": (1, 1, 1)}
    with pytest.raises(ValueError, match=say):
        small.soundstorm().generate(**asked | how)


def test_longer_than_it_was_trained_on_is_refused():
    with pytest.raises(ValueError, match=r"window of 0\.1 s"):
        made(small.magnet(window=10), CAPTIONS)


def test_a_semantic_model_of_other_tokens_is_refused(tmp_path):
    model = small.soundstorm()
    for change in ({"semantic_size": 6}, {"semantic_ratio": 2}):
        config = dataclasses.replace(model.config, **change)
        place = tmp_path / str(change)
        other = small.params_of(config)
        dataclasses.replace(model, config=config, params=other).save(place)
        with pytest.raises(UserError, match="take one of the same tokens"):
            SoundStorm.load(place)


def test_another_kind_is_refused(folders):
    with pytest.raises(UserError, match="holds a soundstorm, not a magnet"):
        MAGNeT.load(folders / "soundstorm")
    with pytest.raises(UserError, match="holds a magnet, not a musicgen"):
        generators.MusicGen.load(folders / "magnet")


@each
def test_the_command_makes_the_same_audio(capsys, folders, tmp_path, kind):
    words = ["generate", "--model", folders / kind, "--seconds", SECONDS, "--out"]
    few = ["--iterations", 3, 1, 1]
    assert run(capsys, *words, tmp_path / "x.wav", "--prompt", "slow", *few)[0] == 0
    audio, rate = io.read(tmp_path / "x.wav")
    want = made(MODELS[kind](), ["slow"], key=jax.random.key(0))[0]
    assert rate == small.RATE
    np.testing.assert_allclose(audio, np.clip(want, -1, 1), rtol=0, atol=2e-4)
    say = ("--iterations", "3 levels")
    refuses(capsys, *words, tmp_path / "y.wav", "--prompt", "a", "--iterations", 3, say=say[1:])
    refuses(capsys, *words, tmp_path / "y.wav", "--prompt", "a", "--stride", 0.1, say=("whole",))
    refuses(
        capsys, *words, tmp_path / "y.wav", "--prompt", "a", "--melody", tmp_path / "x.wav",
        say=("follows no melody",),
    )  # fmt: skip
