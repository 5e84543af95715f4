"""Training steps and gradients as in vector-quantize-pytorch, and where they must differ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity_same import assert_same_codes

from rvq_jax import quantize

REASON = "the parity peers are not installed"
torch = pytest.importorskip("torch", reason=REASON)
vqp = pytest.importorskip("vector_quantize_pytorch", reason=REASON)
vqp_module = pytest.importorskip("vector_quantize_pytorch.vector_quantize_pytorch", reason=REASON)

DIM, SIZE, LEVELS, VECTORS = 16, 32, 4, 100
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def trained_pair(eps=1e-12, **options):
    """Their quantizer and our state, with the same codebooks, sums and counts, and latents.

    Their sums and counts are of vectors, ours are shares: theirs divided by the batch's vectors.
    """
    torch.manual_seed(0)
    peer = vqp.ResidualVQ(
        dim=DIM,
        codebook_size=SIZE,
        num_quantizers=LEVELS,
        decay=0.9,
        eps=eps,
        threshold_ema_dead_code=0,
        **options,
    ).train()
    for k, layer in enumerate(peer.layers):
        book = layer._codebook
        book.embed.normal_().mul_(0.7**k)
        book.cluster_size.uniform_(1, 4)
        book.embed_avg.copy_(book.embed * book.cluster_size[..., None] + 0.1)
    latents_BFD = torch.randn(2, VECTORS // 2, DIM)
    return peer, our_state(peer), latents_BFD


def our_state(peer):
    """The peer's codebooks, sums and counts as ours."""
    books = [layer._codebook for layer in peer.layers]
    stacks = ([getattr(b, name)[0] for b in books] for name in ("embed", "embed_avg"))
    vectors_KND, sums_KND = (jnp.asarray(torch.stack(stack).numpy()) for stack in stacks)
    counts_KN = jnp.asarray(torch.stack([b.cluster_size[0] for b in books]).numpy())
    return quantize.Codebooks(vectors_KND, sums_KND / VECTORS, counts_KN / VECTORS)


def one_step(state, latents_BFD):
    """Our training step with the peer's decay and no replacement of dead codes."""
    return quantize.quantize(
        state,
        jnp.asarray(latents_BFD.numpy()),
        key=jax.random.key(0),
        train=True,
        learning=quantize.EMA(decay=0.9, expiry=0),
    )


def test_running_means_as_residual_vq():
    """One training step moves codebooks, sums and counts of every level as the peer's does.

    Only with the peer's eps near 0: see the next test. Dead codes are not compared: EnCodec and
    audiocraft replace the codeword alone, which the same step overwrites with the old ratio, so
    that their replacement does nothing; ours replaces codeword, sum and count.
    """
    peer, state, latents_BFD = trained_pair()
    quantized_BFD, codes_BFK, losses_K = peer(latents_BFD)
    out = one_step(state, latents_BFD)
    assert_same_codes(out.codes, codes_BFK.mT)
    np.testing.assert_allclose(out.latents, quantized_BFD, **CLOSE)
    np.testing.assert_allclose(out.commitment, losses_K.detach(), rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), out.state, our_state(peer))


def test_smoothing_moves_rare_codewords_off_their_mean():
    """Laplace smoothing (EnCodec's too) is not copied: it shrinks a rare code's vector.

    It divides a sum by a count that eps made larger, not by the count that the sum was made of;
    eps is in vectors, so the harm depends on the size of the batch. Ours stays at the mean.
    """
    peer, _, latents_BFD = trained_pair(eps=0.1)
    for layer in peer.layers:
        book = layer._codebook
        book.embed[0, 0] += 100  # too far to be chosen
        book.cluster_size[0, 0] = 0.01
        book.embed_avg[0, 0] = 0.01 * book.embed[0, 0]
    state = our_state(peer)
    peer(latents_BFD)
    out = one_step(state, latents_BFD)
    far_KD = state.vectors[:, 0]
    np.testing.assert_allclose(out.state.vectors[:, 0], far_KD, rtol=1e-5)
    assert (jnp.abs(our_state(peer).vectors[:, 0]) < 0.5 * jnp.abs(far_KD)).all()


def test_commitment_gradient_as_residual_vq():
    """Every level's commitment loss reaches the latents, with the peer's gradient."""
    peer, state, latents_BFD = trained_pair(rotation_trick=False)
    latents_BFD.requires_grad_()
    peer(latents_BFD)[2].sum().backward()

    def loss(x):
        return quantize.quantize(state, x).commitment.sum()

    ours_BFD = jax.grad(loss)(jnp.asarray(latents_BFD.detach().numpy()))
    np.testing.assert_allclose(ours_BFD, latents_BFD.grad, **CLOSE)


def test_peer_passes_gradient_once_per_level():
    """Straight through, the peer's K levels together pass K times the gradient; ours pass it once.

    It adds K straight-through outputs whose residuals each keep the input's gradient.
    """
    peer, state, latents_BFD = trained_pair(rotation_trick=False)
    latents_BFD.requires_grad_()
    peer(latents_BFD)[0].sum().backward()

    def total(x):
        return quantize.quantize(state, x).latents.sum()

    ours_BFD = jax.grad(total)(jnp.asarray(latents_BFD.detach().numpy()))
    np.testing.assert_allclose(ours_BFD, 1.0)
    np.testing.assert_allclose(latents_BFD.grad, LEVELS)


def test_rotation_as_rotate_to():
    """The rotation trick: same values, same gradients."""
    torch.manual_seed(1)
    input_MD, code_MD, pull_MD = torch.randn(3, VECTORS, DIM)
    input_MD.requires_grad_()
    theirs_MD = vqp_module.rotate_to(input_MD, code_MD)
    theirs_MD.backward(pull_MD)
    ours_MD, pass_back = jax.vjp(
        lambda x: quantize.rotation(x, jnp.asarray(code_MD.numpy())),
        jnp.asarray(input_MD.detach().numpy()),
    )
    np.testing.assert_allclose(ours_MD, theirs_MD.detach(), rtol=1e-4, atol=1e-5)
    (ours_grad_MD,) = pass_back(jnp.asarray(pull_MD.numpy()))
    np.testing.assert_allclose(ours_grad_MD, input_MD.grad, rtol=1e-4, atol=1e-5)
