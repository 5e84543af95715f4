"""The same codebooks give the same codes and latents as in faiss and in transformers."""

import jax.numpy as jnp
import numpy as np
import pytest
from parity_same import assert_same_codes, plain

from rvq_jax import quantize

REASON = "the parity peers are not installed"
faiss = pytest.importorskip("faiss", reason=REASON)
torch = pytest.importorskip("torch", reason=REASON)
encodec = pytest.importorskip("transformers.models.encodec.modeling_encodec", reason=REASON)
dac = pytest.importorskip("transformers.models.dac.modeling_dac", reason=REASON)
mimi = pytest.importorskip("transformers.models.mimi.modeling_mimi", reason=REASON)

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def books_and_latents(seed, levels, size, dim, batch, frames):
    """Random codebooks, each level of a smaller scale, and latents."""
    rng = np.random.default_rng(seed)
    scale_K11 = 0.7 ** np.arange(levels)[:, None, None]
    books_KND = (rng.normal(size=(levels, size, dim)) * scale_K11).astype(np.float32)
    return books_KND, rng.normal(size=(batch, frames, dim)).astype(np.float32)


def faiss_quantizer(books_KND, beam, use_lut=False):
    """faiss's residual quantizer of given codebooks."""
    levels, size, dim = books_KND.shape
    peer = faiss.ResidualQuantizer(dim, levels, size.bit_length() - 1)
    faiss.copy_array_to_vector(books_KND.reshape(-1), peer.codebooks)
    peer.max_beam_size = beam
    peer.use_beam_LUT = int(use_lut)
    if use_lut:
        peer.compute_codebook_tables()
    peer.is_trained = True
    return peer


@pytest.mark.parametrize(("dim", "levels"), [(32, 8), (128, 4)])
def test_greedy_codes_as_faiss(dim, levels):
    """A beam of 1 gives faiss's codes and faiss's decoded latents."""
    books_KND, latents_BFD = books_and_latents(0, levels, 256, dim, 2, 1000)
    peer = faiss_quantizer(books_KND, beam=1)
    # Codes of 8 bits: a packed byte is a code.
    packed_MK = peer.compute_codes(latents_BFD.reshape(-1, dim))
    theirs_BKF = packed_MK.reshape(2, 1000, levels).swapaxes(1, 2)
    ours_BKF = quantize.encode(plain(books_KND), latents_BFD)
    assert_same_codes(ours_BKF, theirs_BKF, latents_BFD, books_KND)
    decoded_BFD = quantize.decode(plain(books_KND), theirs_BKF.astype(np.int32))
    np.testing.assert_allclose(decoded_BFD.reshape(-1, dim), peer.decode(packed_MK), **CLOSE)


@pytest.mark.parametrize("use_lut", [False, True])
@pytest.mark.parametrize(("dim", "levels"), [(32, 8), (128, 4)])
def test_beam_error_as_faiss(dim, levels, use_lut):
    """A beam of 5 leaves faiss's mean squared error to 0.1 %, well below that of a beam of 1."""
    books_KND, latents_1MD = books_and_latents(1, levels, 256, dim, 1, 1000)
    peer = faiss_quantizer(books_KND, 5, use_lut)
    theirs_MD = peer.decode(peer.compute_codes(latents_1MD[0]))
    state = plain(books_KND)

    def error(beam, tables=None):
        codes = quantize.encode(state, latents_1MD, beam=beam, tables=tables)
        return np.mean((quantize.decode(state, codes) - latents_1MD) ** 2)

    theirs = np.mean((theirs_MD - latents_1MD[0]) ** 2)
    assert error(5) == pytest.approx(theirs, rel=1e-3)
    assert error(5, quantize.beam_tables(state)) == pytest.approx(theirs, rel=1e-3)
    assert error(5) < 0.99 * error(1)


@torch.no_grad()
def test_codes_as_encodec():
    """EnCodec's quantizer: same codes at every prefix of levels, same decoded latents."""
    books_KND, latents_BFD = books_and_latents(2, 8, 64, 32, 2, 50)
    config = encodec.EncodecConfig(
        codebook_size=64, codebook_dim=32, hidden_size=32, target_bandwidths=[3.6]
    )
    peer = encodec.EncodecResidualVectorQuantizer(config).eval()
    assert peer.num_quantizers == 8
    for layer, book_ND in zip(peer.layers, books_KND, strict=True):
        layer.codebook.embed.copy_(torch.from_numpy(book_ND))
    codes_KBF = peer.encode(torch.from_numpy(latents_BFD).mT)
    state = plain(books_KND)
    assert_same_codes(
        quantize.encode(state, latents_BFD), codes_KBF.transpose(0, 1), latents_BFD, books_KND
    )
    for levels in (1, 3, 8):
        decoded_BFD = quantize.decode(state, codes_KBF[:levels].transpose(0, 1).int().numpy())
        np.testing.assert_allclose(decoded_BFD, peer.decode(codes_KBF[:levels]).mT, **CLOSE)


def dac_state(peer):
    """Our state of a DAC quantizer's parameters."""
    parts = [
        (q.in_proj.weight[:, :, 0].T, q.in_proj.bias, q.out_proj.weight[:, :, 0].T, q.out_proj.bias)
        for q in peer.quantizers
    ]
    maps = (jnp.stack([jnp.asarray(x.numpy()) for x in part]) for part in zip(*parts, strict=True))
    vectors_KNE = torch.stack([q.codebook.weight for q in peer.quantizers])
    return quantize.Projected(*maps, plain(vectors_KNE, quantize.Cosine))


@torch.no_grad()
def test_codes_and_losses_as_dac():
    """DAC's quantizer: same codes, same latents (of a prefix too), same summed losses."""
    torch.manual_seed(3)
    config = dac.DacConfig(
        encoder_hidden_size=8, downsampling_ratios=[2, 2], n_codebooks=5, codebook_size=64
    )
    peer = dac.DacResidualVectorQuantizer(config).eval()
    latents_BDF = torch.randn(2, 32, 50)
    decoded_BDF, codes_BKF, _, commitment_B, codebook_B = peer(latents_BDF)
    state, latents_BFD = dac_state(peer), latents_BDF.mT.numpy()
    assert_same_codes(quantize.encode(state, latents_BFD), codes_BKF)
    out = quantize.quantize(state, jnp.asarray(latents_BFD))
    np.testing.assert_allclose(out.latents, decoded_BDF.mT, **CLOSE)
    np.testing.assert_allclose(out.commitment.sum(), commitment_B[0], rtol=1e-5)
    np.testing.assert_allclose(out.codebook.sum(), codebook_B[0], rtol=1e-5)
    prefix_BKF = codes_BKF[:, :2]
    decoded_BFD = quantize.decode(state, prefix_BKF.int().numpy())
    np.testing.assert_allclose(decoded_BFD, peer.from_codes(prefix_BKF)[0].mT, **CLOSE)


def mimi_part(peer):
    """Our state of one of Mimi's two residual quantizers."""
    books = plain(torch.stack([layer.codebook.embed for layer in peer.layers]))
    down, up = (
        jnp.asarray(conv.weight[:, :, 0].T.numpy()) for conv in (peer.input_proj, peer.output_proj)
    )
    return quantize.Bottleneck(down, up, books)


@torch.no_grad()
def test_codes_as_mimi():
    """Mimi's split quantizer: same codes of 1 + 5 levels, same latents at every prefix."""
    torch.manual_seed(4)
    config = mimi.MimiConfig(
        hidden_size=48,
        vector_quantization_hidden_dimension=32,
        codebook_dim=32,
        codebook_size=64,
        num_quantizers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    peer = mimi.MimiSplitResidualVectorQuantizer(config).eval()
    parts = peer.semantic_residual_vector_quantizer, peer.acoustic_residual_vector_quantizer
    for layer in [*parts[0].layers, *parts[1].layers]:
        layer.codebook.embed_sum.normal_()
        layer.codebook.cluster_usage.uniform_(1, 3)
    latents_BDF = torch.randn(2, 48, 50)
    codes_BKF = peer.encode(latents_BDF).transpose(0, 1)
    state = quantize.Split(*map(mimi_part, parts))
    assert_same_codes(quantize.encode(state, latents_BDF.mT.numpy()), codes_BKF)
    for levels in (1, 2, 6):
        prefix_BKF = codes_BKF[:, :levels]
        decoded_BFD = quantize.decode(state, prefix_BKF.int().numpy())
        np.testing.assert_allclose(decoded_BFD, peer.decode(prefix_BKF).mT, **CLOSE)
