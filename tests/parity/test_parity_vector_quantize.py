"""The same parameters give the same codes, losses and updates as vector-quantize-pytorch."""

import jax.numpy as jnp
import numpy as np
import pytest
from parity_same import assert_same_codes, plain

from rvq_jax import quantize

REASON = "the parity peers are not installed"
torch = pytest.importorskip("torch", reason=REASON)
vqp = pytest.importorskip("vector_quantize_pytorch", reason=REASON)

DIM, SIZE, LEVELS = 32, 64, 4
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def residual_vq(**options):
    """Their quantizer, its codebooks at our usual scale, and latents."""
    torch.manual_seed(0)
    peer = vqp.ResidualVQ(dim=DIM, codebook_size=SIZE, num_quantizers=LEVELS, **options)
    return peer, torch.randn(2, 50, DIM)


def test_codes_as_residual_vq():
    """Euclidean codebooks: same codes, same latents."""
    peer, latents_BFD = residual_vq()
    for k, layer in enumerate(peer.layers):
        layer._codebook.embed.normal_().mul_(0.7**k)
    quantized_BFD, codes_BFK, _ = peer.eval()(latents_BFD)
    state = plain(peer.codebooks)
    ours_BKF = quantize.encode(state, latents_BFD.numpy())
    assert_same_codes(ours_BKF, codes_BFK.mT, latents_BFD, peer.codebooks)
    decoded_BFD = quantize.decode(state, codes_BFK.mT.int().numpy())
    np.testing.assert_allclose(decoded_BFD, quantized_BFD, **CLOSE)


def test_beam_is_at_least_as_good_as_residual_vq():
    """The peer's beam ranks prefixes by the sum of all levels' errors, ours by what is left."""
    peer, latents_BFD = residual_vq(beam_size=5)
    for k, layer in enumerate(peer.layers):
        layer._codebook.embed.normal_().mul_(0.7**k)
    quantized_BFD, *_ = peer.eval()(latents_BFD)
    state, latents = plain(peer.codebooks), latents_BFD.numpy()
    decoded_BFD = quantize.decode(state, quantize.encode(state, latents, beam=5))
    ours, theirs = (np.mean((np.asarray(x) - latents) ** 2) for x in (decoded_BFD, quantized_BFD))
    assert ours <= theirs * (1 + 1e-6)


def test_codes_as_cosine_residual_vq():
    """Codebooks of unit vectors searched by cosine: same codes, same latents."""
    peer, latents_BFD = residual_vq(use_cosine_sim=True)
    quantized_BFD, codes_BFK, _ = peer.eval()(latents_BFD)
    state = plain(peer.codebooks, quantize.Cosine)
    assert_same_codes(quantize.encode(state, latents_BFD.numpy()), codes_BFK.mT)
    decoded_BFD = quantize.decode(state, codes_BFK.mT.int().numpy())
    np.testing.assert_allclose(decoded_BFD, quantized_BFD, **CLOSE)


def test_codes_as_grouped_residual_vq():
    """Groups of features: their codes [G, B, F, K], level by level, are ours."""
    torch.manual_seed(1)
    peer = vqp.GroupedResidualVQ(dim=DIM, groups=2, codebook_size=SIZE, num_quantizers=3)
    for group in peer.rvqs:
        for k, layer in enumerate(group.layers):
            layer._codebook.embed.normal_().mul_(0.7**k)
    latents_BFD = torch.randn(2, 50, DIM)
    quantized_BFD, codes_GBFK, _ = peer.eval()(latents_BFD)
    theirs_BKF = codes_GBFK.permute(1, 3, 0, 2).reshape(2, -1, 50)
    state = quantize.Grouped.of([plain(books_KND) for books_KND in peer.codebooks])
    assert_same_codes(quantize.encode(state, latents_BFD.numpy()), theirs_BKF)
    decoded_BFD = quantize.decode(state, theirs_BKF.int().numpy())
    np.testing.assert_allclose(decoded_BFD, quantized_BFD, **CLOSE)


@pytest.mark.parametrize(
    ("grid", "preserve_symmetry", "widen"),
    [((3, 5, 7), False, 1.001), ((2, 4, 5, 8), True, 1.0)],
)
def test_codes_as_fsq(grid, preserve_symmetry, widen):
    """Finite scalars: same codes and latents, given what our bound takes to their bounded value.

    Theirs bounds by widen * tanh(x), so that the outermost points own half a cell; ours by
    edge * tanh(x / edge), as their residual form does.
    """
    torch.manual_seed(2)
    peer = vqp.FSQ(list(grid), preserve_symmetry=preserve_symmetry)
    latents_BFD = 1.5 * torch.randn(2, 50, len(grid))
    quantized_BFD, codes_BF = peer(latents_BFD)
    edge_D = 1 + 1 / (np.array(grid, np.float64) - 1)
    preimage_BFD = edge_D * np.arctanh(widen * np.tanh(latents_BFD.double().numpy()) / edge_D)
    state = quantize.FSQ.init(1, grid)
    ours_BKF = quantize.encode(state, preimage_BFD.astype(np.float32))
    assert_same_codes(ours_BKF, codes_BF[:, None])
    np.testing.assert_allclose(quantize.decode(state, ours_BKF), quantized_BFD, **CLOSE)


def test_codes_as_residual_fsq():
    """Residual finite scalars: same codes, same latents."""
    torch.manual_seed(3)
    grid = (3, 5, 4, 8)
    peer = vqp.ResidualFSQ(levels=list(grid), num_quantizers=3, dim=len(grid))
    latents_BFD = 1.5 * torch.randn(2, 50, len(grid))
    quantized_BFD, codes_BFK = peer(latents_BFD)
    state = quantize.FSQ.init(3, grid)
    assert_same_codes(quantize.encode(state, latents_BFD.numpy()), codes_BFK.mT)
    decoded_BFD = quantize.decode(state, codes_BFK.mT.int().numpy())
    np.testing.assert_allclose(decoded_BFD, quantized_BFD, **CLOSE)


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0)])
def test_codes_and_losses_as_residual_lfq(weights):
    """Residual signs: same codes, latents, entropy losses and commitments of every level.

    Theirs clamps probabilities to 1e-5 before the logarithm: the entropies agree to 1e-4.
    """
    torch.manual_seed(4)
    peer = vqp.ResidualLFQ(
        dim=5,
        codebook_size=32,
        num_quantizers=3,
        entropy_loss_weight=weights[0],
        commitment_loss_weight=weights[1],
        diversity_gamma=1.0,
    )
    # Some are near the boundary, where the soft assignment is not sure.
    latents_BFD = torch.randn(2, 50, 5) * torch.rand(2, 50, 1)
    quantized_BFD, codes_BFK, losses_K = peer.train()(latents_BFD)
    state = quantize.LFQ.init(3, 5)
    out = quantize.quantize(state, jnp.asarray(latents_BFD.numpy()))
    assert_same_codes(out.codes, codes_BFK.mT)
    np.testing.assert_allclose(out.latents, quantized_BFD, **CLOSE)
    ours_K = out.entropy if weights[0] else out.commitment
    np.testing.assert_allclose(ours_K, losses_K, atol=1e-4, rtol=1e-4)


def test_codes_and_losses_as_residual_sim_vq():
    """Frozen codebooks behind a matrix: same codes, latents and losses."""
    torch.manual_seed(5)
    peer = vqp.ResidualSimVQ(dim=DIM, codebook_size=SIZE, num_quantizers=LEVELS)
    latents_BFD = torch.randn(2, 50, DIM)
    with torch.no_grad():
        quantized_BFD, codes_BFK, losses_K = peer.eval()(latents_BFD)
    state = quantize.SimVQ(
        jnp.stack([jnp.asarray(layer.frozen_codebook.numpy()) for layer in peer.layers]),
        jnp.stack(
            [jnp.asarray(layer.code_transform.weight.detach().numpy().T) for layer in peer.layers]
        ),
    )
    assert_same_codes(quantize.encode(state, latents_BFD.numpy()), codes_BFK.mT)
    out = quantize.quantize(state, jnp.asarray(latents_BFD.numpy()))
    np.testing.assert_allclose(out.latents, quantized_BFD, **CLOSE)
    np.testing.assert_allclose(out.codebook + 0.25 * out.commitment, losses_K, rtol=1e-5)


@torch.no_grad()
def test_codes_as_implicit_neural_codebooks():
    """Codewords moved by the sum of earlier levels: same codes, where the two networks meet.

    Theirs has other blocks (biases, SiLU) and no identity around its first map, so: no blocks.
    """
    peer, latents_BFD = residual_vq(implicit_neural_codebook=True, mlp_kwargs={"depth": 0})
    for layer in peer.layers:
        layer._codebook.embed.normal_()
    maps_K = [np.zeros((DIM, 2 * DIM), np.float32)]
    for mlp in peer.mlps:
        mlp.proj_in.bias.zero_()
        maps_K.append(mlp.proj_in.weight.numpy() - np.eye(DIM, 2 * DIM, DIM, dtype=np.float32))
    from_total, from_base = np.split(np.stack(maps_K).swapaxes(1, 2), 2, axis=1)
    state = quantize.QINCo(
        jnp.asarray(peer.codebooks.numpy()),
        jnp.asarray(from_base),
        jnp.asarray(from_total),
        jnp.zeros((LEVELS, 0, DIM, 1)),
        jnp.zeros((LEVELS, 0, 1, DIM)),
    )
    quantized_BFD, codes_BFK, _ = peer.eval()(latents_BFD)
    assert_same_codes(quantize.encode(state, latents_BFD.numpy()), codes_BFK.mT)
    decoded_BFD = quantize.decode(state, codes_BFK.mT.int().numpy())
    np.testing.assert_allclose(decoded_BFD, quantized_BFD, rtol=1e-4, atol=1e-4)
