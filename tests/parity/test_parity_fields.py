"""Every field of an EnCodec's config that transformers' format keeps means the same there."""

import jax
import numpy as np
import pytest
from config_changes import BASES, CHANGES, KEPT, changed
from small_lm import filled
from tiers import wide

import rvq_jax as rj
from rvq_jax import quantize
from rvq_jax.codec import autoencoder
from rvq_jax.convert import folder
from rvq_jax.systems import exporting

REASON = "the parity peers are not installed"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)

import musicgen_peers as peers  # noqa: E402

jax.config.update("jax_default_matmul_precision", "highest")

# What export adds an LSTM of zeros to, and what the format has.
ROWS = [{"seanet.lstm_layers": 0}, *(each for each, fate in CHANGES["encodec"] if fate == KEPT)]
TIES = 0.02  # the share of frames that rounding may decide


def noise(channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, 823, channels)).astype(np.float32)


def louder(params):
    """As loud at the frame rate as the audio is, and no constant, beside which all is rounding."""

    def scaled(path, leaf):
        return leaf * (0.05 if "bias" in jax.tree_util.keystr(path) else 4)

    return jax.tree_util.tree_map_with_path(scaled, params)


def codec_of(config) -> rj.Codec:
    """Random, of biases too, and codewords where latents lie, as those of trained ones do."""
    made = rj.Codec.init(config, jax.random.key(0))
    made = rj.Codec(config, louder(filled(made.params)), made.quantizer)
    latents_BFD = autoencoder.latents(*made.prepared[:2], noise(config.channels, 1))
    mean_D, std_D = (np.asarray(x) for x in (latents_BFD.mean((0, 1)), latents_BFD.std((0, 1))))
    shape = config.levels, config.codebook_size, config.dim
    vectors_KND = std_D * np.random.default_rng(2).normal(size=shape)
    vectors_KND *= 0.6 ** np.arange(config.levels)[:, None, None]
    vectors_KND[0] += mean_D
    return rj.Codec(config, made.params, quantize.Codebooks.of(vectors_KND.astype(np.float32)))


@torch.no_grad()
def codes_and_audio(peer, audio_BCS):
    """Codes `[B, K, F]` and audio `[B, S, C]` of theirs."""
    found = peer.encode(audio_BCS, bandwidth=peer.config.target_bandwidths[-1])
    last = found.last_frame_pad_length
    audio = peer.decode(found.audio_codes, found.audio_scales, last_frame_pad_length=last)
    codes = torch.cat(list(found.audio_codes), dim=-1)
    return codes[..., : codes.shape[-1] - last].numpy(), audio.audio_values.mT.numpy()


@pytest.mark.parametrize("changes", [wide(x) if i % 2 else x for i, x in enumerate(ROWS)], ids=str)
def test_codes_and_audio_are_theirs(changes, tmp_path):
    codec = codec_of(changed(BASES["encodec"], changes))
    exporting.codec(codec, "F").save(tmp_path / "m")
    peer, said = transformers.AutoModel.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not any(said[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    audio = noise(codec.config.channels)
    theirs, decoded = codes_and_audio(peer.eval(), torch.from_numpy(audio).mT)
    coded = codec.encode(audio)
    assert coded.codes.shape == theirs.shape
    assert (np.asarray(coded.codes) != theirs).any(axis=1).mean() <= TIES
    assert len(np.unique(theirs)) > codec.config.codebook_size // 2
    ours = codec.decode(coded._replace(codes=theirs))
    peak = np.abs(decoded).max()
    np.testing.assert_allclose(ours, decoded[:, : audio.shape[1]], atol=1e-4 * peak)


def test_an_lstm_of_no_layers_is_none_of_theirs():
    """Which is why an exported codec has one that adds nothing."""
    fields = {"num_filters": 4, "hidden_size": 8, "upsampling_ratios": [3, 2]}
    with pytest.raises(ValueError, match="num_layers"):
        transformers.EncodecModel(transformers.EncodecConfig(**fields, num_lstm_layers=0))


@pytest.mark.parametrize("make", ["dac", "mimi"])
def test_their_musicgen_generates_by_no_other_codec(make):
    """Which is why a MusicGen of those has a folder of our own."""
    config = changed(BASES[make], {"codebook_size": peers.DECODER["vocab_size"]})
    parts = {
        "text_encoder": transformers.T5Config(**peers.T5).to_dict(),
        "audio_encoder": folder.to_fields(config),
        "decoder": peers.DECODER | {"num_codebooks": config.levels},
    }
    model = transformers.MusicgenForConditionalGeneration(transformers.MusicgenConfig(**parts))
    model.generation_config.decoder_start_token_id = model.generation_config.pad_token_id = 64
    with pytest.raises((TypeError, RuntimeError)):
        model.generate(input_ids=torch.tensor([[4, 5, 1]]), max_new_tokens=12)
