"""Layers against direct numpy loops that follow the published padding rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from signals import noise
from tiers import examples

from rvq_jax.codec.conv import Conv1d, ConvTranspose1d, GroupNorm
from rvq_jax.codec.edges import Edges, pad
from rvq_jax.codec.lstm import LSTM

NAMES = "input", "hidden", "bias"  # of an LSTM's parameters


def value(variable):
    return np.asarray(variable[...])


def conv_by_loop(x_SD, kernel_WDO, bias_O, stride, dilation, causal, mode):
    """The reference's way: pad by reach - stride, then enough to fill the last window."""
    reach = (len(kernel_WDO) - 1) * dilation + 1
    total = reach - stride
    windows = (len(x_SD) - reach + total) / stride + 1
    extra = (int(np.ceil(windows)) - 1) * stride + reach - total - len(x_SD)
    right = 0 if causal else total // 2
    left, right = total - right, right + extra
    longer = max(0, max(left, right) + 1 - len(x_SD)) if mode == "reflect" else 0
    padded = np.pad(np.pad(x_SD, ((0, longer), (0, 0))), ((left, right), (0, 0)), mode=mode)
    padded = padded[: len(padded) - longer]
    out = []
    for start in range(0, len(padded) - reach + 1, stride):
        taps = padded[start : start + reach : dilation]
        out.append(np.einsum("wd,wdo->o", taps, kernel_WDO) + bias_O)
    return np.stack(out)


@examples(12)
@given(st.data())
def test_conv_equals_a_loop_for_any_length_kernel_stride_and_dilation(data):
    stride = data.draw(st.integers(1, 4))
    kernel = data.draw(st.integers(stride, 2 * stride + 3))
    dilation = data.draw(st.integers(1, 3))
    samples = data.draw(st.integers(1, 40))
    causal = data.draw(st.booleans())
    mode = data.draw(st.sampled_from(["reflect", "constant"]))
    layer = Conv1d(
        3, 2, kernel, nnx.Rngs(0), stride=stride, dilation=dilation, causal=causal, pad_mode=mode
    )
    layer.bias[...] = jnp.asarray(noise(2))
    x_BSD = noise(2, samples, 3, seed=1)
    expected = [
        conv_by_loop(x, value(layer.kernel.v), value(layer.bias), stride, dilation, causal, mode)
        for x in x_BSD
    ]
    got = layer(x_BSD)
    assert got.shape == (2, -(-samples // stride), 2)
    np.testing.assert_allclose(got, np.stack(expected), atol=1e-5)


@examples(6)
@given(st.integers(1, 12), st.integers(1, 5), st.booleans())
def test_transposed_conv_equals_a_scatter_and_keeps_length(frames, stride, causal):
    layer = ConvTranspose1d(3, 2, stride, nnx.Rngs(0), causal=causal)
    layer.bias[...] = jnp.asarray(noise(2))
    x_FD = noise(frames, 3, seed=1)
    whole = np.zeros(((frames + 1) * stride, 2)) + value(layer.bias)
    for f in range(frames):
        whole[f * stride : (f + 2) * stride] += np.einsum("d,wdo->wo", x_FD[f], layer.kernel())
    right = stride if causal else stride // 2
    expected = whole[stride - right : len(whole) - right]
    got = layer(x_FD[None])[0]
    assert got.shape == (frames * stride, 2)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_transposed_conv_equals_xla_dilated_convolution():
    layer = ConvTranspose1d(4, 3, 5, nnx.Rngs(0))
    x_BFD = noise(2, 7, 4)
    expected = jax.lax.conv_general_dilated(
        x_BFD,
        layer.kernel()[::-1],
        (1,),
        [(9, 9)],
        lhs_dilation=(5,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    np.testing.assert_allclose(layer(x_BFD), expected[:, : 7 * 5], atol=1e-5)


@pytest.mark.parametrize(
    "layer, shape",
    [
        (Conv1d(3, 5, 4, nnx.Rngs(0)), (1, 1, 5)),
        (ConvTranspose1d(3, 5, 2, nnx.Rngs(0)), (1, 3, 1)),
    ],
)
def test_weight_norm_splits_direction_from_gain(layer, shape):
    """One gain per output channel, but per input channel when transposed, as published weights
    have it. At the start the kernel is the direction itself; its length never matters."""
    kernel, v = layer.kernel, value(layer.kernel.v)
    assert kernel.gain[...].shape == shape
    np.testing.assert_allclose(kernel(), v, rtol=1e-5)
    kernel.v[...] = 3.0 * kernel.v[...]
    np.testing.assert_allclose(kernel(), v, rtol=1e-5)
    kernel.gain[...] = 2.0 * kernel.gain[...]
    np.testing.assert_allclose(kernel(), 2.0 * v, rtol=1e-5)


def test_group_norm_centres_each_item():
    x_BSD = 5.0 * noise(2, 30, 4) + 3.0
    y_BSD = np.asarray(GroupNorm(4)(x_BSD))
    np.testing.assert_allclose(y_BSD.mean(axis=(1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(y_BSD.std(axis=(1, 2)), 1.0, atol=1e-4)


def test_norms_start_at_the_same_kernel_and_one_is_no_norm():
    layers = [Conv1d(2, 3, 3, nnx.Rngs(0), norm=norm) for norm in ("weight_norm", "none")]
    x_BSD = noise(1, 9, 2)
    np.testing.assert_allclose(layers[0](x_BSD), layers[1](x_BSD), atol=1e-6)
    assert layers[1].kernel.gain is None
    normed = Conv1d(2, 3, 3, nnx.Rngs(0), causal=False, norm="time_group_norm")
    plain = Conv1d(2, 3, 3, nnx.Rngs(0), causal=False, norm="none")
    np.testing.assert_allclose(normed(x_BSD), GroupNorm(3)(plain(x_BSD)), atol=1e-5)


def test_reflect_on_too_short_an_input_mirrors_into_zeros():
    x_BSD = jnp.asarray([1.0, 2.0])[None, :, None]
    np.testing.assert_array_equal(pad(x_BSD, 3, 0, "reflect")[0, :, 0], [0, 0, 2, 1, 2])
    np.testing.assert_array_equal(pad(x_BSD, 1, 1, "reflect")[0, :, 0], [2, 1, 2, 1])
    np.testing.assert_array_equal(pad(x_BSD, 2, 1, "constant")[0, :, 0], [0, 0, 1, 2, 0])


def test_lstm_equals_a_loop():
    lstm = LSTM(4, 2, nnx.Rngs(0))
    x_BSD = noise(3, 6, 4)
    y_BSD = x_BSD
    for layer in range(2):
        into, hidden = value(lstm.input)[layer], value(lstm.hidden)[layer]
        bias = value(lstm.bias)[layer]
        h = c = np.zeros((3, 4))
        out = []
        for t in range(6):
            gates = y_BSD[:, t] @ into + bias[0] + h @ hidden + bias[1]
            i, f, g, o = np.split(gates, 4, axis=1)
            i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
            c = f * c + i * np.tanh(g)
            h = o * np.tanh(c)
            out.append(h)
        y_BSD = np.stack(out, axis=1)
    np.testing.assert_allclose(jax.jit(lstm.__call__)(x_BSD), y_BSD + x_BSD, atol=1e-5)


@pytest.mark.parametrize("begin", [None, [0, 2, 3]])
def test_lstm_gradients_are_those_of_its_steps_one_by_one(begin):
    lstm = LSTM(4, 2, nnx.Rngs(0))
    graph, params = nnx.split(lstm)
    edges = None if begin is None else Edges(jnp.asarray(begin), jnp.full(3, 5))

    def by_layer(params, x_BSD):
        return nnx.merge(graph, params)(x_BSD, edges)

    def by_loop(params, x_BSD):
        y_SBD = x_BSD.swapaxes(0, 1)
        for into, hidden, bias in zip(*(params[n][...] for n in NAMES), strict=True):
            h = c = jnp.zeros((3, 4))
            out = []
            for t, x in enumerate(y_SBD):
                i, f, g, o = jnp.split(x @ into + h @ hidden + bias.sum(0)[None], 4, axis=1)
                new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
                new_h = jax.nn.sigmoid(o) * jnp.tanh(new_c)
                begun = True if begin is None else (t >= jnp.asarray(begin))[:, None]
                h, c = jnp.where(begun, new_h, h), jnp.where(begun, new_c, c)
                out.append(h)
            y_SBD = jnp.stack(out)
        return y_SBD.swapaxes(0, 1) + x_BSD

    x_BSD = noise(3, 5, 4)
    weights_BSD = noise(3, 5, 4, seed=1)
    slopes = [
        jax.jit(jax.grad(lambda p, x, f=f: jnp.vdot(weights_BSD, f(p, x)), argnums=(0, 1)))
        for f in (by_layer, by_loop)
    ]
    got, wanted = (slope(params, x_BSD) for slope in slopes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, wanted)
    # Forwards: along the gradient the function grows by the gradient's square.
    _, along = jax.jit(lambda p, x: jax.jvp(by_layer, (p, x), got))(params, x_BSD)
    square = sum(jnp.vdot(x, x) for x in jax.tree.leaves(got))
    np.testing.assert_allclose(jnp.vdot(weights_BSD, along), square, rtol=1e-4)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"norm": "batch"}, "norm must be one of"),
        ({"norm": "time_group_norm"}, "cannot be causal"),
        ({"stride": 5}, "leaves gaps"),
    ],
)
def test_impossible_layers_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Conv1d(1, 1, 3, nnx.Rngs(0), **options)
