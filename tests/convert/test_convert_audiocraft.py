"""Audiocraft's token models: every pattern and size, imported to the bit or refused in one line."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import small_folders
from audiocraft_files import CONDITIONERS, config_of, original, tensors_of, write
from command import refuses, run
from small_codecs import ENCODEC, renamed, torch_bytes, weights
from small_musicgen import T5

import rvq_jax as rj
from rvq_jax import patterns
from rvq_jax.convert import audiocraft, names, torch_file
from rvq_jax.errors import UserError
from rvq_jax.systems import from_audiocraft, published_codecs

FIXTURE = Path(__file__).parents[1] / "fixtures" / "torch" / "audiocraft_lm.bin"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    return small_folders.folders(tmp_path_factory)


@pytest.fixture(scope="module")
def parts(models, tmp_path_factory) -> list:
    """The flags that give a codec and a text encoder."""
    folder, model = tmp_path_factory.mktemp("parts"), rj.MusicGen.load(models["text"])
    model.codec.save(folder / "codec")
    model.text.save(folder / "text")
    return ["--codec", folder / "codec", "--text", folder / "text"]


@pytest.mark.parametrize("kind", ["text", "melody", "stereo"])
def test_a_model_comes_back_to_the_bit(capsys, tmp_path, models, parts, kind):
    """In transformers' format, over an older import too, with the window it was trained on."""
    model = rj.MusicGen.load(models[kind])
    path = write(tmp_path / "state_dict.bin", model, config_of(kind))
    for _ in range(2):
        words = ["import", path, "--out", tmp_path / "out", *parts, "--json"]
        code, text, lines = run(capsys, *words)
        assert (code, lines) == (0, [])
    conditions = {"model": str(tmp_path / "out"), "pattern": model.pattern}
    assert json.loads(text) == conditions | {"levels": model.config.levels}
    again = rj.MusicGen.load(tmp_path / "out")
    # A melody's frames follow from the seconds: one, of so few.
    expected = dataclasses.replace(model.config, melody_frames=again.config.melody_frames)
    assert again.config == expected and again.pattern == model.pattern
    assert again.config.melody_frames == (1 if kind == "melody" else 235)
    assert again.codec.config.prepared() == model.codec.config.prepared()
    ours, theirs = tensors_of(again), tensors_of(model)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    stored = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "generation_config.json", "tokenizer.json"} <= stored


def test_a_pattern_that_transformers_has_no_words_for(capsys, tmp_path, models, parts):
    """The folder is then our own, with a part below it for each."""
    model = rj.MusicGen.load(models["text"])
    config = config_of().replace("modeling: delay", "modeling: parallel")
    path = write(tmp_path / "state_dict.bin", model, config)
    for _ in range(2):
        code, out, lines = run(capsys, "import", path, "--out", tmp_path / "out", *parts)
        assert (code, lines) == (0, []) and "3 levels by parallel" in out
    stored = {path.name for path in (tmp_path / "out").iterdir()}
    assert stored == {"codec", "config.json", "text", "weights.npz"}
    assert rj.MusicGen.load(tmp_path / "out").pattern == "parallel"


def test_a_file_that_torch_wrote(tmp_path):
    """In half precision, which becomes float32, with heads of a number of their own."""
    raw, beside = torch_file.read_state(FIXTURE)
    found = audiocraft.read(raw, beside, FIXTURE)
    lm = found.lm
    assert (lm.levels, lm.codebook_size, lm.dim, lm.layers, lm.heads) == (4, 16, 24, 2, 3)
    assert (lm.mlp_dim, lm.text_dim, lm.melody_bins, lm.attend_padding) == (40, 12, None, False)
    assert (found.pattern, found.seconds, found.text) == ("delay", 10.0, "t5-base")
    assert {value.dtype for value in found.tensors.values()} == {np.dtype(np.float32)}
    together = raw["transformer.layers.0.cross_attention.in_proj_weight"]
    assert together.dtype == np.float16 and together.shape == (72, 24)
    stem = "decoder.model.decoder.layers.0.encoder_attn."
    parts = [found.tensors[f"{stem}{part}_proj.weight"] for part in "qkv"]
    np.testing.assert_array_equal(np.concatenate(parts), together.astype(np.float32))


def test_a_codec_of_its_own_kind_of_file(capsys, tmp_path, models, parts, monkeypatch):
    """compression_state_dict.bin, as it lies beside state_dict.bin."""
    model = rj.MusicGen.load(models["text"])
    config = model.codec.config
    kind = (names.encodec, (lambda: config,))
    monkeypatch.setitem(published_codecs.KINDS, "encodec_32khz", kind)
    codec = tmp_path / "compression_state_dict.bin"
    codec.write_bytes(torch_bytes(renamed(weights(model.codec), ENCODEC), {}, "best_state"))
    path = write(tmp_path / "state_dict.bin", model, config_of())
    again = from_audiocraft.load(path, codec, parts[3])
    audio = [m.generate(["slow"], 0.3, jax.random.key(0)) for m in (model, again)]
    np.testing.assert_array_equal(*audio)


def test_without_a_config_heads_are_of_64_and_the_pattern_is_delay(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"emb.0.weight": (17, 128), "emb.1.weight": (17, 128), "linears.0.weight": (16, 128)}
    shapes["transformer.layers.0.linear1.weight"] = (256, 128)
    shapes[f"{CONDITIONERS}description.output_proj.weight"] = (128, 12)
    found = audiocraft.read({n: rng.normal(size=s) for n, s in shapes.items()}, {}, "x")
    assert (found.lm.heads, found.lm.levels, found.pattern, found.seconds) == (2, 2, "delay", 30.0)
    # The published melody models', at 32 kHz.
    assert audiocraft.melody_frames(30.0, 32_000) == 235


def pattern_of(said: str, levels: int = 4) -> str:
    """Of a codebooks_pattern, in one line of YAML."""
    rng = np.random.default_rng(0)
    shapes = {f"emb.{k}.weight": (17, 64) for k in range(levels)}
    shapes["transformer.layers.0.linear1.weight"] = (256, 64)
    shapes[f"{CONDITIONERS}description.output_proj.weight"] = (64, 12)
    tensors = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    beside = {"xp.cfg": f"codebooks_pattern: {said}"}
    return audiocraft.read(tensors, beside, "state_dict.bin").pattern


PATTERNS = {
    "{modeling: parallel}": "parallel",
    "{modeling: delay}": "delay",
    "{modeling: null}": "delay",
    "{modeling: delay, delay: {delays: [0, 1, 2, 3]}}": "delay",
    "{modeling: delay, delay: {delays: [0, 0, 1, 1]}}": "stereo_partial_delay",
    "{modeling: delay, delay: {delays: [0, 1, 1, 1]}}": "partial_delay",
    "{modeling: delay, delay: {delays: [0, 0, 0, 0]}}": "parallel",
    "{modeling: unroll}": "flatten",
    "{modeling: unroll, unroll: {flattening: [0, 1, 2, 3], delays: [0, 0, 0, 0]}}": "flatten",
    "{modeling: unroll, unroll: {flattening: [0, 1, 1, 1]}}": "partial_flatten",
    "{modeling: coarse_first}": "coarse_first",
    "{modeling: coarse_first, coarse_first: {delays: [0, 0, 0]}}": "coarse_first",
    "{modeling: valle}": "coarse_first",
    "{modeling: musiclm}": "musiclm",
    "{modeling: musiclm, musiclm: {group_by: 2}}": "musiclm",
    "{modeling: musiclm, musiclm: {group_by: 4}}": "flatten",
}


@pytest.mark.parametrize("said", PATTERNS)
def test_patterns_are_named_by_their_tables(said):
    assert pattern_of(said) == PATTERNS[said]
    assert patterns.canonical(PATTERNS[said]) == PATTERNS[said]


def test_of_one_and_two_levels_the_delays_come_first():
    """Which transformers has words for."""
    assert pattern_of("{modeling: parallel}", levels=1) == "delay"
    assert pattern_of("{modeling: delay}", levels=2) == "delay"


@pytest.mark.parametrize(
    ("said", "say"),
    [
        ("{modeling: delay, delay: {delays: [0, 2, 4, 6]}}", "no name here"),
        ("{modeling: delay, delay: {delays: [0, 1]}}", "one entry per level"),
        ("{modeling: delay, delay: {delays: [0, 1, 2, 999999999]}}", "below 1000"),
        ("{modeling: delay, delay: {delays: many}}", "below 1000"),
        ("{modeling: delay, delay: {flatten_first: 3}}", "flatten_first"),
        ("{modeling: unroll, unroll: {flattening: [0, 1, 1, 2]}}", "no name here"),
        ("{modeling: unroll, unroll: {flattening: [0, 1]}}", "one entry per level"),
        ("{modeling: unroll, unroll: {delays: [0, 3, 3, 3]}}", "unrolled"),
        ("{modeling: coarse_first, coarse_first: {delays: [0, 1, 2]}}", "no name here"),
        ("{modeling: musiclm, musiclm: {group_by: 0}}", "group_by"),
        ("{modeling: musiclm, musiclm: {group_by: 3}}", "divide"),
        ("{modeling: spiral}", "'spiral': it is not known"),
        ("{modeling: [delay]}", "it is not known"),
    ],
)
def test_patterns_without_a_name_are_refused(said, say):
    with pytest.raises(UserError) as caught:
        pattern_of(said)
    message = str(caught.value)
    assert "state_dict.bin: its codebooks_pattern" in message
    assert say in message and "\n" not in message


CONFIGS = {
    "no YAML": ("a: [", ["is no YAML"]),
    "no fields": ("- a", ["holds no fields"]),
    "another model": ("lm_model: flow_matching", ["lm_model 'flow_matching'", "only", "_magnet"]),
    "rotary": ("transformer_lm: {positional_embedding: rope}", ["positional_embedding 'rope'"]),
    "another period": ("transformer_lm: {max_period: 5000}", ["max_period 5000", "only 10000"]),
    "not causal": ("transformer_lm: {causal: false}", ["causal False"]),
    "norms behind": ("transformer_lm: {norm_first: false}", ["norm_first False"]),
    "places of the text": ("fuser: {cross_attention_pos_emb: true}", ["cross_attention_pos_emb"]),
    "no such heads": ("transformer_lm: {num_heads: 5}", ["16 features", "num_heads 5"]),
    "heads of no number": ("transformer_lm: {num_heads: many}", ["num_heads 'many'"]),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs_beyond_this_library_are_refused(capsys, tmp_path, models, parts, case):
    config, say = CONFIGS[case]
    path = write(tmp_path / "state_dict.bin", rj.MusicGen.load(models["text"]), config)
    words = ["import", path, "--out", tmp_path / "out", *parts]
    refuses(capsys, *words, say=("state_dict.bin", *say))
    assert not (tmp_path / "out").exists()


def test_a_config_that_is_no_text_is_refused():
    with pytest.raises(UserError, match="export_lm"):
        audiocraft.read({}, {"xp.cfg": {"a": 1}}, "x")


def test_what_is_missing_or_does_not_fit_is_said(capsys, tmp_path, models, parts):
    """With the name of the text encoder that the config tells."""
    model = rj.MusicGen.load(models["text"])
    path = write(tmp_path / "state_dict.bin", model, config_of())
    words, codec, text = ["import", path, "--out", tmp_path / "out"], parts[:2], parts[2:]
    refuses(capsys, *words, say=("--codec", "--text", "a folder of t5-base"))
    refuses(capsys, *words, *codec, say=("--text",))
    refuses(capsys, *words, *text, say=("compression_state_dict.bin",))
    refuses(capsys, *words, *parts, "--kind", "dac", say=("token model", "--kind"))
    refuses(capsys, *words, "--codec", tmp_path / "gone", *text, say=("gone is not there",))
    refuses(capsys, *words, *codec, "--text", tmp_path / "gone", say=("gone is not a model",))
    # A T5 that is too wide, a codec of other codes.
    small_folders.text_encoder(tmp_path / "words")
    wide = dataclasses.replace(T5, dim=20)
    leaves = small_folders.filled(small_folders.texts.leaf_shapes(wide))
    tokenizer = small_folders.load_tokenizer(tmp_path / "words")
    small_folders.TextEncoder.of_leaves(wide, leaves, tokenizer).save(tmp_path / "wide")
    refuses(capsys, *words, *codec, "--text", tmp_path / "wide", say=("20 features", "t5-base"))
    small_folders.codec(3, 32).save(tmp_path / "other")
    refuses(capsys, *words, "--codec", tmp_path / "other", *text, say=("3 levels of 32", "3 of 16"))
    small_folders.codec(2, 16).save(tmp_path / "two")
    refuses(capsys, *words, "--codec", tmp_path / "two", *text, say=("2 levels of 16", "3 of 16"))
    # A codec's file takes neither.
    model.codec.save(tmp_path / "mine")
    file = tmp_path / "mine" / "model.safetensors"
    refuses(capsys, "import", file, "--out", tmp_path / "out", *codec, say=("no token model",))
    assert not (tmp_path / "out").exists()


DAMAGE = {
    "a tensor short": (lambda t: t.pop("transformer.layers.0.norm1.weight"), ["1 missing"]),
    "a tensor too many": (
        lambda t: t.update({"transformer.layers.0.layer_scale": np.ones(4)}),
        ["1 unknown", "layer_scale"],
    ),
    "no captions": (
        lambda t: t.pop(f"{CONDITIONERS}description.output_proj.weight"),
        ["reads captions", "output_proj.weight is missing"],
    ),
    "NaN": (lambda t: t["emb.1.weight"].fill(np.nan), ["embed_tokens.1.weight", "not finite"]),
    "heads of another size": (
        lambda t: t.update({"linears.2.weight": np.ones((9, 16))}),
        ["lm_heads.2.weight is (9, 16), not (16, 16)"],
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_tensors_that_do_not_fit_are_named(capsys, tmp_path, models, parts, case):
    change, say = DAMAGE[case]
    whole = original(tensors_of(rj.MusicGen.load(models["text"])))
    tensors = {name: np.array(value) for name, value in whole.items()}
    change(tensors)
    path = tmp_path / "state_dict.bin"
    path.write_bytes(torch_bytes(tensors, {"xp.cfg": config_of()}, "best_state"))
    words = ["import", path, "--out", tmp_path / "out", *parts]
    refuses(capsys, *words, say=("state_dict.bin", *say))
    assert not (tmp_path / "out").exists()


def test_the_text_encoder_and_what_is_computed_are_left_behind(tmp_path, models, parts):
    """As files have them whose T5 was trained along."""
    model = rj.MusicGen.load(models["melody"])
    tensors = original(tensors_of(model))
    assert f"{CONDITIONERS}self_wav.chroma.spec.window" in tensors
    tensors[f"{CONDITIONERS}description.t5.shared.weight"] = np.ones((3, 3))
    path = tmp_path / "state_dict.bin"
    path.write_bytes(torch_bytes(tensors, {"xp.cfg": config_of("melody")}, "best_state"))
    again = from_audiocraft.load(path, parts[1], parts[3])
    for name, value in tensors_of(again).items():
        np.testing.assert_array_equal(value, tensors_of(model)[name])
