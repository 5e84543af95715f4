"""Laws that every pattern obeys, named or drawn at random."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rvq_jax import patterns


@st.composite
def any_pattern(draw):
    """A random valid table, or a named pattern at a random size."""
    levels, frames = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    name = draw(st.sampled_from(["random", *patterns.NAMES]))
    if name.startswith("stereo") or name == "musiclm":
        levels = 2 * levels
    if name != "random":
        return patterns.named(name, levels, frames)
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    rows = [rng.choice(3 * frames, frames, replace=False) for _ in range(levels)]
    return patterns.custom(np.sort(rows, axis=1)).pad(3 * frames + draw(st.integers(0, 3)))


def loop_interleave(pattern, codes, fill):
    """The definition, one code at a time."""
    tokens = np.full((codes.shape[0], pattern.levels, pattern.steps), fill)
    for k in range(pattern.levels):
        for f in range(pattern.frames):
            tokens[:, k, pattern.step_of[k, f]] = codes[:, k, f]
    return tokens


@given(any_pattern(), st.integers(0, 2**32 - 1))
def test_interleave_is_its_definition_and_is_undone(pattern, seed):
    codes = np.random.default_rng(seed).integers(0, 9, (2, pattern.levels, pattern.frames))
    tokens = pattern.interleave(codes, fill=9)
    assert (np.asarray(tokens) == loop_interleave(pattern, codes, 9)).all()
    assert (np.asarray(pattern.deinterleave(tokens)) == codes).all()
    assert ((np.asarray(tokens) == 9).all(0) == ~pattern.valid).all()


@given(any_pattern())
def test_tables_are_each_others_inverse(pattern):
    k = np.arange(pattern.levels)[:, None]
    assert (pattern.frame_at[k, pattern.step_of] == np.arange(pattern.frames)).all()
    assert pattern.valid.sum() == pattern.levels * pattern.frames


@given(any_pattern())
def test_no_prediction_sees_itself_or_later(pattern):
    """Seeing is a strict partial order: nothing sees itself, and of two codes at most one the
    other; codes seen by what one sees are seen by it too."""
    size = pattern.levels * pattern.frames
    sees = pattern.visible().reshape(size, size)
    assert not sees.diagonal().any()
    assert not (sees & sees.T).any()
    assert not ((sees.astype(int) @ sees.astype(int) > 0) & ~sees).any()


@given(any_pattern(), st.integers(1, 4))
def test_logits_come_back_in_the_same_places(pattern, size):
    codes = np.random.default_rng(0).normal(size=(1, pattern.levels, pattern.frames, size))
    apart = [np.asarray(pattern.interleave(codes[..., i], fill=0.0)) for i in range(size)]
    assert np.allclose(pattern.deinterleave(np.stack(apart, axis=-1)), codes)


def test_patterns_of_one_shape_share_one_program():
    """Tables are arguments: a new pattern of the same shape compiles nothing."""

    @jax.jit
    def there_and_back(pattern, codes):
        return pattern.deinterleave(pattern.interleave(codes, fill=9))

    codes = jnp.arange(24).reshape(1, 4, 6)
    for name in patterns.NAMES:
        there_and_back(patterns.named(name, 4, 6).pad(24), codes)
    assert there_and_back._cache_size() == 1
