"""One table of axes, and the same numbers on any mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec
from small_runs import TUNED_SLOWLY, log_of, mesh_parts, one_device, one_window
from tiers import slow, wide

from rvq_jax import quantize
from rvq_jax.axes import spec
from rvq_jax.errors import UserError
from rvq_jax.lm.conditions import text_condition
from rvq_jax.train import sharding
from rvq_jax.train.loop import LoopConfig, fit
from rvq_jax.train.tasks.lm import ConditionDropout, apply_dropout

# The table of axes.


def test_an_array_lives_where_its_axes_say():
    """The rules applied by hand; axes in front (stacked layers) are whole."""
    mesh = sharding.make_mesh(2, 2, 2)
    cases = {
        (("embed", "mlp"), (16, 32)): PartitionSpec(("fsdp",), ("tensor",)),
        (("embed", "mlp"), (3, 16, 32)): PartitionSpec(None, ("fsdp",), ("tensor",)),
        ((None, "vocab", "embed"), (4, 10, 16)): PartitionSpec(None, ("tensor",), ("fsdp",)),
        (("batch", None), (8, 5)): PartitionSpec(("data", "fsdp"), None),
        (("heads", None, "embed"), (4, 8, 16)): PartitionSpec(("tensor",), None, ("fsdp",)),
        ((), ()): PartitionSpec(),
        # Two ways do not divide 7 or 1, and four do not divide 6: whole.
        (("embed", "vocab"), (16, 7)): PartitionSpec(("fsdp",), None),
        (("embed",), (1,)): PartitionSpec(None),
        (("batch",), (6,)): PartitionSpec(None),
    }
    for (axes, shape), want in cases.items():
        assert spec(axes, shape, mesh) == want, (axes, shape)


def test_axes_that_cannot_be_placed_are_errors():
    """Two axes on one mesh axis, or a name the table lacks, would be silent replication."""
    mesh = sharding.make_mesh(2, 2, 2)
    for axes in (("heads", "mlp"), ("batch", "embed"), ("vocab", "vocab")):
        with pytest.raises(ValueError, match="twice"):
            spec(axes, (8, 8), mesh)
    with pytest.raises(ValueError, match="'emebd'"):
        spec(("emebd",), (8,), mesh)


def test_a_mesh_uses_every_device_or_says_so():
    assert dict(sharding.make_mesh().shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert dict(sharding.make_mesh(fsdp=2, tensor=2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    for shape in ((3, 1, 1), (-1, 3, 1), (-1, 16, 1), (1, 1, 1)):
        with pytest.raises(UserError, match="8 devices") as caught:
            sharding.make_mesh(*shape)
        assert "\n" not in str(caught.value)


# One device or eight.


WAYS = {"all": (2, 2, 2), "data": (8, 1, 1), "fsdp": (1, 8, 1), "tensor": (1, 4, 2)}


UPDATES = 50


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function that trains a kind of model on a mesh, each pair once: losses, state, mesh."""

    @functools.cache
    def train(kind: str, way: str):
        mesh = one_device() if way == "one" else sharding.make_mesh(*WAYS[way])
        config = LoopConfig(steps=UPDATES, log_every=1, checkpoint_every=100)
        task, batches = mesh_parts(kind)
        folder = tmp_path_factory.mktemp(f"{kind}-{way}")
        with one_window():
            state = fit(folder, task, batches, config, TUNED_SLOWLY, mesh=mesh)
        return [line["loss"] for line in log_of(folder)], state, mesh

    return train


# In the fast tier its twins are a codec's quantizer, below and in test_laws_quantize.py.
@pytest.mark.parametrize(
    "kind, way",
    [slow(kind, "all") for kind in ("lm", "codec")]
    + [wide(kind, way) for kind in ("lm", "codec") for way in WAYS if way != "all"]
    + [wide("depth", "all"), wide("depth", "tensor")],  # the twin of one of depth: "lm"
)
def test_a_mesh_changes_no_number(trained, kind, way):
    """One device and eight, split in four ways: after fifty updates the same losses, parameters
    and codebooks with their statistics, up to the order of sums. The codec's start by k-means and
    most of its updates replace codes, by vectors drawn from the whole batch."""
    wanted, alone, _ = trained(kind, "one")
    losses, state, mesh = trained(kind, way)
    assert len(wanted) == UPDATES
    np.testing.assert_allclose(losses, wanted, rtol=0, atol=1e-5)
    for a, b in zip(
        jax.tree.leaves((state.params, state.ema, state.aux)),
        jax.tree.leaves((alone.params, alone.ema, alone.aux)),
        strict=True,
    ):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=1e-5)
    if way == "all":
        check_split(state, mesh)


def test_dead_codes_are_replaced_alike_on_every_mesh():
    """Most codes are dead: nearly all vectors of the new books were drawn from the batch, and the
    same ones where it lies in pieces and sums of it round otherwise."""
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(24, 37, 8)).astype(np.float32)
    mask = rng.random((24, 37)) < 0.7  # sums of weights are no powers of two
    state = quantize.init(jax.random.key(1), levels=2, size=64, dim=8)

    def learn(mesh, state, latents, mask):
        options = {"train": True, "learning": quantize.EMA(0.9, expiry=0.9), "mask": mask}
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return quantize.quantize(state, latents, key=jax.random.key(2), **options).state

    learn = jax.jit(learn, static_argnums=0)
    want = learn(one_device(), state, latents, mask)
    moved = jnp.abs(want.vectors - state.vectors).max(-1) > 1e-3
    assert float(moved.mean()) > 0.5
    for mesh in (sharding.make_mesh(), sharding.make_mesh(2, 4, 1)):
        batch = sharding.place_batch({"latents": latents, "mask": mask}, mesh)
        got = learn(mesh, jax.device_put(state, sharding.replicated(mesh)), **batch)
        np.testing.assert_allclose(got.vectors, want.vectors, rtol=0, atol=1e-6)
        np.testing.assert_allclose(got.counts, want.counts, rtol=0, atol=1e-6)


def check_split(state, mesh) -> None:
    """Parameters, both moments and the running mean lie where the table says, in pieces."""
    moments = [optax.tree.get(state.opt, name) for name in ("mu", "nu")]
    # A codec's mean has codewords beside the weights.
    pairs = [(tree, state.params) for tree in (state.params, *moments)] + [(state.ema, state.ema)]
    for tree, table in pairs:
        wanted = jax.tree.leaves(sharding.of_params(table, mesh))
        leaves = jax.tree.leaves(tree)
        assert len(leaves) == len(wanted) > 0
        for leaf, want in zip(leaves, wanted, strict=True):
            assert leaf.sharding.is_equivalent_to(want, leaf.ndim)
        here = sum(leaf.addressable_shards[0].data.size for leaf in leaves)
        assert here < 0.6 * sum(leaf.size for leaf in leaves)
    named = any(
        axis is not None
        for variable in jax.tree.leaves(state.params, is_leaf=lambda x: isinstance(x, nnx.Param))
        for axis in variable.axes
    )
    assert named


def test_dropping_captions_is_each_records_own_draw():
    """Whether a caption is dropped depends on the record and the key, not on its batch."""
    key, index = jax.random.key(0), jnp.arange(4)

    def kept(index, share: float):
        text = text_condition(jnp.ones((len(index), 3), jnp.int32))
        return apply_dropout(key, {"text": text}, index, ConditionDropout(share))["text"].kept

    some = kept(index, 0.5)
    assert np.array_equal(kept(index[::-1], 0.5), some[::-1])
    assert np.array_equal(kept(index[2:], 0.5), some[2:])
    assert kept(index, 0.0).all() and not kept(index, 1.0).any()
    assert 0.70 < float(kept(jnp.arange(2000), 0.25).mean()) < 0.80
