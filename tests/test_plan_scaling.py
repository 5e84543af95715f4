"""What devices exchange in a compiled step as there are more of them, read off XLA's own text."""

import dataclasses
import math

import jax
import pytest
from test_plan import BIG, LM, codec_run

from rvq_jax.axes import MESH
from rvq_jax.plan import programs
from rvq_jax.plan.compiled import cost
from rvq_jax.train import sharding

COUNTS = (1, 2, 4, 8)


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
        for x in jax.tree.leaves(jax.eval_shape(programs.task(run).init, jax.random.key(0)))
    )


@pytest.fixture(scope="module")
def codecs():
    """A codec's step with the same rows for each of 1, 2, 4, 8 devices."""
    run = codec_run()
    runs = {n: dataclasses.replace(run, batch=2 * n) for n in COUNTS}
    return run, {n: exchanged(runs[n], data=n, fsdp=1, model=1) for n in COUNTS}


def test_a_codecs_exchanges_are_sums_that_grow_as_a_ring(codecs):
    """Gradients and codebook statistics, each once: 2 (n - 1) / n of their bytes from every device,
    however many rows there are; and next to nothing else."""
    run, found = codecs
    assert not found[1]
    books = run.codec.quantizer(jax.random.key(0))
    learned = numbers_of(run) + books.sums.size + books.counts.size
    for n in COUNTS[1:]:
        sums = [one for one in found[n] if one.kind == "all-reduce"]
        assert sent(sums) == pytest.approx(4 * learned * 2 * (n - 1) / n, rel=0.15)


def test_no_codebook_statistics_are_gathered(codecs):
    """Each device sums what its own vectors chose, and the vectors drawn for dead codes. Of all
    that has a number for every vector, only the mask is gathered, to count vectors for the draw.
    JAX 0.10 gathers what the loss takes a Fourier transform of: that has nothing to do with it."""
    for n in COUNTS[1:]:
        gathers = [one for one in codecs[1][n] if one.kind in ("all-gather", "all-to-all")]
        gathers = [one for one in gathers if "jit(fft)" not in one.source]
        assert all("cumsum" in one.source for one in gathers), gathers
        assert len(gathers) <= 1


@pytest.mark.parametrize("mesh", [(1, 1, 8), (2, 2, 2), (1, 2, 4)])
def test_the_vocabulary_is_never_whole(mesh):
    """Heads and logits stay in pieces over `model`: nothing gathered has all codes of a level. The
    table of embeddings has one code more, which no mesh divides."""
    size = 56  # of no other axis, whole or in parts
    lm = dataclasses.replace(LM, size=size, heads=8, remat=True)
    run = dataclasses.replace(BIG, lm=lm)
    found = exchanged(run, **dict(zip(MESH, mesh, strict=True)))
    assert found
    for one in found:
        if one.kind == "all-gather":
            assert all(size not in shape for shape in one.shapes), one


def test_a_token_models_exchanges_grow_as_a_ring():
    """Three rows for each device: the sum of gradients, whatever the batch."""
    for n in COUNTS[1:]:
        run = dataclasses.replace(BIG, batch=3 * n)
        found = exchanged(run, data=n, fsdp=1, model=1)
        assert {one.kind for one in found} == {"all-reduce"}
        assert sent(found) == pytest.approx(4 * numbers_of(run) * 2 * (n - 1) / n, rel=0.05)
