"""FLOPs, bytes and exchanges of compiled programs, against counts by hand and XLA's own."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from rvq_jax.plan import collectives, hlo
from rvq_jax.plan.compiled import cost
from rvq_jax.plan.model_flops import of_jaxpr

pytestmark = pytest.mark.usefixtures("compiled_anew")


def text_of(function, *shapes, **options):
    arrays = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    return jax.jit(function, **options).lower(*arrays).compile()


def counted(function, *shapes) -> float:
    return cost(text_of(function, *shapes).as_text()).flops


# FLOPs.

conv = jax.lax.conv_general_dilated
PROGRAMS = {
    "product": (lambda a, b: a @ b, (3, 5), (5, 7)),
    "batched": (lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (2, 3, 5), (2, 5, 7)),
    "two axes": (lambda a, b: jnp.einsum("abij,ij->ab", a, b), (2, 3, 5, 7), (5, 7)),
    "convolution": (lambda a, b: conv(a, b, (2,), "VALID"), (2, 3, 20), (4, 3, 5)),
    "padded": (lambda a, b: conv(a, b, (1,), "SAME"), (2, 3, 20), (4, 3, 5)),
    "with holes": (
        lambda a, b: conv(a, b, (1,), [(4, 4)], lhs_dilation=(3,)),
        (2, 3, 20),
        (4, 3, 5),
    ),
    "groups": (lambda a, b: conv(a, b, (1,), "VALID", feature_group_count=3), (2, 6, 9), (3, 2, 3)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_flops_without_loops_are_xlas(name):
    """XLA's own analysis counts pairs that meet padding or holes out, as we do, and elementwise
    work in, of which these have none."""
    function, *shapes = PROGRAMS[name]
    compiled = text_of(function, *shapes)
    assert cost(compiled.as_text()).flops == compiled.cost_analysis()["flops"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_flops_before_and_after_the_compiler_agree(name):
    function, *shapes = PROGRAMS[name]
    arrays = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    assert of_jaxpr(jax.make_jaxpr(function)(*arrays).jaxpr) == counted(function, *shapes)


def test_a_loop_counts_as_often_as_it_runs():
    """Five layers, each in an inner loop of three; XLA's own analysis would say one of each."""

    def layers(x, weights):
        def outer(x, weight):
            return jax.lax.fori_loop(0, 3, lambda _, x: jnp.tanh(x @ weight), x), None

        return jax.lax.scan(outer, x, weights)[0]

    compiled = text_of(layers, (8, 16), (5, 16, 16))
    one = 2 * 8 * 16 * 16
    assert cost(compiled.as_text()).flops == 15 * one
    assert compiled.cost_analysis()["flops"] < 15 * one
    arrays = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((8, 16), (5, 16, 16))]
    assert of_jaxpr(jax.make_jaxpr(layers)(*arrays).jaxpr) == 15 * one


def test_what_nothing_comes_of_does_not_count():
    """A pullback's other gradient, in a loop and in a branch too: nor is it in what runs."""

    def of_first(a, b):
        product, pull = jax.vjp(lambda a, b: jnp.tanh(a @ b), a, b)
        return pull(product)[0]

    def looped(a, b):
        once = jax.lax.scan(lambda a, _: (of_first(a, b), None), a, length=3)[0]
        return jax.lax.cond(a.sum() > 0, of_first, lambda a, b: a, once, b)

    one, shapes = 2 * 4 * 8 * 8, ((4, 8), (8, 8))
    for function, count in ((of_first, 2), (looped, 8)):
        arrays = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
        assert of_jaxpr(jax.make_jaxpr(function)(*arrays).jaxpr) == count * one
    assert counted(of_first, *shapes) == 2 * one


def test_a_loop_that_ends_by_what_it_finds_is_told_apart():
    """Its length is no property of the program: it is given, and such loops are counted."""

    def until(x, weight):
        return jax.lax.while_loop(lambda x: x.sum() < 1.0, lambda x: x @ weight, x)

    text = text_of(until, (8, 16), (16, 16)).as_text()
    assert cost(text).flops == 2 * 8 * 16 * 16 and cost(text).uncounted == 1
    assert cost(text, loops=7).flops == 7 * 2 * 8 * 16 * 16


CONDITION = """
HloModule m, num_partitions=4

%fused (p.0: s32[], p.1: s32[]) -> pred[] {{
  %p.0 = s32[] parameter(0)
  %p.1 = s32[] parameter(1)
  ROOT %lt = pred[] compare(%p.0, %p.1), direction=LT
}}

%condition (t: (s32[], f32[4])) -> pred[] {{
  %t = (s32[], f32[4]{{0}}) parameter(0)
  %bound = s32[] constant(24)
  %counter = s32[] get-tuple-element(%t), index=0
  {condition}
}}

%body (t.1: (s32[], f32[4])) -> (s32[], f32[4]) {{
  {body}
}}

%sum (p.2: s32[], p.3: s32[]) -> s32[] {{
  %p.2 = s32[] parameter(0)
  %p.3 = s32[] parameter(1)
  ROOT %add = s32[] add(%p.3, %p.2)
}}

ENTRY %main (x: f32[4]) -> (s32[], f32[4]) {{
  %x = f32[4]{{0}} parameter(0)
  %four = s32[] constant(4)
  %begin = s32[] copy(%four)
  %init = (s32[], f32[4]{{0}}) tuple(%begin, %x)
  ROOT %while = (s32[], f32[4]{{0}}) while(%init), condition=%condition, body=%body
}}
"""


LESS = "ROOT %lt = pred[] compare(%counter, %bound), direction=LT"
AS_IT_WAS = "ROOT %t.1 = (s32[], f32[4]{0:T(128)S(1)}) parameter(0)"
BY_THREE = """%t.1 = (s32[], f32[4]{0:T(128)S(1)}) parameter(0)
  %x.1 = f32[4]{0} get-tuple-element(%t.1), index=1
  %three = s32[] constant(3)
  %old = s32[] get-tuple-element(%t.1), index=0
"""
PLAIN = """  %new = s32[] add(%old, %three)
  ROOT %out = (s32[], f32[4]{0}) tuple(%new, %x.1)"""
FUSED = """  %new = s32[] fusion(%three, %old), kind=kLoop, calls=%sum
  ROOT %out = (s32[], f32[4]{0}) tuple(%new, %x.1)"""


@pytest.mark.parametrize("body", [PLAIN, FUSED])
def test_a_turn_that_was_several_counts_as_one(body):
    """XLA unrolls the loops in which it overlaps products and exchanges: 4, 7, 10, … below 24."""
    found, _ = hlo.runs(hlo.parse(CONDITION.format(condition=LESS, body=BY_THREE + body)))
    assert found["body"].times == 7


@pytest.mark.parametrize(
    ("condition", "times"),
    [
        (LESS, 20),
        ("ROOT %lt = pred[] compare(%counter, %bound), direction=LE", 21),
        ("ROOT %lt = pred[] fusion(%counter, %bound), kind=kLoop, calls=%fused", 20),
        ("ROOT %lt = pred[] compare(%bound, %bound), direction=EQ", None),
    ],
)
def test_the_length_of_a_loop_is_read_off_its_condition(condition, times):
    """Compilers for TPUs do not note it."""
    module = hlo.parse(CONDITION.format(condition=condition, body=AS_IT_WAS))
    found, lost = hlo.runs(module, unknown=3)
    assert found["body"].times == (3 if times is None else times) and lost == (times is None)
    leaf = module.computations["body"]["t.1"].leaves[1]
    assert (leaf.shape, leaf.space, leaf.bytes) == ((4,), 1, 16)


# Bytes.


def test_bytes_of_a_product_are_its_operands_and_result():
    compiled = text_of(lambda a, b: a @ b, (300, 500), (500, 700))
    want = 4 * (300 * 500 + 500 * 700 + 300 * 700)
    assert cost(compiled.as_text()).moved == want


def test_a_scan_reads_a_slice_of_its_stack_at_each_turn():
    """Not the whole stack at every turn, which would be 64 times as much."""

    def scanned(x, stack):
        return jax.lax.scan(lambda x, w: (jnp.sin(x) + w, x), x, stack)

    compiled = text_of(scanned, (4096,), (64, 4096))
    stack = 4 * 64 * 4096
    assert 2 * stack <= cost(compiled.as_text()).moved <= 10 * stack


# Exchanges.


def meshed(function, spec_in, spec_out, shape=(8, 64), axes=(4, 2)):
    mesh = jax.make_mesh(axes, ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    x = jax.ShapeDtypeStruct(shape, "float32", sharding=NamedSharding(mesh, spec_in))
    compiled = jax.jit(function, out_shardings=NamedSharding(mesh, spec_out)).lower(x).compile()
    return cost(compiled.as_text()).collectives


WHOLE = 4 * 8 * 64  # bytes


@pytest.mark.parametrize(
    ("kind", "function", "spec_in", "spec_out", "ways", "sent"),
    [
        ("all-gather", lambda x: x, P("a"), P(), 4, WHOLE * 3 / 4),
        ("all-gather", lambda x: x, P(("a", "b")), P(), 8, WHOLE * 7 / 8),
        ("all-gather", lambda x: x, P("a", "b"), P("a"), 2, WHOLE / 4 / 2),
        ("all-reduce", lambda x: x.sum(0), P("a"), P(), 4, 2 * 4 * 64 * 3 / 4),
        ("all-to-all", lambda x: x, P("a"), P(None, "a"), 4, WHOLE / 4 * 3 / 4),
    ],
)
def test_an_exchange_sends_what_a_ring_does(kind, function, spec_in, spec_out, ways, sent):
    (found,) = meshed(function, spec_in, spec_out)
    assert (found.kind, len(found.members), found.times) == (kind, ways, 1)
    assert found.bytes == pytest.approx(sent)


def test_an_exchange_in_a_loop_counts_as_often_as_it_runs():
    mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType.Auto,))
    split, whole = NamedSharding(mesh, P(None, "a")), NamedSharding(mesh, P())

    def layers(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    x = jax.ShapeDtypeStruct((16, 64), "float32", sharding=whole)
    weights = jax.ShapeDtypeStruct((5, 64, 64), "float32", sharding=split)
    found = cost(jax.jit(layers, out_shardings=whole).lower(x, weights).compile().as_text())
    talk = [one for one in found.collectives if one.times == 5]
    assert sum(one.bytes for one in talk) >= 16 * 64 * 4 * 7 / 8 / 2
    assert found.flops == pytest.approx(5 * 2 * 16 * 64 * 64 / 8)


GROUPS = {
    "replica_groups={{0,2},{1,3}}": (0, 2),
    "replica_groups=[2,2]<=[4]": (0, 1),
    "replica_groups=[2,2]<=[2,2]T(1,0)": (0, 2),
    "replica_groups=mesh['a'=2,'b'=2] {'a'}": (0, 2),
    "replica_groups=mesh['a'=2,'b'=2] {'a','b'}": (0, 2, 1, 3),
    "replica_groups=mesh['a'=4] {'a':(2)2}": (0, 1),
    "replica_groups={}": (0, 1, 2, 3),
    "source_target_pairs={{0,0},{1,3},{3,1}}": (1, 3),
}


@pytest.mark.parametrize("text", GROUPS)
def test_groups_are_read_in_every_form(text):
    at = hlo.Instruction("x", (), "all-reduce", (), "", f", channel_id=1, {text}, a=b", False)
    assert sorted(collectives.group(at, 4)) == sorted(GROUPS[text])


def test_a_ring_uses_the_links_of_the_dimensions_it_spans():
    """On a torus of 4 × 2: a row, a column, all; and one device's own line."""
    places = [(x, y, 0) for x in range(4) for y in range(2)]
    shares = [collectives.links(x, places) for x in ((0, 2, 4, 6), (0, 1), tuple(range(8)))]
    assert shares == [0.5, 0.5, 1.0]
    assert collectives.links((0, 1), [(0,), (1,)]) == 1.0
    one = collectives.Collective("all-gather", 3, 100.0, (0, 1), (), "")
    assert collectives.seconds([one], places, 50.0) == pytest.approx(3 * 100 / 25)
