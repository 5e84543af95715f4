"""Fused attention is XLA's form: values, gradients, padding, meshes; and keeps no scores."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType
from small_plans import BIG, LM
from tiers import slow

from rvq_jax.axes import MESH
from rvq_jax.lm import attention
from rvq_jax.lm.attention import attend
from rvq_jax.train.sharding import make_mesh

# Steps past a block, queries of two heads for each of keys.
T, B, H, G, E = 140, 8, 4, 2, 8


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", 128)


def drawn(steps: int = T, positions: int | None = None, heads: int = G):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((B, steps, H, E), *[(B, positions or steps, heads, E)] * 2)
    return [jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)]


def weights():
    return jax.random.normal(jax.random.key(1), (B, T, H, E))


def value_and_grads(form, given, causal, seen=None, used=None):
    """Of a weighed sum of what comes of the queries that are used."""

    def weighed(*given):
        y = attend(*given, causal=causal, seen_BS=seen, form=form)
        y = y if used is None else jnp.where(used[:, :, None, None], y, 0.0)
        return (y * weights()).sum(), y

    return jax.jit(jax.value_and_grad(weighed, (0, 1, 2), has_aux=True))(*given)


def check_equal(given, causal, seen=None, used=None):
    ours = value_and_grads("fused", given, causal, seen, used)
    for a, b in zip(
        jax.tree.leaves(ours),
        jax.tree.leaves(value_and_grads("xla", given, causal, seen, used)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(b).max()))


def test_a_causal_kernel_is_xlas_form():
    check_equal(drawn(), causal=True)


def test_padding_inside_of_a_prefix_is_seen_by_no_query():
    """As a text before the codes: what stands on padding is used by nobody."""
    places = jnp.arange(T)[None]
    seen = (places < 5) | (places >= 5 + jnp.arange(B)[:, None])
    check_equal(drawn(), causal=True, seen=seen, used=seen)


@pytest.mark.parametrize("padded", [True, slow(False)])
def test_all_see_all_of_another_sequence(padded):
    """Rows of different lengths, neither sequence of whole blocks."""
    lengths = jnp.arange(1, B + 1)[:, None] * 9
    seen = jnp.arange(77)[None] < lengths if padded else None
    check_equal(drawn(positions=77), causal=False, seen=seen)


def test_eight_devices_are_one():
    """Rows over data and fsdp, heads over tensor, each device its own kernel; gradients too."""
    given, one = drawn(heads=H), value_and_grads("fused", drawn(heads=H), True)
    mesh = make_mesh(2, 2, 2)

    def under(*given):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return value_and_grads("fused", given, True)

    place = jax.sharding.NamedSharding(mesh, jax.P(("data", "fsdp"), None, "tensor"))
    many = jax.jit(under)(*[jax.device_put(x, place) for x in given])
    for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(b).max()))


# What a program for other devices holds, lowered here.

DEVICES = {
    "tpu": AbstractDevice("TPU v5 lite", 1, "tpu"),
    "cuda": AbstractDevice("NVIDIA H100 80GB HBM3", 1, "gpu"),
}
STEPS = 320  # of no other axis


def lowered(platform: str, form: str, monkeypatch, **changes) -> str:
    """The gradient of a model's loss, as JAX gives it to a compiler for this platform."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    # Of a card that is not here.
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91300)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda least: True)
    equal = lambda capability: False  # noqa: E731
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", equal, raising=False)
    choice = {"attention": form, "dtype": "bfloat16", "remat": "attention"}
    lm = dataclasses.replace(LM, **choice, **changes)
    run = dataclasses.replace(BIG, lm=lm, batch=2, frames=STEPS - 8)
    task, axes = run.task(), (AxisType.Auto,) * 3
    assert task.aux.steps == STEPS
    mesh = AbstractMesh((1, 1, 1), MESH, axes, abstract_device=DEVICES[platform])

    def update(batch, key):
        with jax.sharding.use_abstract_mesh(mesh):
            return jax.grad(task.loss, has_aux=True)(task.init(key), task.aux, batch, key)

    key = jax.eval_shape(lambda: jax.random.key(0))
    traced = jax.jit(update).trace(run.batch_shapes(), key)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def scores_in(text: str) -> list[str]:
    """Arrays of as many steps, padded or not, times as many."""
    some = f"(?:{STEPS}|384|512)"
    return re.findall(rf"tensor<(?:\d+x)*{some}x(?:\d+x)?{some}x\w+>", text)


@pytest.mark.parametrize(("platform", "call"), [("tpu", "tpu_custom_call"), ("cuda", "cudnn")])
def test_a_program_for_accelerators_holds_no_scores(platform, call, monkeypatch):
    """Chosen by what it is traced for, on a machine that has neither."""
    text = lowered(platform, "auto", monkeypatch)
    assert call in text and not scores_in(text)


def test_a_prefix_is_segments_of_the_kernel(monkeypatch):
    text = lowered("tpu", "auto", monkeypatch, text_as="prefix")
    assert "segmented" in text and not scores_in(text)


def test_xlas_form_holds_them(monkeypatch):
    text = lowered("tpu", "xla", monkeypatch)
    assert scores_in(text) and "tpu_custom_call" not in text


def test_short_sequences_and_masks_have_no_kernel(monkeypatch):
    """Nor has what is traced for no devices in particular."""
    device = DEVICES["tpu"]
    mesh = AbstractMesh((1, 1, 1), MESH, (AxisType.Auto,) * 3, abstract_device=device)

    def holds(given, **options) -> bool:
        return "pallas_call" in str(jax.make_jaxpr(lambda *x: attend(*x, **options))(*given))

    long = drawn(300)
    assert not holds(long, causal=True)
    with jax.sharding.use_abstract_mesh(mesh):
        assert holds(long, causal=True) and holds(long)
        assert not holds(drawn(200), causal=True) and not holds(drawn(300, 64))
        assert not holds(long, causal=True, form="xla")
        assert not holds(long, mask=jnp.ones((1, 1, 300, 300), bool))
