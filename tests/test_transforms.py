"""Every public operation under every transformation of JAX: one table, one oracle.

Over all rows at once an operation of `support/operations.py` must give what it gives eagerly;
mapped over them, row by row, what a Python loop gives.
"""

from contextlib import nullcontext
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from operations import CODECS, OPERATIONS, ROWS, F, eager, operation, row_by_row, small_codec
from tiers import slow, tried, wide

import rvq_jax as rj


@pytest.fixture(autouse=True)
def few_programs_at_once():
    """The table alone compiles more than a process may map: see `few_programs` of conftest.py."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


def parts(given) -> np.ndarray:
    return np.stack(np.split(given, ROWS))


def mesh_of(kind: AxisType) -> jax.sharding.Mesh:
    return jax.make_mesh((ROWS,), ("rows",), axis_types=(kind,))


def on_mesh(kind: AxisType, context: bool):
    def way(name):
        run, given = operation(name)
        mesh = mesh_of(kind)
        with jax.set_mesh(mesh) if context else nullcontext():
            given = jax.device_put(given, NamedSharding(mesh, PartitionSpec("rows")))
            got = jax.jit(run)(given)
        return got, eager(name)

    return way


def in_shard_map(check_vma: bool):
    def way(name):
        run, given = operation(name)
        rows = PartitionSpec("rows")
        mapped = jax.shard_map(
            lambda x: jax.tree.map(lambda y: y[None], run(x)),
            mesh=mesh_of(AxisType.Auto),
            in_specs=rows,
            out_specs=rows,
            check_vma=check_vma,
        )
        return jax.jit(mapped)(given), row_by_row(name)

    return way


def scanned(name):
    run, given = operation(name)
    return jax.lax.map(run, parts(given)), row_by_row(name)


def in_x64(name):
    want = eager(name)  # kept for the other ways too: not of 64 bits
    with jax.enable_x64(True):
        run, given = OPERATIONS[name](jax.random.key)
        return run(given), want


def with_legacy_keys(name):
    run, given = OPERATIONS[name](jax.random.PRNGKey)
    return run(given), eager(name)


def unsplit(name):
    """Arrays that lie nowhere yet, where a mesh with explicit axes is set."""
    run, given = operation(name)
    with jax.set_mesh(mesh_of(AxisType.Explicit)):
        got = jax.jit(run)(given)
    return got, eager(name)


WAYS = {
    "jit": lambda name: (jax.jit(operation(name).run)(operation(name).given), eager(name)),
    "vmap": lambda name: (
        jax.vmap(operation(name).run)(parts(operation(name).given)),
        row_by_row(name),
    ),
    "scan": scanned,
    "shard_map": in_shard_map(True),
    "shard_map unchecked": in_shard_map(False),
    "explicit mesh": on_mesh(AxisType.Explicit, True),
    "explicit arrays": on_mesh(AxisType.Explicit, False),
    "explicit mesh, unsplit": unsplit,
    "automatic mesh": on_mesh(AxisType.Auto, True),
    "x64": in_x64,
    "legacy keys": with_legacy_keys,
}


# In the fast tier each way has an operation, those that fail in ways of their own more. In the slow
# one every other operation of those left has a way, and each way an operation or two; `pytest -m
# wide` has all.
FAST = {
    "jit": ("codec levelled",),
    "vmap": ("decode",),
    "scan": ("pattern",),
    "shard_map": ("decode", "long", "start", "generate"),
    "shard_map unchecked": ("bare codes",),
    "explicit mesh": ("start", "score", "bare codes"),
    "explicit arrays": ("decode",),
    "explicit mesh, unsplit": ("decode",),
    "automatic mesh": ("decode",),
    "x64": ("decode",),
    "legacy keys": ("start",),
}
TRIED = {name for names in FAST.values() for name in names}
NEW = [name for name in OPERATIONS if name not in TRIED]
OTHERS = [way for way in WAYS if way != "jit"]  # most tests of an operation compile it
SLOW = [(OTHERS[i % 10], name) for i, name in enumerate(NEW[::2])]


def table() -> list:
    """Every way and operation, each in its tier."""
    fast = [(way, name) for way in FAST for name in FAST[way]]
    every = [(way, name) for way in WAYS for name in OPERATIONS]
    return [x if x in fast else slow(*x) if x in SLOW else wide(*x) for x in every]


@pytest.mark.parametrize(("way", "name"), table())
def test_every_operation_composes_with_every_transformation(way, name):
    got, want = WAYS[way](name)
    got_leaves, want_leaves = (jax.tree.leaves_with_path(x) for x in (got, want))
    assert [path for path, _ in got_leaves] == [path for path, _ in want_leaves]
    for (path, a), (_, b) in zip(got_leaves, want_leaves, strict=True):
        assert a.dtype == b.dtype, path
        # The entropy loss of LFQ multiplies rounding by its sharpness, a hundred.
        scale = max(1.0, np.abs(b).max()) if "lfq" in name else 1.0
        atol = 1e-5 if scale == 1.0 else 3e-4 * scale
        np.testing.assert_allclose(np.asarray(a), b, rtol=1e-4, atol=atol, err_msg=f"{path}")


@pytest.mark.parametrize(
    "name", tried(["beam"], ["beam", "long", "quantize lfq", "codec levelled"])
)
def test_bfloat16_gives_the_codes_of_what_it_holds(name):
    """Latents and audio of few bits are those numbers: codes are those of the same in float32."""
    run, given = operation(name)
    given = jnp.asarray(given, jnp.bfloat16)
    pairs = zip(
        jax.tree.leaves(run(given)), jax.tree.leaves(run(given.astype(jnp.float32))), strict=True
    )
    for few, many in pairs:
        if jnp.issubdtype(many.dtype, jnp.integer):
            assert few.dtype == jnp.int32
            np.testing.assert_array_equal(few, many)


def test_a_codec_first_used_inside_of_a_program_can_be_used_after_it():
    """What it keeps prepared is nobody's: not the program's, not the mesh's that was set then."""
    codes = np.zeros((ROWS, 2, F), np.int32)
    want = np.asarray(small_codec("dac").decode(codes))
    for context in (nullcontext(), jax.set_mesh(mesh_of(AxisType.Explicit))):
        codec = rj.Codec.init(CODECS["dac"], jax.random.key(0))
        with context:
            np.testing.assert_allclose(jax.jit(codec.decode)(codes), want, atol=1e-5)
        np.testing.assert_allclose(codec.decode(codes), want, atol=1e-5)


def test_what_loops_on_the_host_says_so_when_traced():
    codec = small_codec("mirrored")
    codes, audio = np.zeros((1, 2, 8), np.int32), np.zeros((1, 16, 1), np.float32)
    for run, given in (
        (lambda x: codec.decode(x, chunk=0.01), codes),
        (lambda x: codec.encode(x, chunk=0.01).codes, audio),
        (lambda x: codec.decode_stream().push(x), codes),
        (lambda x: codec.encode_stream().push(x), audio),
    ):
        with pytest.raises(ValueError, match=r"on the host: call it outside of jax\.jit"):
            jax.jit(run)(given)
