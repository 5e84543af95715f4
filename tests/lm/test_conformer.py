"""The Conformer block is the paper's, in plain numpy, and padding is no part of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_lm import filled
from tiers import slow

from rvq_jax.lm.conformer import ConformerBlock, depthwise
from rvq_jax.lm.transformer import rope_angles

T, D, H, KERNEL = 6, 8, 2, 5
BLOCK = ConformerBlock(D, H, 12, KERNEL, nnx.Rngs(0))
nnx.update(BLOCK, filled(nnx.state(BLOCK)))
X = np.random.default_rng(0).normal(size=(2, T, D)).astype(np.float32)
ANGLES = rope_angles(T, D // H)
LENGTHS = np.array([T, 4])


@jax.jit
def run(x_BTD, lengths):
    here_BT = jnp.arange(T)[None] < lengths[:, None]
    mask = here_BT[:, None, None]
    return BLOCK(x_BTD, None, jnp.asarray(ANGLES)[None], here_BT, mask=mask)


def value(param) -> np.ndarray:
    return np.asarray(param[...], np.float64)


def normalized(norm, x_TD: np.ndarray) -> np.ndarray:
    x_TD = x_TD - x_TD.mean(axis=1, keepdims=True)
    x_TD = x_TD / np.sqrt((x_TD**2).mean(axis=1, keepdims=True) + 1e-5)
    return x_TD * value(norm.scale) + value(norm.bias)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def feed_forward(part, x_TD: np.ndarray) -> np.ndarray:
    y = normalized(part.norm, x_TD) @ value(part.up).T
    return (y * sigmoid(y)) @ value(part.down).T


def attention(x_TD: np.ndarray) -> np.ndarray:
    """Heads by complex rotations: feature i with i + E / 2."""
    part, y_TD, half = BLOCK.attend_self, normalized(BLOCK.norm_self, x_TD), D // H // 2
    steps, out_TD = len(x_TD), np.zeros_like(x_TD)
    for head in range(H):
        parts = value(part.query)[head], *value(part.key_value)[:, head]
        query, key, val = (y_TD @ weight.T for weight in parts)
        query, key = (
            (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * ANGLES[:steps]) for x in (query, key)
        )
        scores = (query @ key.conj().T).real / np.sqrt(D // H)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        out_TD += weights @ val @ value(part.out)[:, head].T
    return out_TD


def convolution(x_TD: np.ndarray) -> np.ndarray:
    part, steps = BLOCK.convolution, len(x_TD)
    left, gate = (normalized(part.norm, x_TD) @ weight.T for weight in value(part.gate))
    gated, y_TD = left * sigmoid(gate), np.zeros_like(x_TD)
    for t in range(steps):
        for i in range(KERNEL):
            s = t + i - KERNEL // 2
            if 0 <= s < steps:
                y_TD[t] += value(part.kernel)[i] * gated[s]
    y_TD = normalized(part.norm_inside, y_TD)
    return (y_TD * sigmoid(y_TD)) @ value(part.down).T


def plain_block(x_TD: np.ndarray) -> np.ndarray:
    x_TD = x_TD.astype(np.float64)
    x_TD = x_TD + feed_forward(BLOCK.first, x_TD) / 2
    x_TD = x_TD + attention(x_TD)
    x_TD = x_TD + convolution(x_TD)
    return normalized(BLOCK.norm, x_TD + feed_forward(BLOCK.second, x_TD) / 2)


def test_the_block_is_the_papers():
    """Also of a row with padding: its own frames are what they are without any."""
    got = run(X, LENGTHS)
    for b, length in enumerate(LENGTHS):
        np.testing.assert_allclose(got[b, :length], plain_block(X[b, :length]), atol=1e-4)


def test_padding_has_no_say():
    """Neither through attention nor through the convolution."""
    other = X.copy()
    other[1, 4:] += 100.0
    assert np.array_equal(run(X, LENGTHS)[1, :4], run(other, LENGTHS)[1, :4])


@pytest.mark.parametrize("taps", [slow(1), 4, slow(5)])
def test_a_depthwise_convolution_is_numpys(taps):
    kernel = np.random.default_rng(1).normal(size=(taps, D)).astype(np.float32)
    got = depthwise(jnp.asarray(X), jnp.asarray(kernel))
    for d in range(D):
        padded = np.pad(X[0, :, d], ((taps - 1) // 2, taps // 2))
        want = np.correlate(padded, kernel[:, d], mode="valid")
        np.testing.assert_allclose(got[0, :, d], want, atol=1e-5)
