"""A dataclass as a pytree: its own type, its leaves by name, its static fields as structure."""

import dataclasses
import functools
import itertools
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import pytest
from jax.tree_util import GetAttrKey
from small_quantizers import ARRANGEMENTS, LOOKUPS

from rvq_jax.patterns import Pattern, delay
from rvq_jax.trees import pytree


@pytree
@dataclass(frozen=True)
class One:
    a: object
    b: object
    kind: str = field(default="x", metadata={"static": True})


@pytree
@dataclass(frozen=True)
class Other(One):
    pass


def test_leaves_have_names_and_come_back():
    tree = One(1, {"c": 2}, "y")
    (first, _), (second, _) = jax.tree_util.tree_leaves_with_path(tree)
    assert first == (GetAttrKey("a"),) and second[0] == GetAttrKey("b")
    assert jax.tree.map(lambda x: x, tree) == tree
    assert jax.tree.leaves(tree) == [1, 2]


def test_type_and_static_fields_are_structure():
    structure = jax.tree.structure
    assert structure(One(1, 2)) == structure(One(3, 4))
    assert structure(One(1, 2)) != structure(Other(1, 2))
    assert structure(One(1, 2)) != structure(One(1, 2, "y"))
    assert hash(structure(One(1, 2))) == hash(structure(One(3, 4)))


def test_one_program_for_each_type():
    """Hashes of structures meet by chance now and then, so only comparing them keeps them apart."""
    same = jax.jit(lambda tree: tree)
    for _ in range(300):
        kind = pytree(dataclasses.make_dataclass("Kind", ["a"], frozen=True))
        assert type(same(kind(1.0))) is kind


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_no_two_kinds_of_quantizer_are_one_structure(arrangement):
    make, key = ARRANGEMENTS[arrangement], jax.random.key(0)
    states = [jax.eval_shape(functools.partial(make, lookup), key) for lookup in LOOKUPS.values()]
    for a, b in itertools.combinations(states, 2):
        assert jax.tree.structure(a) != jax.tree.structure(b), (a, b)


def test_a_pattern_is_its_two_tables():
    pattern = delay(3, 5)
    step_of, frame_at = jax.tree.leaves(pattern)
    assert (step_of == pattern.step_of).all() and (frame_at == pattern.frame_at).all()
    assert type(jax.tree.map(jnp.asarray, pattern)) is Pattern
