"""Whole codecs against transformers, through folders both ways."""

import jax
import numpy as np
import pytest
from tiers import wide

import rvq_jax as rj

REASON = "the parity peers are not installed"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)

jax.config.update("jax_default_matmul_precision", "highest")

ENCODEC = {
    "encodec_24khz": {},
    "encodec_48khz": {
        "sampling_rate": 48_000,
        "audio_channels": 2,
        "normalize": True,
        "chunk_length_s": 1.0,
        "overlap": 0.01,
        "norm_type": "time_group_norm",
        "use_causal_conv": False,
        "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
    },
    "encodec_32khz": {
        "sampling_rate": 32_000,
        "num_filters": 64,
        "upsampling_ratios": [8, 5, 4, 4],
        "use_causal_conv": False,
        "use_conv_shortcut": False,
        "codebook_size": 2048,
        "target_bandwidths": [2.2],
    },
    "encodec_16khz": {
        "sampling_rate": 16_000,
        "num_filters": 64,
        "use_causal_conv": False,
        "use_conv_shortcut": False,
        "codebook_size": 2048,
        "target_bandwidths": [2.2],
        "pad_mode": "constant",
    },
}
DAC = {
    "dac_16khz": {"sampling_rate": 16_000, "downsampling_ratios": [2, 4, 5, 8], "n_codebooks": 12},
    "dac_24khz": {"sampling_rate": 24_000, "downsampling_ratios": [2, 4, 5, 8], "n_codebooks": 32},
    "dac_44khz": {"sampling_rate": 44_100, "downsampling_ratios": [2, 4, 8, 8], "n_codebooks": 9},
}
MIMI = {
    "tiny": {
        "num_filters": 4,
        "hidden_size": 32,
        "upsample_groups": 32,
        "vector_quantization_hidden_dimension": 16,
        "codebook_dim": 16,
        "codebook_size": 64,
        "num_quantizers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 2,
        "intermediate_size": 48,
        "sliding_window": 20,
    },
    "published": {},
}
TIES = 1e-4  # the share of codes that rounding may decide


def sounds(batch, samples, channels, rate, seed=0):
    """Sines and noise, louder and softer."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples)[None, :, None] / rate
    hertz = rng.uniform(100, rate / 6, (batch, 1, channels))
    audio = 0.3 * np.sin(2 * np.pi * hertz * t) + 0.1 * rng.standard_normal(
        (batch, samples, channels)
    )
    return (audio * (0.4 + 0.6 * np.sin(3 * t) ** 2)).astype(np.float32)


@torch.no_grad()
def encodec_peer(seed=0, **fields):
    """An EncodecModel whose codebooks lie where its latents do, as trained ones would."""
    torch.manual_seed(seed)
    peer = transformers.EncodecModel(transformers.EncodecConfig(**fields)).eval()
    config = peer.config
    for module in peer.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.weight.uniform_(0.8, 1.2)
            module.bias.uniform_(-0.1, 0.1)
    x = torch.from_numpy(
        sounds(4, config.sampling_rate // 2, config.audio_channels, config.sampling_rate, 9)
    ).mT
    residual = peer.encoder(x).mT.reshape(-1, config.hidden_size)
    for layer in peer.quantizer.layers:
        book = layer.codebook
        mean, std = residual.mean(0), residual.std(0)
        book.embed.copy_(mean + std * torch.randn_like(book.embed))
        book.cluster_size.uniform_(1, 4)
        book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
        residual = residual - book.decode(book.quantize(residual))
    return peer


COMPARED = []  # (ties, codes) of every comparison


@pytest.fixture(scope="module", autouse=True)
def ties_are_rare():
    """Over all comparisons, for one tie among a few thousand codes is no rate."""
    yield
    ties, codes = np.sum(COMPARED, axis=0)
    print(f"{ties} ties in {codes} codes")
    assert ties <= max(1, TIES * codes)


def same_codes(ours_BKF, theirs_BKF):
    """Identical but for one tie at rounding.

    A tie is where a frame's codes first differ: the levels after it see another residual.
    """
    ours, theirs = np.asarray(ours_BKF), np.asarray(theirs_BKF)
    assert ours.shape == theirs.shape
    ties = int((ours != theirs).any(axis=1).sum())
    COMPARED.append((ties, ours.size))
    assert ties <= 1


def same_audio(ours_BSC, theirs_BCS):
    theirs_BSC = theirs_BCS.mT.numpy()
    peak = np.abs(theirs_BSC).max()
    np.testing.assert_allclose(ours_BSC, theirs_BSC[:, : ours_BSC.shape[1]], atol=1e-4 * peak)


def other_ways(codec, audio, coded):
    """In steps, and as a stream in pieces of random lengths, codes are those of the whole.

    But for ties: a program for another length adds in another order. On codecs small enough to
    have none, tests/codec/test_codec_ways.py compares all codes.
    """
    same_codes(codec.encode(audio, chunk=0.3).codes, coded.codes)
    if not codec.config.causal:
        return
    rng = np.random.default_rng(1)
    stream, codes, at = codec.encode_stream(batch=len(audio)), [], 0
    while at < audio.shape[1]:
        piece = int(rng.integers(1, 3 * codec.config.hop))
        codes.append(stream.push(audio[:, at : at + piece]))
        at += piece
    codes.append(stream.close())
    same_codes(np.concatenate(codes, axis=2), coded.codes)


def round_trip(peer, codec, folder):
    """Ours written and read by the reference: the same tensors to the bit, the same config."""
    codec.save(folder)
    again = type(peer).from_pretrained(folder)
    mine, yours = again.state_dict(), peer.state_dict()
    assert mine.keys() == yours.keys()
    for key in mine:
        assert torch.equal(mine[key], yours[key]), key
    for field, value in peer.config.to_diff_dict().items():
        if not field.startswith(("_", "transformers", "dtype", "architectures")):
            assert getattr(again.config, field) == value, field


def sizes(names, *published):
    """Each of some codecs in small, and as published those that are named; `-m wide` the others."""
    large = [(n, "published") if n in published else wide(n, "published") for n in names]
    return [(n, "tiny") for n in names] + large


@pytest.mark.parametrize(("name", "size"), sizes(ENCODEC, "encodec_24khz", "encodec_48khz"))
def test_encodec(name, size, tmp_path):
    """Codes, loudness, audio and weights, of the published architectures."""
    fields = dict(ENCODEC[name])
    if size == "tiny":
        # Four levels: more would leave nothing but rounding in 16 dimensions.
        fields |= {"num_filters": 4, "hidden_size": 16, "codebook_size": 64}
        fields["target_bandwidths"] = [{"encodec_24khz": 1.8, "encodec_48khz": 3.6}.get(name, 1.2)]
    peer = encodec_peer(**fields)
    config = peer.config
    peer.save_pretrained(tmp_path / "theirs")
    codec = rj.Codec.load(tmp_path / "theirs")
    assert codec.config.levels == config.num_quantizers
    samples = int(1.37 * config.sampling_rate)
    audio = sounds(2, samples, config.audio_channels, config.sampling_rate)
    with torch.no_grad():
        theirs = peer.encode(torch.from_numpy(audio).mT, bandwidth=config.target_bandwidths[-1])
        last = theirs.last_frame_pad_length
        decoded = peer.decode(
            theirs.audio_codes, theirs.audio_scales, last_frame_pad_length=last
        ).audio_values
    codes = torch.cat(list(theirs.audio_codes), dim=-1)
    codes = codes[..., : codes.shape[-1] - last].int().numpy()
    coded = codec.encode(audio)
    same_codes(coded.codes, codes)
    if config.normalize:
        np.testing.assert_allclose(coded.scales, torch.cat(theirs.audio_scales, 1), rtol=1e-6)
    same_audio(codec.decode(coded._replace(codes=codes)), decoded)
    other_ways(codec, audio, coded)
    round_trip(peer, codec, tmp_path / "ours")


@torch.no_grad()
def dac_peer(seed=0, **fields):
    """A DacModel with slopes of its own and codebooks where its projected latents lie."""
    torch.manual_seed(seed)
    peer = transformers.DacModel(transformers.DacConfig(**fields)).eval()
    for name, parameter in peer.named_parameters():
        if name.endswith("alpha"):
            parameter.uniform_(0.5, 1.5)
        elif parameter.ndim == 3:
            # The reference's start fades the signal out. A sum over many residual units must not
            # grow either, or the sines' phases turn rounding into noise.
            fan_in = parameter[0].numel() if "conv_t" not in name else 2 * parameter.shape[0]
            scale = 0.2 if "res_unit" in name or name == "decoder.conv2.weight" else 0.8
            parameter.normal_(0, scale * fan_in**-0.5)
        elif name.endswith("bias"):
            parameter.uniform_(-0.02, 0.02)
        else:
            parameter.normal_()
    return peer


@pytest.mark.parametrize(("name", "size"), sizes(DAC, "dac_44khz"))
def test_dac(name, size, tmp_path):
    """Codes, audio and weights, of the published architectures."""
    small = {"encoder_hidden_size": 4, "decoder_hidden_size": 48}
    peer = dac_peer(**DAC[name] | (small if size == "tiny" else {}))
    config = peer.config
    peer.save_pretrained(tmp_path / "theirs")
    codec = rj.Codec.load(tmp_path / "theirs")
    samples = 40 * config.hop_length
    audio = sounds(2, samples, 1, config.sampling_rate)
    with torch.no_grad():
        codes = peer.encode(torch.from_numpy(audio).mT).audio_codes
        decoded = peer.decode(audio_codes=codes).audio_values
    coded = codec.encode(audio)
    same_codes(coded.codes, codes)
    ours = codec.decode(coded._replace(codes=codes.int().numpy()))
    assert ours.shape == audio.shape
    same_audio(ours[:, : decoded.shape[-1]], decoded[:, None])
    other_ways(codec, audio, coded)
    round_trip(peer, codec, tmp_path / "ours")


@torch.no_grad()
def mimi_peer(**fields):
    """A MimiModel whose every layer matters and whose codebooks lie where its latents do."""
    torch.manual_seed(0)
    peer = transformers.MimiModel(transformers.MimiConfig(**fields)).eval()
    config = peer.config
    for name, parameter in peer.named_parameters():
        if name.endswith(("layernorm.weight", "scale")):
            parameter.uniform_(0.1, 0.5)
        elif parameter.ndim == 3:
            fan_in = parameter[0].numel() if "layers" in name else parameter.shape[-1]
            parameter.normal_(0, fan_in**-0.5)
    x = torch.from_numpy(sounds(2, 96 * 1920, 1, 24_000, 9)).mT
    latents = peer.encoder(x).latents
    parts = peer.quantizer.semantic_residual_vector_quantizer
    for part in (parts, peer.quantizer.acoustic_residual_vector_quantizer):
        residual = part.input_proj(latents).mT.reshape(-1, config.codebook_dim)
        for layer in part.layers:
            book = layer.codebook
            book.cluster_usage.uniform_(1, 4)
            drawn = residual.mean(0) + residual.std(0) * torch.randn_like(book.embed_sum)
            book.embed_sum.copy_(drawn * book.cluster_usage[:, None])
            book._embed = None
            residual = residual - book.decode(book.quantize(residual))
    return peer


@pytest.mark.parametrize("size", MIMI)
def test_mimi(size, tmp_path):
    """Codes, audio and weights; 24.3 frames, so that every kind of padding at the end is met."""
    peer = mimi_peer(**MIMI[size])
    peer.save_pretrained(tmp_path / "theirs")
    codec = rj.Codec.load(tmp_path / "theirs")
    audio = sounds(2, int(24.3 * 1920), 1, 24_000)
    with torch.no_grad():
        codes = peer.encode(torch.from_numpy(audio).mT).audio_codes
        decoded = peer.decode(codes).audio_values
    coded = codec.encode(audio)
    same_codes(coded.codes, codes)
    same_audio(codec.decode(coded._replace(codes=codes.int().numpy())), decoded)
    other_ways(codec, audio, coded)
    round_trip(peer, codec, tmp_path / "ours")
