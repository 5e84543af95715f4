"""Generation over a mesh of devices is that of one, rows and parameters split as the table says."""

import dataclasses

import jax
import numpy as np
import pytest
from small_musicgen import small
from small_parallel import magnet
from tiers import slow

from rvq_jax import meshes
from rvq_jax.errors import UserError
from rvq_jax.lm import precision
from rvq_jax.systems.decoding.devices import Rows, place_params
from rvq_jax.systems.musicgen import MusicGen

MESH = {"data": 2, "fsdp": 2, "tensor": 2}
CAPTIONS, SECONDS, KEY = ["slow", "a loud drum", "x"], 0.1, jax.random.key(5)


@pytest.fixture(scope="module")
def mesh():
    return meshes.make_mesh(**MESH)


def over(model, mesh, kind="float32"):
    """A model over a mesh, in a precision."""
    params = place_params(jax.device_get(model.params), kind, mesh)
    return dataclasses.replace(model, params=params)


@pytest.mark.parametrize(
    ("kind", "all_ways"), [("text", False), slow("text", True), slow("melody", True)]
)
def test_a_mesh_samples_what_one_device_samples(kind, all_ways, mesh):
    """Three rows over four, sampled and greedy: codes, and with them audio, are equal. Heads are
    split over tensor, features over fsdp, keys of the cache with them."""
    model = small(kind)
    spread = over(model, mesh)
    query = spread.params["blocks"][0]["attend_self"]["query"].get_value()
    assert len({str(s.index) for s in query.addressable_shards}) == 4
    for temperature in (1.0, 0.0) if all_ways else (1.0,):
        options = {"temperature": temperature, "guidance_scale": 2.0, "top_k": 5}
        one, several = (m.generate(CAPTIONS, SECONDS, KEY, **options) for m in (model, spread))
        np.testing.assert_array_equal(one, several)
    if not all_ways:
        return
    pieces = list(spread.stream(CAPTIONS, SECONDS, KEY, chunk=0.05, **options))
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), one, atol=1e-4)
    codes = np.random.default_rng(0).integers(0, 11, (3, 3, 10)).astype(np.int32)
    bits = [np.asarray(m.score(codes, CAPTIONS)) for m in (model, spread)]
    np.testing.assert_allclose(*bits, atol=1e-4)


def test_a_masked_model_over_a_mesh(mesh):
    """Whole levels at once: of positions that are as sure as each other up to rounding a mesh may
    take others first."""
    model, each = magnet(), {"iterations": (1, 1, 1), "top_p": 0.0}
    one, several = (m.generate(CAPTIONS, SECONDS, KEY, **each) for m in (model, over(model, mesh)))
    np.testing.assert_array_equal(one, several)


def test_int8_over_a_mesh_has_its_scales_where_the_outputs_are(mesh):
    """A scale is split as the axes that come out; generation runs."""
    spread = over(small(), mesh, "int8")
    up = spread.params["blocks"][0]["up"].get_value()
    split = tuple(up.values.sharding.spec), tuple(up.scale.sharding.spec)
    assert split == (("tensor", "fsdp"), ("tensor",))
    assert precision.of(spread.params) == "int8"
    spread = dataclasses.replace(spread, config=precision.computed(spread.config, "int8"))
    assert np.isfinite(spread.generate(CAPTIONS[:1], SECONDS, KEY)).all()


def test_a_model_is_loaded_onto_a_mesh_and_in_fewer_bits(mesh, tmp_path):
    """Straight from its folder; in fewer bits it is not saved again."""
    small().save(tmp_path / "model")
    spread = MusicGen.load(tmp_path / "model", mesh=mesh)
    assert meshes.of(spread.params) == mesh and spread.config.dtype == "float32"
    for kind in ("bfloat16", "int8"):
        model = MusicGen.load(tmp_path / "model", precision=kind)
        assert precision.of(model.params) == kind and model.config.dtype == "bfloat16"
        with pytest.raises(UserError, match=f"a model in {kind} cannot be saved"):
            model.save(tmp_path / "again")
        assert not (tmp_path / "again").exists()


def test_rows_are_padded_to_what_the_mesh_divides(mesh):
    """The last row is there again; on one device nothing is touched."""
    rows = Rows(mesh, 3).place({"x": np.arange(3), "key": jax.random.split(KEY, 3)})
    assert rows["x"].tolist() == [0, 1, 2, 2] and rows["key"].shape == (4,)
    given = np.arange(3)
    assert Rows(None, 3).place(given) is given
