"""Our states of a peer's codebooks, and what "the same codes" means where rounding differs."""

import numpy as np

from rvq_jax import quantize

TIE = 1e-5  # relative difference of two squared distances that rounding may decide


def plain(vectors_KND, kind=quantize.Codebooks):
    """Our state of given codebooks."""
    return kind.of(np.asarray(vectors_KND))


def assert_same_codes(ours_BKF, theirs_BKF, latents_BFD=None, books_KND=None):
    """Identical codes; given plain codebooks, fewer than 1 vector in 1,000 may differ, at a tie."""
    ours_KM, theirs_KM = (
        np.asarray(codes).transpose(1, 0, 2).reshape(np.shape(codes)[1], -1)
        for codes in (ours_BKF, theirs_BKF)
    )
    if books_KND is None:
        np.testing.assert_array_equal(ours_KM, theirs_KM)
        return
    latents_MD = np.asarray(latents_BFD, np.float64).reshape(-1, np.shape(latents_BFD)[-1])
    differ_M = (ours_KM != theirs_KM).any(axis=0)
    assert differ_M.sum() < max(1, differ_M.size / 1000)
    for m in np.flatnonzero(differ_M):
        level = np.argmax(ours_KM[:, m] != theirs_KM[:, m])
        left_D = latents_MD[m] - sum(
            np.asarray(books_KND[k][ours_KM[k, m]], np.float64) for k in range(level)
        )
        book_ND = np.asarray(books_KND[level], np.float64)
        near, far = sorted(
            ((left_D - book_ND[codes_KM[level, m]]) ** 2).sum() for codes_KM in (ours_KM, theirs_KM)
        )
        assert far - near < TIE * far
