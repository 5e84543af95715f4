"""Beam search against plain numpy that scores every candidate; greedy search as its beam of 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiers import slow

from rvq_jax.quantize.beam import ROWS, beam_codes, pair_products
from rvq_jax.quantize.search import TILE, greedy_codes, nearest

search = jax.jit(beam_codes, static_argnames="beam")


def numpy_beam(vectors_KND, latents_MD, beam, sizes_K):
    """Codes `[K, M]`: all beam · N squared errors, sorted, one vector at a time, in float64."""
    codes = []
    for vector_D in latents_MD.astype(np.float64):
        kept = [((), vector_D)]
        for book_ND, size in zip(vectors_KND.astype(np.float64), sizes_K, strict=True):
            children = [
                ((*prefix, n), left_D - book_ND[n]) for prefix, left_D in kept for n in range(size)
            ]
            order = np.argsort([(left_D**2).sum() for _, left_D in children], kind="stable")
            kept = [children[i] for i in order[:beam]]
        codes.append(kept[0][0])
    return np.array(codes).T


def squared_errors(vectors_KND, latents_MD, codes_KM):
    levels = np.arange(len(vectors_KND))[:, None]
    decoded_MD = np.asarray(vectors_KND)[levels, np.asarray(codes_KM)].sum(axis=0)
    return ((np.asarray(latents_MD) - decoded_MD) ** 2).sum(axis=1)


def problem(seed, levels, size, dim, count):
    rng = np.random.default_rng(seed)
    scale_K11 = 0.6 ** np.arange(levels)[:, None, None]
    vectors_KND = rng.normal(size=(levels, size, dim)) * scale_K11
    return vectors_KND.astype(np.float32), rng.normal(size=(count, dim)).astype(np.float32)


@given(
    st.sampled_from([(1, 3, 2, 4), (3, 5, 3, 11), (4, 64, 4, 9), (3, 70, 1, 5), (2, 128, 5, 6)]),
    st.sampled_from([2, 5, 16]),
    st.integers(0, 99),
)
def test_beam_is_its_definition(shape, beam, seed):
    """Fewer codes than beams, whole and partial blocks, one level, fewer vectors than a tile."""
    vectors_KND, latents_MD = problem(seed, *shape)
    levels, size = shape[:2]
    rng = np.random.default_rng(seed)
    for sizes_K in ([size] * levels, list(rng.integers(1, size + 1, levels))):
        want_KM = numpy_beam(vectors_KND, latents_MD, beam, sizes_K)
        for tables in (None, pair_products(vectors_KND)):
            codes_KM = search(vectors_KND, latents_MD, jnp.array(sizes_K), beam=beam, tables=tables)
            codes_KM = np.asarray(codes_KM)
            assert codes_KM.dtype == np.int32
            # Two prefixes may be equal to float32: then the errors must agree, not the codes.
            assert (codes_KM == want_KM).all(axis=0).mean() > 0.75
            np.testing.assert_allclose(
                squared_errors(vectors_KND, latents_MD, codes_KM),
                squared_errors(vectors_KND, latents_MD, want_KM),
                rtol=1e-3,
                atol=1e-5,
            )


def test_a_beam_of_one_is_greedy():
    vectors_KND, latents_MD = problem(0, 4, 100, 6, 700)
    codes_KM = np.asarray(beam_codes(vectors_KND, latents_MD, beam=1))
    left_MD = latents_MD
    for book_ND, codes_M in zip(vectors_KND, codes_KM, strict=True):
        assert (nearest(left_MD, book_ND) == codes_M).all()
        left_MD = left_MD - book_ND[codes_M]


def test_more_beams_lose_less():
    vectors_KND, latents_MD = problem(1, 6, 128, 12, 400)
    losses = [
        squared_errors(vectors_KND, latents_MD, search(vectors_KND, latents_MD, beam=beam)).mean()
        for beam in (1, 2, 5, 16)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[2] < 0.97 * losses[0]


def test_enough_beams_find_the_best_of_all():
    vectors_KND, latents_MD = problem(2, 3, 4, 5, 20)
    codes_KM = beam_codes(vectors_KND, latents_MD, beam=16)
    every_KX = np.stack(np.meshgrid(*[range(4)] * 3)).reshape(3, -1)
    sums_XD = vectors_KND[np.arange(3)[:, None], every_KX].sum(axis=0)
    best_M = ((latents_MD[:, None] - sums_XD[None]) ** 2).sum(axis=2).min(axis=1)
    np.testing.assert_allclose(squared_errors(vectors_KND, latents_MD, codes_KM), best_M, rtol=1e-5)


@pytest.mark.parametrize("beam", [1, 2, slow(5)])
def test_ties_go_to_the_lowest_index(beam):
    """All codewords equal; then each twice, so that every choice is between two equals."""
    equal = search(jnp.ones((3, 130, 2)), jnp.ones((5, 2)), beam=beam)
    assert (equal == 0).all()
    # Whole numbers, so that equal errors are equal to the last bit.
    rng = np.random.default_rng(3)
    half_KND = rng.integers(-20, 20, (3, 65, 4)).astype(np.float32)
    twice_KND = np.concatenate([half_KND, half_KND], axis=1)
    latents_MD = rng.integers(-20, 20, (9, 4)).astype(np.float32)
    codes_KM = search(twice_KND, latents_MD, beam=beam)
    want_KM = numpy_beam(twice_KND, latents_MD, beam, [130] * 3)
    assert (codes_KM == want_KM).all()
    if beam > 1:
        tables = pair_products(twice_KND)
        assert (search(twice_KND, latents_MD, beam=beam, tables=tables) == want_KM).all()


def test_tables_hold_the_products_of_each_two_levels():
    """Level by level, in plain numpy; codes that only fill a block have products of zero."""
    vectors_KND, _ = problem(6, 4, 70, 5, 1)
    tables = np.asarray(pair_products(vectors_KND))
    assert tables.shape == (6, 128, 128)
    for k in range(4):
        for j in range(k):
            table_NN = tables[k * (k - 1) // 2 + j]
            want_NN = vectors_KND[j] @ vectors_KND[k].T
            np.testing.assert_allclose(table_NN[:70, :70], want_NN, rtol=1e-4, atol=1e-5)
            assert not table_NN[70:].any() and not table_NN[:, 70:].any()


def test_tables_of_other_codebooks_are_refused():
    vectors_KND, latents_MD = problem(7, 4, 70, 5, 9)
    for wrong_KND in (vectors_KND[:3], vectors_KND[:, :64]):
        with pytest.raises(ValueError, match=r"4 levels of 70 codes need tables \[6, 128, 128\]"):
            beam_codes(vectors_KND, latents_MD, beam=2, tables=pair_products(wrong_KND))


@pytest.mark.parametrize("beam", [1, 5])
def test_a_vector_does_not_depend_on_its_tile(beam):
    tile = TILE if beam == 1 else ROWS // beam
    vectors_KND, latents_MD = problem(4, 2, 64, 8, 2 * tile + 3)
    codes_KM = beam_codes(vectors_KND, latents_MD, beam=beam)
    part = slice(tile - 2, tile + 3)
    assert (codes_KM[:, part] == beam_codes(vectors_KND, latents_MD[part], beam=beam)).all()


def test_sizes_bound_the_greedy_codes():
    vectors_KND, latents_MD = problem(5, 3, 70, 4, 50)
    sizes_K = [70, 1, 13]
    codes_KM = np.asarray(greedy_codes(vectors_KND, latents_MD, jnp.array(sizes_K)))
    assert (codes_KM == numpy_beam(vectors_KND, latents_MD, 1, sizes_K)).mean() > 0.99
    assert (codes_KM.max(axis=1) < sizes_K).all()
    assert (nearest(latents_MD, vectors_KND[0], 13) < 13).all()


def test_beams_are_at_least_one():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        beam_codes(jnp.zeros((1, 2, 3)), jnp.zeros((4, 3)), beam=0)
