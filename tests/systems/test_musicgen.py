"""MusicGen in its folder: it comes back to the bit, and damage is said in one line."""

import gc
import json

import jax
import numpy as np
import pytest
from small_lm import CAPTIONS, CONFIG, KEY, PARAMS, F, K, N, filled, random_codes

from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.errors import UserError
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.musicgen import MusicGen


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model's folder, its codes and their bits."""
    seanet = SEANetConfig(filters=2, dim=4, ratios=(2, 2), lstm_layers=0)
    config = CodecConfig(100, seanet, levels=K, codebook_size=N)
    codec = Codec.init(config, jax.random.key(0))
    codec = Codec(config, *filled((codec.params, codec.quantizer)))
    model = MusicGen(CONFIG, "delay", PARAMS, codec)
    folder = tmp_path_factory.mktemp("musicgen") / "model"
    model.save(folder)
    return folder, model


def copy(folder, to):
    for path in folder.rglob("*"):
        if path.is_file():
            place = to / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    return to


def test_a_model_comes_back_from_its_folder(saved):
    """The same config and pattern, and to the last bit the same scores and audio."""
    folder, model = saved
    again = MusicGen.load(folder)
    assert (again.config, again.pattern) == (CONFIG, "delay")
    codes = random_codes(2)
    assert np.array_equal(again.score(codes, CAPTIONS), model.score(codes, CAPTIONS))
    kept = codes[:, :, :2]
    audio = [m.generate(CAPTIONS, F / 25, KEY, top_k=3, prompt=kept) for m in (model, again)]
    assert audio[0].shape == (2, 4 * F, 1) and np.array_equal(*audio)


def test_a_prompt_longer_than_the_audio_is_an_error(saved):
    with pytest.raises(ValueError, match="5 frames"):
        saved[1].generate(CAPTIONS, 2 / 25, KEY, prompt=random_codes(2))


def test_saving_over_a_model_leaves_one_whole_folder(saved, tmp_path):
    """What is written replaces all of a model that was there, and no temporary folder stays."""
    folder = copy(saved[0], tmp_path / "model")
    (folder / "codec" / "model.safetensors").write_text("of another")
    saved[1].save(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert sorted(p.name for p in folder.iterdir()) == ["codec", "config.json", "weights.npz"]
    assert not (folder / "codec" / "model.safetensors").exists()


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGE = {
    "nothing there": (lambda f: (f / "config.json").unlink(), "not a model folder"),
    "not JSON": (lambda f: (f / "config.json").write_text("{"), "not a model folder"),
    "not an object": (lambda f: (f / "config.json").write_text("[]"), "not a model folder"),
    "another kind": (lambda f: edit(f / "config.json", model="codec"), "codec"),
    "unknown field": (lambda f: edit(f / "config.json", layerz=2), "'layers'"),
    "unknown pattern": (lambda f: edit(f / "config.json", pattern="delayed"), "'delay'"),
    "another shape": (lambda f: edit(f / "config.json", hidden=48), "shape"),
    "another type": (lambda f: edit(f / "config.json", mlp_dim="many"), "mlp_dim"),
    "more layers": (lambda f: edit(f / "config.json", layers=3), "missing"),
    "no weights": (lambda f: (f / "weights.npz").unlink(), "weights.npz"),
    "cut weights": (
        lambda f: (f / "weights.npz").write_bytes((f / "weights.npz").read_bytes()[:900]),
        "weights.npz",
    ),
    "damaged weights": (
        lambda f: (f / "weights.npz").write_bytes(
            (f / "weights.npz").read_bytes().replace(b"NUMPY", b"NOMPY")
        ),
        "weights.npz",
    ),
    "an array short": (
        lambda f: np.savez(f / "weights.npz", **dict(list(np.load(f / "weights.npz").items())[1:])),
        "missing",
    ),
    "no codec": (lambda f: (f / "codec" / "config.json").unlink(), "codec"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_folder_is_told_in_one_line(saved, tmp_path, case):
    """Whatever is wrong with a folder, the error is the user's and names the place."""
    damage, word = DAMAGE[case]
    folder = copy(saved[0], tmp_path / "model")
    damage(folder)
    with pytest.raises(UserError) as caught:
        MusicGen.load(folder)
    message = str(caught.value)
    assert word in message and "\n" not in message
    # A file left open would warn when it is collected, in whichever test runs then.
    del caught
    gc.collect()
