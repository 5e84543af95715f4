"""What devices exchange in a compiled step as there are more of them, read off XLA's own text."""

import contextlib
import dataclasses
import functools
import math

import jax
import pytest
from small_plans import BIG, LM, codec_run
from small_runs import one_window
from tiers import slow, wide

from rvq_jax.axes import MESH
from rvq_jax.plan import programs
from rvq_jax.plan.compiled import cost
from rvq_jax.train import sharding

pytestmark = pytest.mark.usefixtures("compiled_anew")

COUNTS = [slow(8), wide(2), slow(4)]


def exchanged(run, **mesh) -> list:
    """The collectives of a run's step on a mesh of the first devices."""
    devices = jax.devices()[: math.prod(mesh.values())]
    step = programs.step(run, sharding.make_mesh(**mesh, devices=devices))
    return cost(step.lower().compile().as_text()).collectives


def sent(found) -> float:
    return sum(one.times * one.bytes for one in found)


def numbers_of(run) -> int:
    return sum(
        math.prod(x.shape)
        for x in jax.tree.leaves(jax.eval_shape(run.task().init, jax.random.key(0)))
    )


@functools.cache
def of_codec(devices: int) -> list:
    """Those of a codec's step with two rows for each of so many devices."""
    run = dataclasses.replace(codec_run(), batch=2 * devices)
    with one_window() if devices == 8 else contextlib.nullcontext():
        return exchanged(run, data=devices, fsdp=1, tensor=1)


@pytest.mark.parametrize("n", COUNTS)
def test_a_codecs_exchanges_are_sums_that_grow_as_a_ring(n):
    """Gradients and codebook statistics, each once: 2 (n - 1) / n of their bytes from every device,
    however many rows there are; and next to nothing else."""
    run = codec_run()
    books = run.codec.quantizer(jax.random.key(0))
    learned = numbers_of(run) + books.sums.size + books.counts.size
    sums = [one for one in of_codec(n) if one.kind == "all-reduce"]
    assert sent(sums) == pytest.approx(4 * learned * 2 * (n - 1) / n, rel=0.15)


@pytest.mark.slow
def test_alone_a_codec_exchanges_nothing():
    assert not of_codec(1)


@pytest.mark.parametrize("n", COUNTS)
def test_no_codebook_statistics_are_gathered(n):
    """Each device sums what its own vectors chose, and the vectors drawn for dead codes. Of all
    that has a number for every vector, only the mask is gathered, to count vectors for the draw.
    JAX 0.10 gathers what the loss takes a Fourier transform of: that has nothing to do with it."""
    gathers = [one for one in of_codec(n) if one.kind in ("all-gather", "all-to-all")]
    gathers = [one for one in gathers if "jit(fft)" not in one.source]
    assert all("cumsum" in one.source for one in gathers), gathers
    assert len(gathers) <= 1


# Its twin: the exchanges of a token model, above.
@pytest.mark.slow
@pytest.mark.parametrize("mesh", [(2, 2, 2), (1, 1, 8), (1, 2, 4)])
def test_the_vocabulary_is_never_whole(mesh):
    """Heads and logits stay in pieces over `model`: nothing gathered has all codes of a level. The
    table of embeddings has one code more, which no mesh divides."""
    size = 56  # of no other axis, whole or in parts
    lm = dataclasses.replace(LM, codebook_size=size, heads=8, remat=True)
    run = dataclasses.replace(BIG, lm=lm)
    found = exchanged(run, **dict(zip(MESH, mesh, strict=True)))
    assert found
    for one in found:
        if one.kind == "all-gather":
            assert all(size not in shape for shape in one.shapes), one


@pytest.mark.parametrize("n", [8, slow(2), slow(4)])
def test_a_token_models_exchanges_grow_as_a_ring(n):
    """Three rows for each device: the sum of gradients, whatever the batch."""
    run = dataclasses.replace(BIG, batch=3 * n)
    found = exchanged(run, data=n, fsdp=1, tensor=1)
    assert {one.kind for one in found} == {"all-reduce"}
    assert sent(found) == pytest.approx(4 * numbers_of(run) * 2 * (n - 1) / n, rel=0.05)
