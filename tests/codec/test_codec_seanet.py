"""The laws of encoder and decoder: lengths, causality, translation, batches, published sizes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from signals import noise
from tiers import examples

from rvq_jax.codec.seanet import Decoder, Encoder, SEANetConfig, elu
from rvq_jax.systems import encodec

SMALL = SEANetConfig(dim=5, filters=4, ratios=(3, 2), lstm_layers=0, pad_mode="constant")
HOP, FRAMES = SMALL.hop, 12


@functools.cache
def encoder(**changes):
    return jax.jit(Encoder(dataclasses.replace(SMALL, **changes), nnx.Rngs(0)).__call__)


@functools.cache
def decoder(**changes):
    return jax.jit(Decoder(dataclasses.replace(SMALL, **changes), nnx.Rngs(0)).__call__)


@functools.cache
def pullback(function):
    return jax.jit(lambda x, cotangent: jax.vjp(function, x)[1](cotangent)[0])


def reach(function, x, rows):
    """Where along time of x the outputs at time `rows` depend on it: bool `[time]`."""
    cotangent = np.zeros(jax.eval_shape(function, x).shape, np.float32)
    # A random cotangent: with equal weights, dependences could cancel.
    cotangent[:, rows] = noise(*cotangent[:, rows].shape, seed=1)
    return np.abs(pullback(function)(x, cotangent)).max(axis=(0, 2)) > 0


@pytest.mark.parametrize("frame", [0, 5, FRAMES - 1])
def test_causal_encoder_sees_nothing_after_its_frame(frame):
    """A gradient that is exactly zero means the value cannot matter; not zero at the frame's own
    last sample means that the test would notice."""
    seen_S = reach(encoder(), noise(1, FRAMES * HOP, 1), slice(frame, frame + 1))
    assert seen_S[(frame + 1) * HOP - 1]
    assert not seen_S[(frame + 1) * HOP :].any()


@pytest.mark.parametrize("frame", [0, 5, FRAMES - 1])
def test_causal_decoder_sees_no_later_latents(frame):
    """The samples of frames up to f must be playable before frame f + 1 exists."""
    for mode in ("constant", "reflect"):
        rows = slice(frame * HOP, (frame + 1) * HOP)
        seen_F = reach(decoder(pad_mode=mode), noise(1, FRAMES, SMALL.dim), rows)
        assert seen_F[frame]
        if mode == "constant" or frame >= SMALL.kernel - 1:
            assert not seen_F[frame + 1 :].any()


def test_reflected_padding_looks_ahead_at_the_start_only():
    """EnCodec's own causal models pad by reflection, which mirrors later samples before the first:
    they stream exactly only after the last kernel's width in frames."""
    encode, audio = encoder(pad_mode="reflect"), noise(1, FRAMES * HOP, 1)
    assert reach(encode, audio, slice(0, 1))[HOP:].any()
    for frame in range(SMALL.last_kernel - 1, FRAMES):
        assert not reach(encode, audio, slice(frame, frame + 1))[(frame + 1) * HOP :].any()


def test_centred_encoder_sees_both_sides():
    seen_S = reach(encoder(causal=False), noise(1, FRAMES * HOP, 1), slice(6, 7))
    assert seen_S[5 * HOP] and seen_S[8 * HOP]


@examples(4)
@given(st.integers(1, 70), st.booleans())
def test_lengths_are_whole_frames(samples, causal):
    latents = encoder(causal=causal, channels=2)(noise(2, samples, 2))
    assert latents.shape == (2, -(-samples // HOP), SMALL.dim)
    audio = decoder(causal=causal, channels=2)(latents)
    assert audio.shape == (2, latents.shape[1] * HOP, 2)


@pytest.mark.parametrize("causal", [True, False])
def test_a_shift_by_one_hop_shifts_latents_and_audio(causal):
    """Away from the edges nothing knows where it is in time."""
    audio = noise(1, 30 * HOP, 1)
    encode, decode = encoder(causal=causal), decoder(causal=causal)
    latents, later = encode(audio), encode(np.roll(audio, HOP, axis=1))
    np.testing.assert_allclose(latents[:, 12:18], later[:, 13:19], atol=1e-5)
    samples, later = decode(latents), decode(np.roll(latents, 1, axis=1))
    np.testing.assert_allclose(
        samples[:, 12 * HOP : 18 * HOP], later[:, 13 * HOP : 19 * HOP], atol=1e-5
    )


@pytest.mark.parametrize("causal, norm", [(True, "weight_norm"), (False, "time_group_norm")])
def test_items_of_a_batch_do_not_mix(causal, norm):
    options = {
        "causal": causal,
        "norm": norm,
        "lstm_layers": 1,
        "true_skip": not causal,
        "residual_layers": 2,
    }
    audio = noise(3, 5 * HOP, 1)
    latents = encoder(**options)(audio)
    np.testing.assert_allclose(encoder(**options)(audio[1:2]), latents[1:2], atol=1e-5)
    decode = decoder(**options)
    np.testing.assert_allclose(decode(latents[1:2]), decode(latents)[1:2], atol=1e-5)


def test_bfloat16_computes_near_float32_and_returns_float32():
    audio = noise(1, FRAMES * HOP, 1)
    exact, coarse = encoder(lstm_layers=1)(audio), encoder(lstm_layers=1, dtype="bfloat16")(audio)
    assert coarse.dtype == jnp.float32
    scale = float(jnp.abs(exact).max())
    assert 0 < float(jnp.abs(exact - coarse).max()) < 0.05 * scale
    assert decoder(dtype="bfloat16")(coarse).dtype == jnp.float32


def test_elu_and_its_slope_equal_jax():
    x = jnp.concatenate([jnp.asarray(noise(50)), jnp.asarray([0.0, -1e-6, 90.0, -90.0])])
    np.testing.assert_allclose(elu(x), jax.nn.elu(x), rtol=1e-6)
    slopes = [jax.grad(lambda x, f=f: f(x).sum())(x) for f in (elu, jax.nn.elu)]
    np.testing.assert_allclose(*slopes, atol=1e-6)


@pytest.mark.parametrize(
    "system, count, frame_rate",
    [
        (encodec.encodec_24khz, 14_851_810, 75),
        (encodec.encodec_48khz, 14_856_294, 150),
        (encodec.encodec_32khz, 56_884_674, 50),
        (encodec.encodec_16khz, None, 50),
    ],
)
def test_published_sizes(system, count, frame_rate):
    """Both halves without codebooks, gains and directions of weight norm counted apart. Every
    parameter names its axes, or it could not be placed on a mesh."""
    config = system()
    assert config.frame_rate == frame_rate
    params = nnx.state(nnx.eval_shape(lambda: config.build(nnx.Rngs(0))), nnx.Param)
    if count is not None:
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
    for path, variable in nnx.to_flat_state(params):
        assert len(variable.axes) == variable.get_value().ndim, path
