"""What scores of pieces make, and what is silent; the scores themselves are in tests/parity."""

import numpy as np
import pytest
from signals import noise

from rvq_jax.metrics.speech import mean_of_pieces, silent


@pytest.mark.parametrize(
    ("samples", "lengths"), [(9, [9]), (10, [10]), (11, [6, 5]), (25, [9, 8, 8])]
)
def test_pieces_are_equal_and_at_most_as_long_as_asked(samples, lengths):
    reference, estimate = noise(samples), noise(samples, seed=1)
    asked = []

    def score(*pair):
        asked.append(pair)
        return len(asked)

    found = mean_of_pieces(score, reference, estimate, most=10)
    assert [len(a) for a, _ in asked] == [len(b) for _, b in asked] == lengths
    np.testing.assert_array_equal(np.concatenate([b for _, b in asked]), estimate)
    assert found == np.mean(np.arange(len(lengths)) + 1)


def test_pieces_without_a_score_do_not_count():
    reference, estimate = np.arange(40.0), np.arange(40.0)
    reference[:10] = 7.0  # silent
    scores = iter([np.nan, 2.0, 5.0])
    assert mean_of_pieces(lambda *pair: next(scores), reference, estimate, most=10) == 3.5
    assert np.isnan(mean_of_pieces(lambda *pair: np.nan, reference, estimate, most=10))
    assert np.isnan(mean_of_pieces(lambda *pair: 1.0, np.zeros(40), estimate, most=10))


def test_silence_is_what_cannot_be_heard():
    """Of any constant, and of less than -140 dB."""
    assert silent(np.zeros(0)) and silent(np.ones(9)) and silent(noise(99, scale=1e-8))
    assert not silent(noise(99, scale=1e-6))
