"""Audiocraft's MAGNeTs: imported, they compute what their file means, or are refused in a line."""

import dataclasses
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest
import small_folders
from audiocraft_files import CONDITIONERS, MAGNET_CONFIG, MAGNET_SIZES, magnet
from command import refuses, run
from small_codecs import torch_bytes
from tiers import slow

from rvq_jax import files
from rvq_jax.audio import io
from rvq_jax.convert import audiocraft
from rvq_jax.errors import UserError
from rvq_jax.lm import forms
from rvq_jax.lm.conditions import condition, drop
from rvq_jax.systems import from_audiocraft
from rvq_jax.systems.generators import load_generator
from rvq_jax.systems.magnet import Decoding, MAGNeT

K, N, _, _, E = MAGNET_SIZES.values()
F, CONTEXT, HEADS = 7, 1, 2  # as of MAGNET_CONFIG


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> list:
    """The flags that give a codec and a text encoder."""
    place = tmp_path_factory.mktemp("parts")
    small_folders.codec(K, N).save(place / "codec")
    small_folders.text_encoder(place / "words").save(place / "text")
    return ["--codec", place / "codec", "--text", place / "text"]


def write(path: Path, tensors: dict, config: str = MAGNET_CONFIG) -> Path:
    path.write_bytes(torch_bytes(tensors, {"xp.cfg": config}, "best_state"))
    return path


def imported(folder: Path, parts: list, tensors: dict, config: str = MAGNET_CONFIG) -> MAGNeT:
    path = write(folder / "state_dict.bin", tensors, config)
    return from_audiocraft.load(path, parts[1], parts[3])


def oracle(t: dict, tokens_KF: np.ndarray, level: int, text_LE: np.ndarray | None) -> np.ndarray:
    """Logits `[F, N]` of one row by the facts of its architecture, in float64; None: no text."""
    t = {name: value.astype(np.float64) for name, value in t.items()}
    x = sum(t[f"emb.{k}.weight"][tokens] for k, tokens in enumerate(tokens_KF))
    frames, dim = x.shape
    half = dim // 2
    angle = np.arange(frames)[:, None] / 10_000 ** (np.arange(half) / (half - 1))
    x = x + np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    stem = f"{CONDITIONERS}description.output_proj."
    text = np.zeros((1, dim))
    if text_LE is not None:
        text = text_LE @ t[f"{stem}weight"].T + t[f"{stem}bias"]
    far = np.abs(np.subtract.outer(np.arange(frames), np.arange(frames))) > CONTEXT
    unseen = far if level else np.zeros_like(far)

    def norm(x, name):
        y = x - x.mean(1, keepdims=True)
        y = y / np.sqrt((y**2).mean(1, keepdims=True) + 1e-5)
        return y * t[f"{name}.weight"] + t[f"{name}.bias"]

    def attend(x, to, name, unseen):
        wq, wk, wv = np.split(t[f"{name}.in_proj_weight"], 3)
        q, k, v = (y.reshape(len(y), HEADS, -1) for y in (x @ wq.T, to @ wk.T, to @ wv.T))
        scores = np.einsum("ihe,jhe->hij", q, k) / np.sqrt(dim / HEADS)
        weights = np.exp(np.where(unseen, -np.inf, scores))
        weights = weights / weights.sum(2, keepdims=True)
        return (
            np.einsum("hij,jhe->ihe", weights, v).reshape(len(x), dim)
            @ t[f"{name}.out_proj.weight"].T
        )

    erf = np.vectorize(math.erf)
    for i in range(MAGNET_SIZES["layers"]):
        layer = f"transformer.layers.{i}"
        y = norm(x, f"{layer}.norm1")
        x = x + attend(y, y, f"{layer}.self_attn", unseen)
        x = x + attend(norm(x, f"{layer}.norm_cross"), text, f"{layer}.cross_attention", False)
        y = norm(x, f"{layer}.norm2") @ t[f"{layer}.linear1.weight"].T
        x = x + y * (1 + erf(y / np.sqrt(2))) / 2 @ t[f"{layer}.linear2.weight"].T
    return norm(x, "out_norm") @ t[f"linears.{level}.weight"].T


@pytest.mark.parametrize("dim", [E, slow(16)])
def test_logits_are_those_that_the_file_means(tmp_path, parts, dim):
    """Near above the first level, with masks, padding, texts that are shorter or dropped; also of
    a model as wide as its text encoder, which projects all the same."""
    tensors = magnet(dim)
    model = imported(tmp_path, parts, tensors)
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, N + 1, (3, K, F))
    states = rng.normal(size=(3, 4, E)).astype(np.float32)
    mask = np.arange(4)[None] < np.array([4, 2, 4])[:, None]
    texts = drop({"text": condition(states, mask)}, where_B=np.arange(3) == 2)

    @jax.jit
    def logits(params, level, lengths):
        module = forms.model(model.config, params)
        return module.logits(tokens, level, module.read(texts), lengths)

    for level, lengths in (([0, 1, 2], [F, F - 2, F]), ([1, 0, 0], [F, F, F - 1])):
        found = logits(model.params, np.array(level), np.array(lengths))
        for i, text in enumerate((states[0], states[1, :2], None)):
            own = tokens[i, :, : lengths[i]]
            want = oracle(tensors, own, level[i], text)
            np.testing.assert_allclose(found[i, : lengths[i]], want, rtol=0, atol=1e-4)


def test_a_file_becomes_a_folder_that_generates(capsys, tmp_path, parts):
    """With what it was trained on at once, and how its config says that it decodes."""
    path = write(tmp_path / "state_dict.bin", magnet(E))
    words = ["import", path, "--out", tmp_path / "out", *parts]
    code, out, lines = run(capsys, *words)
    assert (code, lines) == (0, []) and out.startswith(f"magnet, {K} levels: ")
    code, out, lines = run(capsys, *words, "--json")
    assert json.loads(out) == {"model": str(tmp_path / "out"), "levels": K}
    stored = {path.name for path in (tmp_path / "out").iterdir()}
    assert stored == {"codec", "config.json", "text", "weights.npz"}
    model = load_generator(tmp_path / "out")
    config = model.config
    assert isinstance(model, MAGNeT)
    assert (config.levels, config.codebook_size, config.text_dim) == (K, N, E)
    assert (config.window, config.span, config.context) == (40, 2, CONTEXT)
    # As in audiocraft, top-p takes the place of top-k.
    want = Decoding((3, 1, 2), (20.0, 1.0), temperature=3.5, top_k=0, top_p=0.8)
    assert model.defaults == want
    again = from_audiocraft.load(path, parts[1], parts[3])
    jax.tree.map(np.testing.assert_array_equal, model.params, again.params)
    words = ["generate", "--model", tmp_path / "out", "--seconds", 0.2, "--prompt", "slow", "--out"]
    assert run(capsys, *words, tmp_path / "own.wav")[0] == 0
    said = ["--iterations", 3, 1, 2, "--temperature", 3.5, "--top-p", 0.8]
    plain = dataclasses.replace(model, defaults=Decoding())
    plain.save(tmp_path / "plain")
    assert MAGNeT.load(tmp_path / "plain").defaults == Decoding()
    audio = plain.generate(
        ["slow"], 0.2, jax.random.key(0), iterations=(3, 1, 2), temperature=3.5, top_p=0.8,
        guidance_scale=(20.0, 1.0),
    )  # fmt: skip
    own = io.read(tmp_path / "own.wav")[0]
    np.testing.assert_allclose(own, np.clip(audio[0], -1, 1), rtol=0, atol=2e-4)
    words[2] = tmp_path / "plain"
    assert run(capsys, *words, tmp_path / "other.wav", *said)[0] == 0
    assert np.abs(io.read(tmp_path / "other.wav")[0] - own).max() > 1e-3  # guidance from 10


def test_what_a_config_leaves_out_is_as_audiocrafts(tmp_path, parts):
    model = imported(tmp_path, parts, magnet(E), "lm_model: transformer_lm_magnet")
    assert (model.config.window, model.config.span, model.config.context) == (3000, 3, 5)
    assert model.defaults == Decoding() and model.iterations == (20, 10, 10)
    text = MAGNET_CONFIG.replace("subcodes_context: 1", "subcodes_context: -1")
    assert audiocraft.read(magnet(E), {"xp.cfg": text}, "x").lm.context is None


REFUSED = {
    "causal": ("causal: false", "causal: true", "causal True"),
    "a step before": ("empty_initial: -1", "empty_initial: 0", "parallel.empty_initial 0"),
    "delays": ("modeling: parallel", "modeling: delay", "codebooks_pattern.modeling 'delay'"),
    "other positions": ("embedding: sin", "embedding: rope", "positional_embedding 'rope'"),
    "no context": ("subcodes_context: 1", "subcodes_context: 0", "context must be at least 1"),
    "a context of text": ("subcodes_context: 1", "subcodes_context: near", "'near'"),
    "no span": ("span_len: 2", "span_len: 0", "span_len must be"),
    "overlapping spans": ("arrangement: nonoverlap", "arrangement: stride1", "'stride1'"),
    "scores multiplied": ("scoring: max", "scoring: prod", "span_scoring 'prod'"),
    "a warm text": ("temp: 3.5", "temp: warm", "temp must be"),
    "two levels": ("[3, 1, 2]", "[3, 1]", "decoding_steps are of 2 levels, its tensors of 3"),
    "no iterations": ("[3, 1, 2]", "[3, 0, 2]", "decoding_steps must be"),
    "seconds": ("segment_duration: 0.4", "segment_duration: -1", "segment_duration must be"),
    "another kind": ("lm_magnet", "lm_jasco", "only 'transformer_lm' and 'transformer_lm_magnet'"),
    "a MusicGen": ("lm_model: transformer_lm_magnet", "lm_model: transformer_lm", "causal False"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_configs_beyond_this_library_are_refused(tmp_path, parts, case):
    old, new, say = REFUSED[case]
    assert old in MAGNET_CONFIG
    with pytest.raises(UserError) as caught:
        imported(tmp_path, parts, magnet(E), MAGNET_CONFIG.replace(old, new))
    message = str(caught.value)
    assert "state_dict.bin" in message and say in message and "\n" not in message


DAMAGE = {
    "a tensor short": (lambda t: t.pop("transformer.layers.0.norm1.weight"), "1 missing"),
    "a bias": (lambda t: t.update({"linears.0.bias": np.ones(N)}), "lm_heads.0.bias"),
    "a melody": (
        lambda t: t.update({f"{CONDITIONERS}self_wav.output_proj.weight": np.ones((E, 12))}),
        "1 unknown",
    ),
    "no captions": (
        lambda t: t.pop(f"{CONDITIONERS}description.output_proj.weight"),
        "output_proj.weight is missing",
    ),
    "NaN": (lambda t: t["emb.1.weight"].fill(np.nan), "not finite"),
    "more levels than the codec has": (
        lambda t: t.update({n.replace(".0.", f".{k}."): t[n] for k in (3, 4, 5) for n in HEADED}),
        "3 levels of 16 codes",
    ),
}
HEADED = ("emb.0.weight", "linears.0.weight")


@pytest.mark.parametrize("case", DAMAGE)
def test_tensors_that_do_not_fit_are_named(capsys, tmp_path, parts, case):
    change, say = DAMAGE[case]
    tensors = magnet(E)
    change(tensors)
    path = write(tmp_path / "state_dict.bin", tensors, MAGNET_CONFIG.replace("[3, 1, 2]", "null"))
    refuses(capsys, "import", path, "--out", tmp_path / "out", *parts, say=("state_dict.bin", say))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("said", "say"),
    [
        ({"temperature": -1}, "temperature must be"),
        ({"warmth": 1}, "unknown field 'warmth'"),
        ({"guidance_scale": [1, 2, 3]}, "guidance_scale must be a list of 2"),
        ({"iterations": [3, 1]}, "iterations are of 3 levels"),
        (3, "must be an object"),
    ],
)
def test_a_folder_that_says_wrongly_how_it_decodes(tmp_path, said, say):
    config = audiocraft.read(magnet(E), {"xp.cfg": MAGNET_CONFIG}, "x").lm
    config = dataclasses.replace(config, text_dim=None)
    params = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), forms.abstract(config))
    MAGNeT(config, params, None).save(tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    files.write_json(path, json.loads(path.read_text()) | {"generation": said})
    with pytest.raises(UserError, match=say) as caught:
        MAGNeT.load(tmp_path / "out")
    assert "config.json: generation" in str(caught.value)
