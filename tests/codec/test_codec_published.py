"""Folders of transformers: codes, audio and weights as there, without torch.

The fixtures are written by tests/parity/make_codec_fixtures.py; tests/parity has the published
sizes.
"""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from tiers import slow, tried

import rvq_jax as rj
from rvq_jax.convert import names, tensors
from rvq_jax.errors import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "codecs"
NAMES = sorted(path.name for path in FIXTURES.iterdir())
pytest.importorskip("safetensors", reason="the folders are read with it")


def stored(name):
    with np.load(FIXTURES / name / "expected.npz") as arrays:
        return dict(arrays)


def copy(name, to, **changes):
    """A fixture's folder with other fields in its config."""
    shutil.copytree(FIXTURES / name, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | changes))
    return to


@pytest.mark.parametrize("name", tried(["dac", "encodec_48khz", "mimi"], NAMES))
def test_codes_and_audio(name):
    """All codes; audio to rounding; nothing of the audio's length is lost."""
    codec, expected = rj.Codec.load(FIXTURES / name), stored(name)
    coded = codec.encode(expected["audio"])
    # Else every call would copy them there.
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(codec.prepared[1:]))
    np.testing.assert_array_equal(coded.codes, expected["codes"])
    if "scales" in expected:
        np.testing.assert_allclose(coded.scales, expected["scales"], rtol=1e-6)
    decoded = np.asarray(codec.decode(coded))
    assert decoded.shape == expected["audio"].shape
    want = expected["decoded"][:, : decoded.shape[1]]
    close = 1e-5 * np.abs(want).max()
    np.testing.assert_allclose(decoded[:, : want.shape[1]], want, atol=close)
    # What DAC's odd strides lose is silence.
    assert not decoded[:, want.shape[1] :].any()


@pytest.mark.parametrize("name", NAMES)
def test_weights_go_back_as_they_came(name, tmp_path):
    """Written, the same tensors to the bit; read again, the same codec."""
    codec = rj.Codec.load(FIXTURES / name)
    codec.save(tmp_path / "ours")
    ours, theirs = (
        names.canonical(tensors.load_folder(path)) for path in (tmp_path / "ours", FIXTURES / name)
    )
    assert ours.keys() == theirs.keys()
    for key in ours:
        np.testing.assert_array_equal(ours[key].reshape(-1), theirs[key].reshape(-1), key)
        # Some versions save a flag as a number, some as an array of one.
        assert ours[key].shape == theirs[key].shape or ours[key].size == 1
    again = rj.Codec.load(tmp_path / "ours")
    assert again.config == codec.config
    jax.tree.map(np.testing.assert_array_equal, again.quantizer, codec.quantizer)


@pytest.mark.parametrize("name", NAMES)
def test_quantizers_trained_here_are_written_too(name, tmp_path):
    """Whatever the file keeps of a codebook: its vectors, or the means they are the ratio of."""
    loaded = rj.Codec.load(FIXTURES / name)
    codec = rj.Codec.init(loaded.config, jax.random.key(1))
    codec.save(tmp_path / "ours")
    again, audio = rj.Codec.load(tmp_path / "ours"), stored(name)["audio"]
    np.testing.assert_array_equal(again.encode(audio).codes, codec.encode(audio).codes)


@pytest.mark.parametrize(
    "name, changes, words",
    [
        ("encodec_24khz", {"model_type": "musicgen"}, "a model of type 'musicgen', not a codec"),
        ("encodec_24khz", {"num_filtres": 2}, "'num_filtres', did you mean 'num_filters'?"),
        (
            "encodec_24khz",
            {"num_filters": "two"},
            "a whole number in 1..131072, got 'two'",
        ),
        (
            "encodec_24khz",
            {"num_filters": 2.5},
            "num_filters must be a whole number in 1..131072",
        ),
        ("encodec_24khz", {"upsampling_ratios": []}, "upsampling_ratios must be a list of 1 to 10"),
        ("encodec_24khz", {"trim_right_ratio": 0.5}, "trim_right_ratio 0.5 is not supported"),
        ("encodec_24khz", {"norm_type": "batch"}, "norm_type must be one of"),
        ("encodec_24khz", {"pad_mode": "wrap"}, "pad_mode must be one of"),
        ("encodec_24khz", {"num_filters": 4}, "encoder.layers.0.conv.bias is (2,), not (4,)"),
        ("encodec_24khz", {"num_residual_layers": 2}, "missing"),
        ("encodec_48khz", {"use_causal_conv": True}, "time_group_norm"),
        ("dac", {"n_codebooks": 2}, "unknown"),
        ("dac", {"hidden_size": 9}, "hidden_size 9 is not supported"),
        ("mimi", {"hidden_act": "relu"}, "hidden_act 'relu' is not supported"),
        ("mimi", {"num_key_value_heads": 2}, "k_proj.weight"),
    ],
)
def test_folders_that_do_not_fit_are_refused_in_one_line(name, changes, words, tmp_path):
    with pytest.raises(UserError) as error:
        rj.Codec.load(copy(name, tmp_path / "folder", **changes))
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "audio, options, words",
    [
        (np.zeros((1, 9)), {}, "must be [B, S, 1]"),
        (np.zeros((1, 9, 2), np.float32), {}, "must be [B, S, 1]"),
        (np.zeros((1, 0, 1), np.float32), {}, "at least one sample"),
        (np.zeros((1, 9, 1), np.int16), {}, "must be float"),
        (np.full((1, 9, 1), np.nan, np.float32), {}, "must be finite"),
        (np.zeros((1, 9, 1), np.float32), {"levels": 4}, "levels must be in 1..3"),
        (np.zeros((1, 9, 1), np.float32), {"kbps": 0.1}, "kbps must be at least 0.40"),
        (np.zeros((1, 9, 1), np.float32), {"kbps": 1.0, "levels": 1}, "clash"),
        (np.zeros((1, 9, 1), np.float32), {"lengths": [10]}, "lengths must be"),
    ],
)
def test_audio_that_does_not_fit_is_refused(audio, options, words):
    codec = rj.Codec.load(FIXTURES / "encodec_24khz")
    with pytest.raises(ValueError) as error:
        codec.encode(audio, **options)
    assert words in str(error.value)


# The one that takes its loudness out.
@pytest.mark.parametrize("name", tried(["encodec_48khz"], NAMES))
@pytest.mark.parametrize("samples", [None, slow(600), slow(1)])
def test_silence(name, samples):
    """Loudness is never divided by zero. Without a number as many as the fixture has, whose
    programs are compiled."""
    codec = rj.Codec.load(FIXTURES / name)
    silent = np.zeros_like(stored(name)["audio"])
    if samples is not None:
        silent = np.zeros((1, samples, codec.config.channels), np.float32)
    decoded = codec.decode(codec.encode(silent))
    assert decoded.shape == silent.shape and np.isfinite(decoded).all()


def test_bandwidth_is_a_prefix_of_levels():
    codec, audio = rj.Codec.load(FIXTURES / "encodec_24khz"), stored("encodec_24khz")["audio"]
    whole = codec.encode(audio)
    for levels, kbps in ((1, 0.4), (2, 0.8), (2, 1.1), (3, 1.2), (3, 24.0)):
        np.testing.assert_array_equal(codec.encode(audio, kbps=kbps).codes, whole.codes[:, :levels])
        np.testing.assert_array_equal(codec.encode(audio, levels).codes, whole.codes[:, :levels])


def test_only_causal_codecs_stream():
    with pytest.raises(ValueError, match="only causal"):
        rj.Codec.load(FIXTURES / "dac").encode_stream()
