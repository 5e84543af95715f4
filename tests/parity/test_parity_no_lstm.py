"""A codec without an LSTM, read by transformers from the folder that `rvq-jax export` writes."""

import jax
import numpy as np
import pytest
from command import run

import rvq_jax as rj
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.seanet import SEANetConfig

REASON = "the parity peers are not installed"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)

jax.config.update("jax_default_matmul_precision", "highest")

TIES = 1e-3  # the share of codes that rounding may decide, each with what follows it


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("exported") / "builtin"


def test_transformers_reads_it_to_the_same_codes(folder, capsys):
    """All of its tensors and no other ones, and every prefix of the levels by its bandwidth."""
    seanet = SEANetConfig(filters=4, dim=16, lstm_layers=0, ratios=(2, 4, 5, 8))
    config = CodecConfig(16_000, seanet, 8, 1024, bandwidths=(0.5, 1.0, 2.0, 4.0))
    codec = rj.Codec.init(config, jax.random.key(0))
    codec.save(folder.parent / "own")
    assert run(capsys, "export", folder.parent / "own", "--out", folder)[0] == 0
    peer, said = transformers.EncodecModel.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(said[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert tuple(peer.config.target_bandwidths) == codec.config.bandwidths
    rng = np.random.default_rng(0)
    t = np.arange(2 * 16_000) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * 330 * t) * np.exp(-t) + 0.02 * rng.normal(size=t.size)
    audio = tone.astype(np.float32)[None, :, None]
    for kbps in codec.config.bandwidths:
        with torch.no_grad():
            found = peer.eval().encode(torch.tensor(audio.transpose(0, 2, 1)), bandwidth=kbps)
            decoded = peer.decode(found.audio_codes, found.audio_scales)[0]
        theirs = found.audio_codes[0].numpy()
        coded = codec.encode(audio, kbps=kbps)
        assert theirs.shape == coded.codes.shape
        assert (np.asarray(coded.codes) != theirs).mean() <= TIES
        ours = codec.decode(coded._replace(codes=theirs))
        np.testing.assert_allclose(
            decoded.numpy().transpose(0, 2, 1)[:, : audio.shape[1]], ours, atol=1e-4
        )
