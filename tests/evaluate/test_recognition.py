"""Word errors against an oracle, and what the recognizer hears of silence and of real digits."""

import functools
import sys
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from rvq_jax.audio import io
from rvq_jax.errors import UserError
from rvq_jax.evaluate.recognition import RATE, Recognizer, WordErrors, total, word_errors

DIGITS = "zero one two three four five six seven eight nine".split()
AUDIO = Path(__file__).parents[3] / "shared" / "audio" / "speech"


@functools.cache
def fewest(want: tuple, have: tuple) -> tuple:
    """Errors in all, substitutions, insertions and deletions, by trying every way."""
    if not want or not have:
        return len(want) + len(have), 0, len(have), len(want)

    def add(found: tuple, *kinds: int) -> tuple:
        return tuple(a + b for a, b in zip(found, (sum(kinds), *kinds), strict=True))

    other = int(want[0] != have[0])
    return min(
        add(fewest(want[1:], have[1:]), other, 0, 0),
        add(fewest(want, have[1:]), 0, 1, 0),
        add(fewest(want[1:], have), 0, 0, 1),
    )


@hypothesis.given(*[st.lists(st.sampled_from("ab c"), max_size=6)] * 2)
def test_errors_are_the_fewest(want, have):
    want, have = (tuple(" ".join(x).split()) for x in (want, have))
    found = word_errors(" ".join(want), " ".join(have))
    _, *kinds = fewest(want, have)
    assert found == WordErrors(len(want), *kinds)
    assert found.words - found.deletions + found.insertions == len(have)


def test_accuracy_counts_what_was_inserted():
    assert word_errors("One two", "one two").accuracy == 1.0
    assert word_errors("one two", "one one two").accuracy == 0.5
    assert word_errors("one", "two two two").accuracy == -2.0
    both = total([word_errors("one two", "one"), word_errors("six", "six six")])
    assert both == WordErrors(3, 0, 1, 1) and both.accuracy == pytest.approx(1 / 3)
    assert word_errors("Don\u2019t, “stop”!", "don't stop").accuracy == 1.0
    assert total([]) == WordErrors(0, 0, 0, 0)


def test_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(UserError, match=r"rvq_jax\[speech\]"):
        Recognizer()


def test_what_is_heard():
    """Nothing of silence, whatever its rate and channels; no word that it does not know."""
    pytest.importorskip("pocketsphinx")
    recognizer = Recognizer(DIGITS)
    assert recognizer.heard(np.zeros((8000, 2), np.float32), 8000) == ""
    assert set(recognizer.heard(np.random.default_rng(0).normal(size=(RATE, 1)), RATE).split()) <= {
        *DIGITS
    }
    with pytest.raises(UserError, match="does not know xyzzy"):
        Recognizer(["one", "xyzzy"])


@pytest.mark.slow
@pytest.mark.skipif(not AUDIO.is_dir(), reason="the recordings are not here")
def test_real_digits_are_heard():
    """Of one speaker's, more than half, where chance is a tenth."""
    pytest.importorskip("pocketsphinx")
    recognizer, errors = Recognizer(DIGITS), []
    for digit, word in enumerate(DIGITS):
        audio, rate = io.read(AUDIO / f"fsdd_{digit}_jackson_00.flac")
        errors.append(word_errors(word, recognizer.heard(audio, rate)))
    assert total(errors).accuracy > 0.5
