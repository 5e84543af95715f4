"""import and export: files as their projects publish them become folders with the same weights."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import small_folders
from command import refuses, run
from small_codecs import CONFIGS, ENCODEC, RATE, renamed, torch_bytes, weights

import rvq_jax as rj
from rvq_jax.codec.dac import DACConfig
from rvq_jax.convert import folder, names
from rvq_jax.offline import stablehlo
from rvq_jax.systems import dac, encodec, published_codecs


def original_dac(codec: rj.Codec) -> dict[str, np.ndarray]:
    """Names of descript's, and weight norm as if it had never been folded."""
    last = len(codec.config.ratios) + 1
    ends = {"encoder.block": ("conv1", "snake1", "conv2")}
    ends["decoder.model"] = ends["encoder.block"]
    rules = []
    for half, old in (("encoder", "encoder.block"), ("decoder", "decoder.model")):
        first = names.ENCODER_BLOCK if half == "encoder" else names.DECODER_BLOCK
        for i in range(last - 1):
            for j, part in enumerate(first):
                begin = rf"^{half}\.block\.{i}\.{part}\."
                rules.append((begin, rf"{old}.{i + 1}.block.{j}."))
        rules += [
            (rf"^{half}\.conv1\.", f"{old}.0."),
            (rf"^{half}\.snake1\.", f"{old}.{last}."),
            (rf"^{half}\.conv2\.", f"{old}.{last + 1}."),
        ]
    rules += [
        (rf"^(encoder\.block|decoder\.model)(.*)\.{unit}\.", rf"\1\2.block.{k}.")
        for k, unit in enumerate(names.UNIT)
    ]
    found = {}
    for name, value in renamed(weights(codec), rules).items():
        if not name.endswith(".weight") or "codebook" in name:
            found[name] = value
            continue
        inner = tuple(range(1, value.ndim))
        found[f"{name}_g"] = np.sqrt(np.square(value).sum(inner, keepdims=True))
        found[f"{name}_v"] = 3 * value
    return found


def imported(capsys, path, out, *words) -> rj.Codec:
    code, text, lines = run(capsys, "import", path, "--out", out, "--json", *words)
    assert (code, lines) == (0, [])
    assert json.loads(text)["codec"] == str(out)
    return rj.Codec.load(out)


def assert_same_weights(found: rj.Codec, expected: rj.Codec, **tolerance) -> None:
    assert found.config.prepared() == expected.config.prepared()
    ours, theirs = weights(found), weights(expected)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], err_msg=name, **tolerance)


@pytest.mark.parametrize("name", ["mono", "stereo"])
@pytest.mark.parametrize("kind", [None, "encodec_32khz"])
def test_an_encodec(capsys, tmp_path, monkeypatch, name, kind):
    """By itself as encodec writes it, or under "best_state"; its sizes are those of a system."""
    codec = rj.Codec.init(CONFIGS[name], jax.random.key(0))
    config = dataclasses.replace(codec.config, bandwidths=(1.2,))
    codec = dataclasses.replace(codec, config=config)
    monkeypatch.setitem(published_codecs.KINDS, "encodec_32khz", (names.encodec, (lambda: config,)))
    original = renamed(weights(codec), ENCODEC)
    assert "encoder.model.0.conv.conv.bias" in original
    assert "quantizer.vq.layers.0._codebook.embed" in original
    (tmp_path / "a.th").write_bytes(torch_bytes(original))
    words = [] if kind is None else ["--kind", kind]
    found = imported(capsys, tmp_path / "a.th", tmp_path / "codec", *words)
    assert_same_weights(found, codec, rtol=0)
    assert (tmp_path / "codec" / "model.safetensors").is_file()


def test_the_published_encodecs_have_what_their_names_say():
    """Segments and loudness at 48 kHz, and the bandwidths that users may ask for."""
    configs = {kind: sizes[0]() for kind, (_, sizes) in published_codecs.KINDS.items()}
    config = configs["encodec_48khz"]
    assert (config.normalize, config.segment, config.overlap) == (True, 1.0, 0.01)
    for kind in ("encodec_24khz", "encodec_48khz", "encodec_32khz", "encodec_16khz"):
        assert folder.module_of(configs[kind]).to_fields(configs[kind]) is not None
        fresh = getattr(encodec, kind)()
        assert (configs[kind].seanet, configs[kind].levels) == (fresh.seanet, fresh.levels)


@pytest.mark.parametrize(
    ("make", "rate", "frames", "kbps"),
    [
        (dac.dac_16khz, 16_000, 50, 6.0),
        (dac.dac_24khz, 24_000, 75, 24.0),
        (dac.dac_44khz, 44_100, 86.13, 7.75),
        (dac.dac_44khz_16kbps, 44_100, 86.13, 15.5),
    ],
)
def test_the_published_dacs(make, rate, frames, kbps):
    config = make()
    assert config.rate == rate
    assert config.frame_rate == pytest.approx(frames, abs=0.01)
    assert config.levels * 10 * config.frame_rate / 1000 == pytest.approx(kbps, abs=0.01)


@pytest.mark.parametrize("dim", [16, 8], ids=["in transformers' words", "latents of 16 kbps"])
def test_a_dac(capsys, tmp_path, dim):
    """Its file says its sizes; where transformers has no words, the folder is our own."""
    config = DACConfig(RATE, (2, 4), 4, 16, dim, levels=3, codebook_size=16, code_dim=3)
    codec = rj.Codec.init(config, jax.random.key(0))
    said = {
        "encoder_dim": 4,
        "encoder_rates": [2, 4],
        "latent_dim": None if dim == 16 else dim,
        "decoder_dim": 16,
        "decoder_rates": [4, 2],
        "n_codebooks": 3,
        "codebook_size": 16,
        "codebook_dim": 3,
        "quantizer_dropout": 0.5,
        "sample_rate": RATE,
    }
    original = original_dac(codec)
    assert "encoder.block.1.block.0.block.1.weight_g" in original
    assert "quantizer.quantizers.2.in_proj.weight_v" in original
    beside = {"metadata": {"kwargs": said, "logs": {}}}
    (tmp_path / "a.pth").write_bytes(torch_bytes(original, beside))
    found = imported(capsys, tmp_path / "a.pth", tmp_path / "codec")
    assert_same_weights(found, codec, rtol=1e-5, atol=1e-7)
    stored = {path.name for path in (tmp_path / "codec").iterdir()}
    theirs = {"model.safetensors", "preprocessor_config.json"}
    assert stored == {"config.json", *(theirs if dim == 16 else {"weights.npz"})}
    audio = np.random.default_rng(0).standard_normal((1, 100, 1)).astype("f4")
    np.testing.assert_array_equal(found.encode(audio).codes, codec.encode(audio).codes)
    said["decoder_rates"] = [2, 4]
    (tmp_path / "b.pth").write_bytes(torch_bytes(original, beside))
    words = ["import", tmp_path / "b.pth", "--out", tmp_path / "new"]
    refuses(capsys, *words, say=("b.pth", "decoder_rates"))
    said["encoder_rates"] = 7
    (tmp_path / "b.pth").write_bytes(torch_bytes(original, beside))
    refuses(capsys, *words, say=("b.pth", "metadata"))
    assert not (tmp_path / "new").exists()


def test_an_export_is_a_folder_of_transformers(capsys, tmp_path):
    """Over an older one too."""
    codec = rj.Codec.init(CONFIGS["mono"], jax.random.key(0))
    codec.save(tmp_path / "a")
    for _ in range(2):
        code, out, lines = run(capsys, "export", tmp_path / "a", "--out", tmp_path / "b")
        assert (code, lines) == (0, []) and "transformers" in out
    assert json.loads((tmp_path / "b" / "config.json").read_text())["model_type"] == "encodec"
    assert_same_weights(rj.Codec.load(tmp_path / "b"), rj.Codec.load(tmp_path / "a"), rtol=0)


def test_an_export_of_a_musicgen_is_a_folder_of_transformers(capsys, tmp_path):
    """Its codec gets the LSTM that it lacks; one that reads captions itself is refused."""
    model = small_folders.published("text", tmp_path / "words")
    model = dataclasses.replace(model, codec=small_folders.codec(3, 16, lstm_layers=0))
    model.save(tmp_path / "a")
    assert json.loads((tmp_path / "a" / "config.json").read_text())["model"] == "musicgen"
    assert run(capsys, "export", tmp_path / "a", "--out", tmp_path / "b")[0] == 0
    assert json.loads((tmp_path / "b" / "config.json").read_text())["model_type"] == "musicgen"
    audio = [
        made.generate(["slow piano"], 0.1, jax.random.key(0), top_k=1)
        for made in (model, rj.MusicGen.load(tmp_path / "b"))
    ]
    np.testing.assert_array_equal(*audio)
    small_folders.own().save(tmp_path / "own")
    words = "export", tmp_path / "own", "--out", tmp_path / "c"
    refuses(capsys, *words, say=("own: ", "text_dim None", "--text"))
    assert not (tmp_path / "c").exists()


def test_an_export_of_programs_takes_its_sizes(capsys, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(stablehlo, "write", lambda codec, *rest: given.append(rest))
    rj.Codec.init(CONFIGS["own"], jax.random.key(0)).save(tmp_path / "a")
    words = ["export", tmp_path / "a", "--out", tmp_path / "b", "--format", "stablehlo"]
    assert run(capsys, *words, "--seconds", 2, "--batch", 3)[0] == 0
    assert given == [(tmp_path / "b", 2.0, 3)]
