"""Entropy coding of codes: lossless, the same on every machine, and near what it could save."""

import ast
import hashlib
import inspect
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiers import examples, slow

from rvq_jax.rvqfile import bits, contexts, entropy


def zipf(rng: np.random.Generator, shape: tuple, size: int, power: float) -> np.ndarray:
    """Codes of which few are frequent, in an order of their own, and their entropy in bits."""
    p_N = np.arange(1, size + 1) ** -power
    p_N /= p_N.sum()
    codes = rng.permutation(size)[rng.choice(size, shape, p=p_N)].astype(np.int32)
    return codes, -(p_N * np.log2(p_N)).sum()


def coded_bits(codes_KF: np.ndarray, sizes) -> int:
    planes = entropy.encode(codes_KF, sizes)
    frames = codes_KF.shape[1]
    np.testing.assert_array_equal(entropy.decode(planes, sizes, frames), codes_KF)
    return 8 * sum(map(len, planes))


@given(data=st.data(), width=st.integers(0, 31), count=st.integers(0, 40))
def test_packing_is_undone(data, width, count):
    codes_M = data.draw(st.lists(st.integers(0, 2**width - 1), min_size=count, max_size=count))
    packed = bits.pack(np.array(codes_M, np.int64), width)
    assert len(packed) == bits.length(count, width)
    got_M = bits.unpack(packed, width, count)
    assert got_M.dtype == np.int32 and got_M.tolist() == codes_M


def test_packing_puts_the_least_significant_bit_first():
    """Three codes of five bits: 00011, 11111, 10000 from the right are 1 00001 11 | 11100011."""
    assert bits.pack(np.array([3, 31, 16]), 5) == bytes([0b11100011, 0b01000011])


def test_too_few_bytes_to_unpack():
    with pytest.raises(ValueError, match="3 codes of 5 bits"):
        bits.unpack(b"\0", 5, 3)


@pytest.mark.parametrize(
    "size, width", [(1, 0), (2, 1), (3, 2), (1000, 10), (1024, 10), (1025, 11)]
)
def test_widths(size, width):
    assert bits.width(size) == width


@examples(200)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(
        st.sampled_from([1, 2, 3, 5, 16, 37, 200, 1024, 70_000]), min_size=1, max_size=6
    ),
    frames=st.integers(1, 24),
    power=st.sampled_from([0.0, 1.0, 4.0, 9.0]),
    sticky=st.booleans(),
)
def test_decoding_gives_the_codes_of_any_prefix_of_levels(seed, sizes, frames, power, sticky):
    """The decoder must do to the letter what the encoder did; and no plane exceeds its packing."""
    rng = np.random.default_rng(seed)
    codes_KF = np.stack([zipf(rng, (frames,), size, power)[0] for size in sizes])
    if sticky:
        codes_KF[:, 1:][:, rng.random(frames - 1) < 0.8] = codes_KF[:, :1]
    planes = entropy.encode(codes_KF, sizes)
    for plane, size in zip(planes, sizes, strict=True):
        assert len(plane) <= bits.length(frames, bits.width(size))
    for levels in range(1, len(sizes) + 1):
        got_KF = entropy.decode(planes[:levels], sizes[:levels], frames)
        assert got_KF.dtype == np.int32
        np.testing.assert_array_equal(got_KF, codes_KF[:levels])


@given(st.integers(0, 2**32), st.integers(1, 3))
def test_no_level_depends_on_those_above(seed, level):
    """Else a prefix would not decode alone."""
    rng = np.random.default_rng(seed)
    sizes = (9, 300, 4, 64)
    codes_KF = np.stack([zipf(rng, (40,), size, 2.0)[0] for size in sizes])
    other_KF = codes_KF.copy()
    other_KF[level:] = np.stack([rng.integers(0, size, 40) for size in sizes[level:]])
    planes, others = entropy.encode(codes_KF, sizes), entropy.encode(other_KF, sizes)
    assert planes[:level] == others[:level]
    # Nor on how deep their trees are.
    assert entropy.encode(codes_KF[:level], sizes[:level]) == planes[:level]


@pytest.mark.parametrize("size, power", [slow(16, 1.0), (16, 2.0), slow(100, 1.5), (2, 3.0)])
def test_skewed_codes_come_near_their_entropy(size, power):
    """Within 3 % and half a logarithm for each chance that is learned (Rissanen 1984)."""
    rng = np.random.default_rng(0)
    codes_KF, bits_per_code = zipf(rng, (2, 3000), size, power)
    learning = 2 * (size - 1) / 2 * math.log2(3000)
    bound = 1.03 * codes_KF.size * bits_per_code + learning + 2 * 64
    assert coded_bits(codes_KF, (size,) * 2) < bound < 0.9 * codes_KF.size * bits.width(size)


def test_uniform_codes_cost_no_more_than_packed():
    """Nothing can be saved; what does not become smaller is packed, so nothing is lost either."""
    codes_KF = np.random.default_rng(1).integers(0, 1024, (4, 750), np.int32)
    assert coded_bits(codes_KF, (1024,) * 4) <= 4 * 8 * bits.length(750, 10)


def test_each_context_saves_what_only_it_can_know():
    """Repeated frames, levels that follow from the level below, and sequences that come back."""
    rng = np.random.default_rng(2)
    free_F = rng.integers(0, 64, 1500)
    packed = 1500 * 6
    constant_KF = np.full((1, 1500), 37)
    assert coded_bits(constant_KF, (64,)) < 0.02 * packed
    held_KF = np.repeat(rng.integers(0, 64, 75), 20)[None]
    assert coded_bits(held_KF, (64,)) < 0.15 * packed
    loop_KF = np.tile(rng.permutation(64), 24)[None, :1500]
    assert coded_bits(loop_KF, (64,)) < 0.15 * packed
    follows_KF = np.stack([free_F, rng.permutation(64)[free_F]])
    assert coded_bits(follows_KF, (64,) * 2) < 1.15 * packed


def test_a_size_that_is_no_power_of_two_wastes_no_bits():
    """33 codes need 5.04 bits, not 6: a branch that no code is on costs nothing."""
    codes_KF = np.random.default_rng(3).integers(0, 33, (1, 3000), np.int32)
    assert coded_bits(codes_KF, (33,)) < 1.03 * 3000 * math.log2(33)


def test_the_streams_are_the_same_everywhere():
    """Codes from integers alone and what they became once: files outlive machines and versions."""
    frame_F = np.arange(500)
    few_F, many_F = frame_F**2 % 97 % 7, frame_F**3 // 1000 % 1021
    codes_KF = np.stack([few_F, frame_F // 9 % 50, (few_F * 11 + frame_F // 100) % 100, many_F])
    sizes = 8, 50, 100, 1024
    planes = entropy.encode(codes_KF, sizes)
    np.testing.assert_array_equal(entropy.decode(planes, sizes, 500), codes_KF)
    assert [len(plane) for plane in planes] == [172, 42, 284, 564]
    hash = hashlib.sha256(b"".join(planes)).hexdigest()
    assert hash == "bf4cd099e215703e3eccc7929d6dc12b6bf0c2a5a3b7262e3aea4077dfc306a3"


@pytest.mark.parametrize("module", [bits, contexts, entropy])
def test_no_number_is_floating(module):
    """Rounding differs between machines: no constant, division or type here could round."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float))
        assert not isinstance(node, ast.Div)
        assert not (isinstance(node, ast.Attribute) and "float" in node.attr)


def test_chances_are_a_curve_without_ends():
    """Symmetric, rising, never certain; logits undo it."""
    chances, logits = contexts._curves()
    assert chances.dtype == logits.dtype == np.int64
    assert (np.diff(chances) >= 0).all() and (chances + chances[::-1] == contexts.ONE).all()
    assert 0 < chances[0] < 32 and len(chances) == 2 * contexts.LARGEST + 1
    x = np.arange(-contexts.LARGEST, contexts.LARGEST + 1) / contexts.UNIT
    np.testing.assert_allclose(chances / contexts.ONE, 1 / (1 + np.exp(-x)), atol=2 / contexts.ONE)
    assert logits[2048] == 0 and (np.diff(logits) >= 0).all() and (logits == -logits[::-1]).all()
    np.testing.assert_allclose(chances[logits + contexts.LARGEST], np.arange(4096) * 16, atol=80)


@given(data=st.data(), seed=st.integers(0, 2**32))
def test_damaged_planes_are_an_error_or_codes(data, seed):
    """Whatever the bytes: never another error, never a code beyond its size."""
    rng = np.random.default_rng(seed)
    sizes, frames = (5, 64, 33), 20
    codes_KF = np.stack([zipf(rng, (frames,), size, 3.0)[0] for size in sizes])
    planes = entropy.encode(codes_KF, sizes)
    level = data.draw(st.integers(0, 2))
    longest = bits.length(frames, bits.width(sizes[level]))
    planes[level] = data.draw(st.binary(max_size=longest))
    try:
        got_KF = entropy.decode(planes, sizes, frames)
    except ValueError:
        return
    assert (got_KF >= 0).all() and (got_KF < np.array(sizes)[:, None]).all()


def test_a_plane_of_the_wrong_length():
    planes = entropy.encode(np.zeros((1, 100), int), (16,))
    assert len(planes[0]) < 50
    for wrong in (planes[0][:-2], planes[0][:-1], planes[0] + b"\0\0", b"", b"\0\0\1"):
        with pytest.raises(ValueError, match=r"stream|words"):
            entropy.decode([wrong], (16,), 100)
