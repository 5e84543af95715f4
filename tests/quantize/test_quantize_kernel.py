"""The TPU kernel gives the codes of the plain version, and TPU compilers take it."""

import functools
import importlib.util
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiers import examples

from rvq_jax.quantize import kernel
from rvq_jax.quantize.kernel import residual_codes
from rvq_jax.quantize.search import greedy_codes

interpreted = jax.jit(functools.partial(residual_codes, interpret=True))
plain = jax.jit(greedy_codes)

# K, N, D, M: all of size one; smaller than a tile; neither M nor N whole tiles; whole ones.
SIZES = st.sampled_from([(1, 1, 1, 1), (5, 100, 7, 9), (3, 600, 5, 700), (2, 1024, 16, 512)])


def integers(sizes, seed):
    """Small integers: every score is exact in float32, and many are equal."""
    levels, size, dim, count = sizes
    rng = np.random.default_rng(seed)
    books_KND = rng.integers(-2, 3, (levels, size, dim)).astype(np.float32)
    return books_KND, rng.integers(-9, 10, (count, dim)).astype(np.float32)


def normals(sizes, seed):
    levels, size, dim, count = sizes
    rng = np.random.default_rng(seed)
    scale_K11 = 0.5 ** np.arange(levels)[:, None, None]
    books_KND = (rng.normal(size=(levels, size, dim)) * scale_K11).astype(np.float32)
    return books_KND, rng.normal(size=(count, dim)).astype(np.float32)


# Codes.


@examples(8)
@given(SIZES, st.integers(0, 99))
def test_codes_are_the_plain_ones_and_ties_too(sizes, seed):
    books_KND, vectors_MD = integers(sizes, seed)
    codes_KM = interpreted(books_KND, vectors_MD)
    assert codes_KM.dtype == jnp.int32
    np.testing.assert_array_equal(codes_KM, plain(books_KND, vectors_MD))


@examples(8)
@given(SIZES, st.integers(0, 99))
def test_sizes_bound_the_codes_of_each_level(sizes, seed):
    """Also where a level ends inside a block, or before the last one."""
    books_KND, vectors_MD = integers(sizes, seed)
    levels, size = sizes[:2]
    sizes_K = np.random.default_rng(seed).integers(1, size + 1, levels).astype(np.int32)
    codes_KM = interpreted(books_KND, vectors_MD, sizes_K)
    assert (codes_KM < sizes_K[:, None]).all()
    np.testing.assert_array_equal(codes_KM, plain(books_KND, vectors_MD, sizes_K))


@examples(8)
@given(SIZES, st.integers(0, 99))
def test_each_level_codes_what_the_levels_before_left(sizes, seed):
    """Float sums in another order may turn a near tie: so the distance is asked, not the code."""
    books_KND, residual_MD = normals(sizes, seed)
    for book_ND, codes_M in zip(
        books_KND, np.asarray(interpreted(books_KND, residual_MD)), strict=True
    ):
        distance_MN = ((residual_MD[:, None] - book_ND[None]) ** 2).sum(2)
        chosen_M = np.take_along_axis(distance_MN, codes_M[:, None], axis=1)[:, 0]
        np.testing.assert_allclose(chosen_M, distance_MN.min(1), rtol=1e-4, atol=1e-4)
        residual_MD = residual_MD - book_ND[codes_M]


def test_equal_codewords_in_every_block_give_the_first():
    """A tie across blocks of one step, with a padded last block that must not win it."""
    size = 2 * kernel.SIDE + 9
    books_KND = jnp.full((3, size, 4), -1.0)
    codes_KM = interpreted(books_KND, jnp.ones((5, 4)))
    assert (codes_KM == 0).all()


def test_every_codeword_can_be_chosen():
    """The codebook as its own latents, over two blocks and a part."""
    books_KND, _ = normals((1, 2 * kernel.SIDE + 9, 8, 1), 0)
    codes_KM = interpreted(books_KND, books_KND[0])
    np.testing.assert_array_equal(codes_KM[0], np.arange(books_KND.shape[1]))


def test_bfloat16_is_widened_first():
    """Distances and residuals are float32, not rounded level by level."""
    books_KND, vectors_MD = (jnp.asarray(x, jnp.bfloat16) for x in normals((4, 600, 16, 100), 0))
    wide = books_KND.astype(jnp.float32), vectors_MD.astype(jnp.float32)
    np.testing.assert_array_equal(interpreted(books_KND, vectors_MD), interpreted(*wide))
    np.testing.assert_array_equal(interpreted(books_KND, vectors_MD), plain(*wide))


def test_a_vector_that_is_no_number_spoils_no_other():
    books_KND, vectors_MD = integers((2, 600, 5, 40), 0)
    want = np.array(plain(books_KND, vectors_MD))
    vectors_MD[7] = np.nan
    want[:, 7] = 0
    np.testing.assert_array_equal(interpreted(books_KND, vectors_MD), want)


def test_codes_have_no_gradient():
    books_KND, vectors_MD = normals((2, 8, 3, 5), 0)

    def loss(books, vectors):
        codes_M = residual_codes(books, vectors, interpret=True)[0]
        return jnp.sum((vectors - books[0][codes_M]) ** 2)

    to_books, to_vectors = jax.grad(loss, (0, 1))(books_KND, vectors_MD)
    assert jnp.abs(to_vectors).max() > 0 and jnp.isfinite(to_books).all()


# Exactness of the gather.


@given(st.integers(0, 99))
def test_three_bfloat16_hold_a_float32(seed):
    """Bit for bit, over sixty orders of magnitude."""
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=1000) * 10.0 ** rng.integers(-30, 31, 1000)).astype(np.float32)
    parts = jax.jit(kernel._thirds)(values)
    assert all(part.dtype == jnp.bfloat16 for part in parts)
    high, middle, low = (part.astype(jnp.float32) for part in parts)
    np.testing.assert_array_equal(high + middle + low, values)


@given(st.integers(0, 99))
def test_the_gather_is_exact(seed):
    rng = np.random.default_rng(seed)
    book_ND, codes_M = rng.normal(size=(100, 9)).astype(np.float32), rng.integers(0, 100, 40)
    onehot_NM = np.arange(100)[:, None] == codes_M[None]
    np.testing.assert_array_equal(jax.jit(kernel._gather)(book_ND, onehot_NM), book_ND[codes_M].T)


# Compilers.

SHAPES = [(1, 1, 1, 1), (9, 1000, 100, 300), (8, 2048, 128, 96000), (8, 1024, 1024, 6000)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_lowers_for_tpu_anywhere(dtype):
    for levels, size, dim, count in SHAPES:
        books = jax.ShapeDtypeStruct((levels, size, dim), dtype)
        vectors = jax.ShapeDtypeStruct((count, dim), dtype)
        lowered = jax.jit(residual_codes).trace(books, vectors).lower(lowering_platforms=("tpu",))
        assert "tpu_custom_call" in lowered.as_text()


COMPILE = """
import json, sys
import jax
from jax.experimental import topologies
from rvq_jax.quantize.kernel import residual_codes

topology = topologies.get_topology_desc(topology_name="v5e:2x2", platform="tpu")
device = jax.sharding.SingleDeviceSharding(topology.devices[0])
for levels, size, dim, count in json.loads(sys.argv[1]):
    books = jax.ShapeDtypeStruct((levels, size, dim), "float32", sharding=device)
    vectors = jax.ShapeDtypeStruct((count, dim), "float32", sharding=device)
    compiled = jax.jit(residual_codes).lower(books, vectors).compile()
    memory = compiled.memory_analysis()
    print(json.dumps(["tpu_custom_call" in compiled.as_text(), memory.temp_size_in_bytes]))
"""

COMPILE_SHARDED = """
import json, re
import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from rvq_jax import quantize

topology = topologies.get_topology_desc(topology_name="v5e:2x2", platform="tpu")
mesh = Mesh(np.array(topology.devices), ("data",), axis_types=(AxisType.Auto,))
state = jax.eval_shape(lambda: quantize.init(jax.random.key(0), 8, 2048, 128))
whole, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), state)
latents = jax.ShapeDtypeStruct((64, 750, 128), "float32", sharding=split)
specs = {"mesh": mesh, "in_specs": (P(), P("data")), "out_specs": P("data"), "check_vma": False}
for encode in (
    jax.shard_map(lambda s, x: quantize.encode(s, x, kernel=True), **specs),
    quantize.encode,
):
    compiled = jax.jit(encode).lower(state, latents).compile()
    text, memory = compiled.as_text(), compiled.memory_analysis().temp_size_in_bytes
    found = re.findall("all-gather|all-reduce|all-to-all|collective-permute", text)
    print(json.dumps(["tpu_custom_call" in text, found, memory]))
"""

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install -e '.[tpu-plan]'"
)


def printed_for_tpu(program, *arguments):
    """JSON lines of a process of its own: libtpu reads its environment once and holds a lock."""
    flags = {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
    }
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **flags},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@needs_libtpu
def test_it_compiles_for_tpu_v5e():
    """Ahead of time, no TPU needed; scores and residuals are nowhere in its memory."""
    lines = printed_for_tpu(COMPILE, json.dumps(SHAPES))
    for (levels, size, dim, _), (called, temporary) in zip(SHAPES, lines, strict=True):
        # At most the padded copy of the codebooks, and what aligns it.
        assert called and temporary <= 4 * levels * (size + kernel.SIDE) * (dim + 128)


@needs_libtpu
def test_devices_encode_their_own_vectors():
    """On four chips that share a batch nothing is exchanged, with the kernel or without it, and no
    scores `[M, N]` are held: without it XLA takes the maximum inside the product."""
    lines = printed_for_tpu(COMPILE_SHARDED)
    assert [line[:2] for line in lines] == [[True, []], [False, []]]
    scores = 4 * (64 * 750 // 4) * 2048
    assert all(memory < scores / 10 for _, _, memory in lines)
