"""MusicGens of transformers, with what transformers computes, without torch.

The folders are made by tests/parity/make_musicgen_fixtures.py.
"""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from tiers import tried

from rvq_jax.convert import names
from rvq_jax.errors import UserError
from rvq_jax.lm import forms
from rvq_jax.lm.conditions import condition
from rvq_jax.lm.sampling import Sampling
from rvq_jax.systems.decoding import programs, windows
from rvq_jax.systems.musicgen import MusicGen

pytest.importorskip("safetensors", reason="folders of transformers need it")
pytest.importorskip("tokenizers", reason="their tokenizers need it")

FOLDER = Path(__file__).parents[1] / "fixtures" / "musicgen"
KINDS = ("text", "stereo", "melody")
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def models() -> dict[str, MusicGen]:
    return {kind: MusicGen.load(FOLDER / kind) for kind in KINDS}


def conditions_of(model: MusicGen, expected: dict):
    conditions = model.encode_conditions(
        {name: expected[name] for name in ("input_ids", "attention_mask")}
    )
    if "input_features" in expected:
        conditions["melody"] = condition(expected["input_features"])
    return conditions


@each_kind
def test_logits_and_greedy_codes_are_theirs(models, kind):
    """Teacher-forced logits, and the codes of guidance 3, one row alone."""
    model, expected = models[kind], np.load(FOLDER / kind / "expected.npz")
    conditions = conditions_of(model, expected)
    logits = jax.jit(forms.model(model.config, model.params).__call__)(expected["fed"], conditions)
    want = expected["logits"]
    assert np.abs(logits - want).max() < 1e-4 * np.abs(want).max()
    greedy = expected["greedy"]
    lengths = np.array([greedy.shape[2]])
    window = windows.window_of(model.pattern, np.full_like(greedy, -1), lengths)
    args = window.pattern, conditions, jax.random.key(0), window.forced, window.lengths
    options = {"guidance": 3.0, "sampling": Sampling(0.0)}
    drawn = programs.generate_codes(model.config, model.params, *args, **options)
    assert np.array_equal(np.asarray(drawn.codes)[:, :, : greedy.shape[2]], greedy)


@each_kind
def test_a_folder_written_back_is_the_same(models, kind, tmp_path):
    """Every tensor to the bit, the tokenizer's files, and what it computes."""
    from safetensors.numpy import load_file

    models[kind].save(tmp_path / "again")
    folders = FOLDER / kind, tmp_path / "again"
    # Newer files spell weight norm in another way.
    old, new = (names.canonical(load_file(f / "model.safetensors")) for f in folders)
    assert old.keys() == new.keys()
    assert all(np.array_equal(old[name], new[name]) for name in old)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (FOLDER / kind / name).read_bytes()
    again = MusicGen.load(tmp_path / "again")
    assert (again.config, again.pattern) == (models[kind].config, models[kind].pattern)
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


@pytest.mark.parametrize("kind", tried(["stereo"], KINDS))
def test_captions_become_audio(models, kind):
    """From the folder's own tokenizer, at the codec's rate and channels."""
    model = models[kind]
    audio = model.generate(["slow piano", ""], 0.02, jax.random.key(0))
    samples = round(0.02 * model.codec.config.frame_rate) * model.codec.config.hop
    assert audio.shape == (2, samples, 2 if kind == "stereo" else 1)
    assert np.isfinite(audio).all()


def test_a_pattern_that_transformers_lacks_has_a_folder_of_our_own(models, tmp_path):
    """With the text encoder and the codec beside it."""
    theirs = models["text"]
    ours = MusicGen(theirs.config, "flatten", theirs.params, theirs.codec, theirs.text)
    ours.save(tmp_path / "m")
    assert json.loads((tmp_path / "m" / "config.json").read_text())["pattern"] == "flatten"
    again = MusicGen.load(tmp_path / "m")
    codes = np.random.default_rng(0).integers(0, 16, (2, 4, 6))
    args = codes, ["slow", "piano"]
    assert np.array_equal(ours.score(*args), again.score(*args))


def test_the_window_is_what_the_folder_says(tmp_path):
    for said, window in ((None, 1500), ({"max_length": 700}, 700), ({"max_length": "?"}, 1500)):
        folder = tmp_path / f"{window}-{said is None}-{said and type(said['max_length']).__name__}"
        shutil.copytree(FOLDER / "text", folder)
        (folder / "generation_config.json").unlink()
        if said:
            (folder / "generation_config.json").write_text(json.dumps(said))
        assert MusicGen.load(folder).config.window == window


def change(**fields):
    """Fields of the token model's config set to others; None takes one away."""

    def edit(folder):
        data = json.loads((folder / "config.json").read_text())
        data["decoder"] |= fields
        (folder / "config.json").write_text(json.dumps(data))

    return edit


def drop_part(part):
    def edit(folder):
        data = json.loads((folder / "config.json").read_text())
        del data[part]
        (folder / "config.json").write_text(json.dumps(data))

    return edit


def retensor(edit_tensors):
    def edit(folder):
        from safetensors.numpy import load_file, save_file

        found = edit_tensors(load_file(folder / "model.safetensors"))
        save_file(found, folder / "model.safetensors")

    return edit


def drop(prefix):
    return retensor(lambda found: {n: x for n, x in found.items() if not n.startswith(prefix)})


def with_nan(found):
    name = "decoder.model.decoder.layers.1.fc1.weight"
    found[name] = found[name].copy()
    found[name][3, 2] = np.nan
    return found


BAD = {
    "no text encoder in the config": (drop_part("text_encoder"), "'text_encoder'"),
    "no tensors of the text encoder": (drop("text_encoder."), "text_encoder."),
    "no tensors of the codec": (drop("audio_encoder."), "audio_encoder."),
    "no projection": (drop("enc_to_dec_proj"), "enc_to_dec_proj.weight"),
    "NaN": (retensor(with_nan), "layers.1.fc1.weight"),
    "another width": (change(ffn_dim=25), "of another shape"),
    "another activation": (change(activation_function="relu"), "activation_function"),
    "scaled embeddings": (change(scale_embedding=True), "scale_embedding"),
    "another special id": (change(pad_token_id=3), "pad_token_id"),
    "odd levels of stereo": (change(num_codebooks=3, audio_channels=2), "num_codebooks"),
    "heads that do not divide": (change(num_attention_heads=3), "num_attention_heads"),
    "an unknown field": (change(rotary=True), "'rotary'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_folder_that_cannot_be_read_is_told_in_one_line(tmp_path, case):
    edit, word = BAD[case]
    shutil.copytree(FOLDER / "text", tmp_path / "m")
    edit(tmp_path / "m")
    with pytest.raises(UserError) as caught:
        MusicGen.load(tmp_path / "m")
    assert word in str(caught.value) and "\n" not in str(caught.value)
