"""Exported programs give the same codes and audio where the package is not to be had."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from tiers import tried

import rvq_jax as rj
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.mimi import MimiConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.codec.transformer import TransformerConfig
from rvq_jax.errors import UserError
from rvq_jax.offline import stablehlo

pytest.importorskip("flatbuffers", reason="jax.export serializes with it")

SMALL = {"dim": 6, "filters": 4, "ratios": (3, 2), "kernel": 5, "last_kernel": 3}
CONFIGS = {
    "mirrored": CodecConfig(600, SEANetConfig(**SMALL), levels=3, codebook_size=16),
    "centred": CodecConfig(600, SEANetConfig(**SMALL, causal=False), levels=3, codebook_size=16),
    "mimi": MimiConfig(
        1200,
        SEANetConfig(**SMALL, true_skip=True, lstm_layers=0, norm="none", pad_mode="constant"),
        TransformerConfig(6, 2, 2, 2, 4, 16, context=9, layer_scale=0.3),
        levels=3,
        codebook_size=16,
        code_dim=4,
    ),
}

# What a user of the artefact writes; it must not find this package.
ALONE = """
import json, sys
import jax, jax.export
import numpy as np
sys.modules["rvq_jax"] = None
folder, audio = sys.argv[1], np.load(sys.argv[2])
about = json.load(open(folder + "/artefact.json"))
programs = {
    name: jax.export.deserialize(open(f"{folder}/{name}.stablehlo", "rb").read())
    for name in about["programs"]
}
stored = np.load(folder + "/weights.npz")
weights = [stored[name] for name in stored.files]
assert programs["encode"].platforms == ("cpu", "cuda", "tpu")
found = {"codes": programs["encode"].call(weights, audio)}
found["audio"] = programs["decode"].call(weights, found["codes"])
if "encode_step" in programs:
    hop, first = about["hop"], about["first_frames"]
    codes, states = programs["encode_first"].call(weights, audio[:, : first * hop])
    sound, after = programs["decode_first"].call(weights, codes)
    all_codes, all_audio = [codes], [sound]
    for f in range(first, about["frames"]):
        codes, states = programs["encode_step"].call(
            weights, audio[:, f * hop : (f + 1) * hop], states
        )
        sound, after = programs["decode_step"].call(weights, codes, after)
        all_codes.append(codes)
        all_audio.append(sound)
    found["stream_codes"] = np.concatenate(all_codes, 2)
    found["stream_audio"] = np.concatenate(all_audio, 1)
np.savez(sys.argv[3], **found)
"""


# Its programs are encode, decode and the steps of both.
@pytest.mark.parametrize("name", tried(["mirrored"], CONFIGS))
def test_programs_run_without_the_package(name, tmp_path):
    codec = rj.Codec.init(CONFIGS[name], jax.random.key(0))
    frames = 15
    stablehlo.write(codec, tmp_path / "out", frames / codec.config.frame_rate, batch=2)
    shape = 2, frames * codec.config.hop, 1
    audio = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    np.save(tmp_path / "audio.npy", audio)
    found = tmp_path / "found.npz"
    words = [sys.executable, "-c", ALONE, tmp_path / "out", tmp_path / "audio.npy", found]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.load(found)
    coded = codec.encode(audio)
    decoded = codec.decode(coded)
    close = {"atol": 1e-4 * np.abs(decoded).max()}
    np.testing.assert_array_equal(found["codes"], coded.codes)
    np.testing.assert_allclose(found["audio"], decoded, **close)
    if codec.config.causal:
        np.testing.assert_array_equal(found["stream_codes"], coded.codes)
        np.testing.assert_allclose(found["stream_audio"], decoded, **close)


def test_segments_are_refused(tmp_path):
    config = CodecConfig(
        600, SEANetConfig(**SMALL, causal=False), levels=2, codebook_size=8, segment=1.0
    )
    codec = rj.Codec.init(config, jax.random.key(0))
    with pytest.raises(UserError, match="no single program"):
        stablehlo.write(codec, tmp_path / "out")
    assert not list(tmp_path.iterdir())
