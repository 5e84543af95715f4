"""Low-rank adapters: they start at nothing, add one small product, and alone are trained."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_lm import CONFIG, PARAMS

from rvq_jax import files
from rvq_jax.lm import forms, lora
from rvq_jax.lm.transformer import Block

KEY = jax.random.key(5)
SMALL = lora.LoRAConfig(rank=2, alpha=6.0)  # a scale of 3
D, H, HIDDEN = 8, 2, 12

each_form = pytest.mark.parametrize(
    "params", [PARAMS, forms.abstract(CONFIG, stacked=True)], ids=["lists", "stacked"]
)


def block(cross=False):
    return Block(D, H, HIDDEN, nnx.Rngs(0), cross=cross)


def drawn(params, config=SMALL):
    """Adapters away from where they start."""
    adapters = lora.init(KEY, params, config)
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), adapters)


def only(adapters, *names):
    """Those whose path has one of the names as a part."""
    return {path: pair for path, pair in adapters.items() if {*path.split("/")} & {*names}}


def pair_of(adapters, name):
    [pair] = only(adapters, name).values()
    return pair["a"], pair["b"]


def normalized(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def assert_same_shapes(found, expected):
    jax.tree.map(lambda x, y: np.testing.assert_equal(x.shape, y.shape), found, expected)


def assert_close(found, expected, atol=1e-5):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=atol)


@each_form
def test_all_of_the_blocks_but_their_norms_is_adapted(params):
    adapters = lora.init(KEY, params, SMALL)
    leaves = files.named(params)
    expected = {path for path in leaves if "blocks" in path and "norm" not in path}
    assert adapters.keys() == expected
    for path, pair in adapters.items():
        (*layers, rank, fan_in), (*_, fan_out, _) = pair["a"].shape, pair["b"].shape
        assert pair["b"].shape == (*layers, fan_out, rank) and rank == SMALL.rank
        assert math.prod(layers) * fan_in * fan_out == math.prod(leaves[path].shape)
        assert pair["a"].dtype == pair["b"].dtype == np.float32


@pytest.mark.parametrize("rank", [1, 8])
@each_form
def test_the_number_of_trained_parameters(params, rank):
    """Per layer rank · (fan_in + fan_out): D to D in attention, D to hidden and back after it."""
    adapters = lora.init(KEY, params, lora.LoRAConfig(rank=rank))
    dim, hidden = CONFIG.dim, CONFIG.mlp_dim
    model = CONFIG.layers * (8 * 2 * dim + 2 * (dim + hidden))
    captions = CONFIG.caption_layers * (4 * 2 * dim + 2 * (dim + 4 * dim))
    assert sum(x.size for x in jax.tree.leaves(adapters)) == rank * (model + captions)


def test_a_starts_with_unit_outputs_and_b_at_nothing():
    params = {"up": jnp.zeros((3, 7, 400)), "attend_self": {"out": jnp.zeros((7, 4, 25))}}
    adapters = lora.init(KEY, params, lora.LoRAConfig(rank=64))
    assert not any(pair["b"].any() for pair in adapters.values())
    assert adapters["up"]["a"].shape == (3, 64, 400) and adapters["up"]["b"].shape == (3, 7, 64)
    assert_close(adapters["up"]["a"].std(), 400**-0.5, atol=1e-3)
    assert_close(adapters["attend_self/out"]["a"].std(), 100**-0.5, atol=3e-3)
    layers = adapters["up"]["a"]
    assert not np.allclose(layers[0], layers[1])


def test_merging_new_adapters_changes_nothing():
    merged = lora.merge(PARAMS, lora.init(KEY, PARAMS, SMALL), SMALL)
    assert jax.tree.structure(merged) == jax.tree.structure(PARAMS)
    jax.tree.map(np.testing.assert_array_equal, merged, PARAMS)


def test_a_merged_weight_is_the_weight_and_the_scaled_product():
    adapters = drawn(PARAMS)
    before, after = files.named(PARAMS), files.named(lora.merge(PARAMS, adapters, SMALL))
    for path, leaf in before.items():
        if path not in adapters:
            assert after[path] is leaf
            continue
        a, b = adapters[path]["a"], adapters[path]["b"]
        expected = leaf + 3.0 * np.einsum("...ri,...or->...oi", a, b).reshape(leaf.shape)
        assert_close(after[path], expected)


def test_weights_of_few_bits_keep_their_type():
    params = {"up": jnp.ones((4, 5), jnp.bfloat16)}
    adapters = drawn(params)
    merged = lora.merge(params, adapters, SMALL)["up"]
    a, b = pair_of(adapters, "up")
    assert merged.dtype == jnp.bfloat16
    assert_close(merged.astype(np.float32), (1.0 + 3.0 * b @ a).astype(jnp.bfloat16), atol=0.05)


def test_a_merged_attention_is_the_projections_with_their_side_paths():
    """A single step attends to itself alone, so a block without its feed-forward is the value
    and output projections of what its norm gives."""
    graphdef, params = nnx.split(block())
    params["down"].set_value(jnp.zeros_like(params["down"][...]))
    adapters = only(drawn(params), "attend_self")
    x_B1D = np.random.default_rng(0).normal(size=(3, 1, D)).astype(np.float32)

    model = nnx.merge(graphdef, lora.merge(params, adapters, SMALL))
    a, b = (x[1] for x in pair_of(adapters, "key_value"))
    value = np.asarray(params["attend_self"]["key_value"][...][1]).reshape(D, D)
    out = np.asarray(params["attend_self"]["out"][...]).reshape(D, D)
    y = normalized(x_B1D)
    y = y @ value.T + 3.0 * (y @ a.T) @ b.T
    a, b = pair_of(adapters, "out")
    assert_close(
        jax.jit(model.__call__)(x_B1D), x_B1D + y @ out.T + 3.0 * (y @ a.T) @ b.T, atol=1e-4
    )


def test_a_merged_feed_forward_is_its_products_with_their_side_paths():
    graphdef, params = nnx.split(block())
    params["attend_self"]["out"].set_value(jnp.zeros((D, H, D // H)))
    adapters = only(drawn(params), "up", "down")
    x_BTD = np.random.default_rng(0).normal(size=(2, 5, D)).astype(np.float32)

    model = nnx.merge(graphdef, lora.merge(params, adapters, SMALL))
    up, down = np.asarray(params["up"][...]), np.asarray(params["down"][...])
    a, b = pair_of(adapters, "up")
    y = normalized(x_BTD)
    y = np.asarray(jax.nn.gelu(y @ up.T + 3.0 * (y @ a.T) @ b.T, approximate=False))
    a, b = pair_of(adapters, "down")
    assert_close(
        jax.jit(model.__call__)(x_BTD), x_BTD + y @ down.T + 3.0 * (y @ a.T) @ b.T, atol=1e-4
    )


def test_gradients_reach_the_adapters_in_use_and_move_nothing_else():
    """At the start b is zero and so is the gradient of a; later both have one. Cross-attention
    without a condition is out of use. Frozen weights are no argument of the loss: after an update
    of the adapters they are the same objects."""
    graphdef, params = nnx.split(block(cross=True))
    x_BTD = np.random.default_rng(0).normal(size=(2, 5, D)).astype(np.float32)

    def loss(adapters):
        model = nnx.merge(graphdef, lora.merge(params, adapters, SMALL))
        return (model(x_BTD) ** 2).sum()

    gradient = jax.jit(jax.grad(loss))
    for adapters, trained in [(lora.init(KEY, params, SMALL), "b"), (drawn(params), "ab")]:
        grads = gradient(adapters)
        assert jax.tree.structure(grads) == jax.tree.structure(adapters)
        for path, pair in grads.items():
            for name, grad in pair.items():
                assert grad.any() == (name in trained and "attend_cross" not in path), (path, name)

    moved = jax.tree.map(lambda x, grad: x - 1e-2 * grad, adapters, grads)
    before, after = files.named(params), files.named(lora.merge(params, moved, SMALL))
    changed = {path for path in before if after[path] is not before[path]}
    assert changed == adapters.keys()


def test_merging_a_stack_is_merging_each_of_its_layers():
    layers = [nnx.state(Block(D, H, HIDDEN, nnx.Rngs(i)), nnx.Param) for i in range(3)]
    params = jax.tree.map(lambda *x: jnp.stack(x), *layers)
    adapters = drawn(params)
    merged = lora.merge(params, adapters, SMALL)
    for i, layer in enumerate(layers):
        own, expected = jax.tree.map(lambda x: x[i], (adapters, merged))  # noqa: B023
        assert_same_shapes(own, lora.init(KEY, layer, SMALL))
        jax.tree.map(assert_close, lora.merge(layer, own, SMALL), expected)


def test_plain_trees_and_shapes_will_do():
    """Where a variable keeps its array, or a name that only begins alike, is not a weight."""
    shape = jax.ShapeDtypeStruct((H, 4, D), np.float32)
    params = {"attend_self": {"query": shape, "out_bias": shape}, "value": shape}
    params |= {"norm_up": shape, "down_scale": shape, "up": {"scale": shape}}
    assert lora.init(KEY, params, SMALL).keys() == {"attend_self/query"}


def test_what_cannot_be_adapted_is_refused():
    params = {"up": jnp.zeros((4, 5)), "embed": jnp.zeros((4, 5))}
    with pytest.raises(ValueError, match="at least 1, it is 0"):
        lora.init(KEY, params, lora.LoRAConfig(rank=0))
    with pytest.raises(ValueError, match="no attention or feed-forward"):
        lora.init(KEY, {"embed": params["embed"]}, SMALL)
    adapters = lora.init(KEY, params, SMALL)
    with pytest.raises(ValueError, match="no weight 'up'"):
        lora.merge({"embed": params["embed"]}, adapters, SMALL)
    with pytest.raises(ValueError, match="of rank 2, the config says 3"):
        lora.merge(params, adapters, lora.LoRAConfig(rank=3))
