"""Laws of the transformer over frames: streams equal wholes, and nothing sees what it must not."""

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

from rvq_jax.codec.transformer import Transformer, TransformerConfig

# Layers at full scale, or what attention does wrong would hide behind the residual path.
TINY = TransformerConfig(
    dim=12, layers=2, heads=4, kv_heads=2, head_dim=6, mlp_dim=20, context=5, layer_scale=1.0
)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@functools.cache
def tiny(**changes):
    """A tiny model whose norms are not the identity, and its two forms compiled."""
    model = Transformer(dataclasses.replace(TINY, **changes), nnx.Rngs(0))
    for seed, name in enumerate(("attention_norm_scale", "mlp_norm_bias", "mlp_scale")):
        vector = getattr(model, name)
        vector[...] = vector[...] + 0.3 * noise(*vector.shape, seed=seed)
    return model, jax.jit(model.__call__), jax.jit(model.step)


def stream(step, state, x_BFD, sizes):
    """The outputs for the first frames of x, fed in blocks of these sizes."""
    blocks, begin = [], 0
    for size in sizes:
        y_BFD, state = step(x_BFD[:, begin : begin + size], state)
        blocks.append(y_BFD)
        begin += size
    return np.concatenate(blocks, axis=1)


def by_loop(model, x_FD):
    """One frame and one head at a time, in float64, from the definitions."""
    c = model.config
    angle_FE = np.arange(len(x_FD))[:, None] * c.rope_theta ** (
        -np.arange(c.head_dim // 2) / (c.head_dim // 2)
    )
    turn_FE = np.exp(1j * angle_FE)
    x_FD = x_FD.astype(np.float64)

    def norm(x_FD, scale, bias):
        spread = np.sqrt(x_FD.var(axis=1, keepdims=True) + c.eps)
        return (x_FD - x_FD.mean(axis=1, keepdims=True)) / spread * scale + bias

    def gelu(x):
        return x * np.asarray(jax.scipy.stats.norm.cdf(x))

    for layer in model._layers():
        p = layer._replace(**{k: np.asarray(v, np.float64) for k, v in layer._asdict().items()})
        h_FHE = norm(x_FD, p.attention_norm_scale, p.attention_norm_bias) @ p.qkv
        h_FHE = h_FHE.reshape(len(x_FD), -1, c.head_dim)
        turned = (h_FHE[..., : c.head_dim // 2] + 1j * h_FHE[..., c.head_dim // 2 :]) * (
            turn_FE[:, None]
        )
        heads_FHE = np.zeros((len(x_FD), c.heads, c.head_dim))
        for f in range(len(x_FD)):
            past = slice(max(0, f - c.context + 1), f + 1)
            for head in range(c.heads):
                shared = head // (c.heads // c.kv_heads)
                keys = turned[past, c.heads + shared]
                logits = (turned[f, head][None] * keys.conj()).real.sum(1) * c.head_dim**-0.5
                weights = np.exp(logits - logits.max())
                values = h_FHE[past, c.heads + c.kv_heads + shared]
                heads_FHE[f, head] = weights @ values / weights.sum()
        x_FD = x_FD + heads_FHE.reshape(len(x_FD), -1) @ p.out * p.attention_scale
        h_FD = gelu(norm(x_FD, p.mlp_norm_scale, p.mlp_norm_bias) @ p.up) @ p.down
        x_FD = x_FD + h_FD * p.mlp_scale
    return x_FD


@pytest.mark.parametrize("frames", [1, 10, 23])
def test_equals_a_loop(frames):
    """Up to twice the context as one square, beyond in blocks, the last of them unfilled."""
    model, whole, _ = tiny()
    x_BFD = noise(3, frames, 12)
    expected = np.stack([by_loop(model, x_FD) for x_FD in x_BFD])
    np.testing.assert_allclose(whole(x_BFD), expected, **CLOSE)


@examples(8)
@given(st.permutations([1, 1, 1, 2, 2, 2, 7, 7]))
def test_streaming_equals_whole_for_any_blocks(sizes):
    """Blocks shorter and longer than the context, in any order, past every slot several times."""
    model, whole, step = tiny()
    x_BFD = noise(3, 23, 12)
    np.testing.assert_allclose(stream(step, model.state(3), x_BFD, sizes), whole(x_BFD), **CLOSE)


def test_a_context_of_one_streams_too():
    """Every frame alone: nothing is kept that is ever seen."""
    model, whole, step = tiny(context=1)
    x_BFD = noise(1, 7, 12)
    np.testing.assert_allclose(
        stream(step, model.state(1), x_BFD, [2, 3, 2]), whole(x_BFD), **CLOSE
    )


def test_one_program_for_all_steps():
    """The position is data, so a stream never compiles again."""
    model, whole, _ = tiny()
    x_BFD = noise(3, 23, 12)
    step = jax.jit(lambda x_BFD, state: model.step(x_BFD, state))
    got = stream(step, model.state(3), x_BFD, [2] * 11)
    np.testing.assert_allclose(got, whole(x_BFD)[:, :22], **CLOSE)
    assert step._cache_size() == 1


def test_layers_apart_are_the_same_layers():
    model, whole, _ = tiny()
    graph, params = nnx.split(model)
    apart = nnx.merge(graph, jax.tree.map(lambda x: x, params))
    apart.config = dataclasses.replace(model.config, stacked=False)
    apart.prepare()
    like = Transformer(apart.config, nnx.Rngs(0))
    assert jax.tree.structure(nnx.state(apart)) == jax.tree.structure(nnx.state(like))
    x_BFD = noise(3, 9, 12)
    np.testing.assert_allclose(jax.jit(apart.__call__)(x_BFD), whole(x_BFD), **CLOSE)


@pytest.mark.parametrize("layers, frames", [(1, 10), (2, 14)])
def test_frames_see_their_window_and_nothing_else(layers, frames):
    """The gradient of frame f is zero after f (causality) and before the reach of its layers,
    context - 1 each, and nowhere else: so neither the garbage behind an item's end nor anything
    older than the window can be felt, and the window is not shorter than it says. One square of
    frames and blocks of them alike."""
    model, _, _ = tiny(layers=layers)
    jacobian = jax.jit(jax.jacrev(lambda x_FD: model(x_FD[None])[0].sum(axis=1)))
    felt_FF = np.abs(jacobian(noise(frames, 12))).max(axis=-1)
    distance_FF = np.arange(frames)[:, None] - np.arange(frames)
    reach = layers * (TINY.context - 1)
    np.testing.assert_array_equal(felt_FF > 0, (distance_FF >= 0) & (distance_FF <= reach))


@pytest.mark.parametrize("frames", [10, 23])
def test_rows_do_not_touch(frames):
    """NaN in one row reaches no other."""
    model, whole, step = tiny()
    x_BFD = noise(3, frames, 12)
    spoilt_BFD = x_BFD.copy()
    spoilt_BFD[1] = np.nan
    forms = (whole, lambda x_BFD: stream(step, model.state(3), x_BFD, [1, 2, 7]))
    for form in forms:
        clean, spoilt = np.asarray(form(x_BFD)), np.asarray(form(spoilt_BFD))
        np.testing.assert_array_equal(spoilt[::2], clean[::2])
        assert np.isnan(spoilt[1]).all()


def test_a_stream_computes_the_same_anywhere():
    """Attention sees differences of positions. So a stream that begins far out, with slots that
    only claim to be filled, gives what a fresh one gives once both have forgotten their start.
    Angles in float32 are whole turns apart out there."""
    model, _, step = tiny()
    x_BFD = noise(3, 16, 12)
    states = (model.state(3)._replace(position=jnp.int32(p)) for p in (0, 1_999_999_999))
    near, far = (stream(step, state, x_BFD, [1] * 16) for state in states)
    reach = 2 * (TINY.context - 1)
    np.testing.assert_allclose(far[:, reach:], near[:, reach:], **CLOSE)


def test_memory_grows_with_length_and_not_with_its_square():
    def temporary(frames):
        shape = jax.ShapeDtypeStruct((1, frames, 12), np.float32)
        compiled = jax.jit(tiny()[0].__call__).lower(shape).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(8000) < 2.2 * temporary(4000)
    assert temporary(8000) < 8000 * 12 * 4 * 5


def test_the_program_does_not_grow_with_depth():
    def products(layers):
        model = Transformer(dataclasses.replace(TINY, layers=layers), nnx.Rngs(0))
        return jax.jit(model.__call__).lower(noise(1, 4, 12)).as_text().count("dot_general")

    assert products(2) == products(7) > 0


@pytest.mark.parametrize("frames", [10, 14])
def test_gradients_reach_every_parameter(frames):
    graph, params = nnx.split(tiny(layers=1)[0])
    loss = jax.jit(jax.grad(lambda params, x: jnp.sum(nnx.merge(graph, params)(x) ** 2)))
    for leaf in jax.tree.leaves(loss(params, noise(1, frames, 12))):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0


def test_a_narrow_computation_keeps_wide_latents():
    model, whole, step = tiny(dtype="bfloat16")
    x_BFD = noise(3, 10, 12)
    y_BFD, state = step(x_BFD[:, :2], model.state(3))
    assert y_BFD.dtype == whole(x_BFD).dtype == np.float32
    assert state.caches[0].keys.dtype == jnp.bfloat16
    np.testing.assert_allclose(y_BFD, tiny()[1](x_BFD)[:, :2], rtol=0.1, atol=0.2)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"kv_heads": 3}, "cannot share"),
        ({"head_dim": 5}, "must be even"),
        ({"context": 0}, "at least 1"),
    ],
)
def test_impossible_sizes_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        Transformer(dataclasses.replace(TINY, **changes), nnx.Rngs(0))
