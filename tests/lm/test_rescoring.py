"""An autoregressive model's opinion in a masked decode is that of its scores."""

import jax
import numpy as np
import pytest
from small_lm import CONFIG, PARAMS, TEXT, F, K, N, aligned_pattern, of_text, random_codes
from tiers import slow

from rvq_jax.lm import forms
from rvq_jax.lm.rescoring import mixture
from rvq_jax.systems.decoding.programs import score_codes

LENGTHS = np.array([F, 3])
INSIDE = np.arange(F)[None] < LENGTHS[:, None]


@jax.jit
def mixed(params, pattern, tokens, level, log_p, weight):
    model = forms.model(CONFIG, params)
    return mixture(model, pattern, of_text(TEXT), LENGTHS, weight)(tokens, level, log_p)


@pytest.mark.parametrize("name, level", [("delay", K - 1), ("coarse_first", 0), slow("flatten", 2)])
def test_confidences_are_a_mixture_with_scores(name, level):
    """Under what is known: all levels at the last one; at the first, by a pattern that has it come
    first, it alone. With weight 0 it is as if there were none."""
    codes, pattern = random_codes(2), aligned_pattern(name)
    tokens = np.where(np.arange(K)[None, :, None] > level, N, codes)
    log_p = -np.random.default_rng(1).exponential(size=(2, F)).astype(np.float32)
    bits = score_codes(CONFIG, PARAMS, pattern, codes, of_text(TEXT), INSIDE)
    q = 2.0 ** -np.asarray(bits)[:, level]
    got = mixed(PARAMS, pattern, tokens, level, log_p, 0.3)
    want = np.log(0.7 * np.exp(log_p) + 0.3 * q)
    np.testing.assert_allclose(np.asarray(got)[INSIDE], want[INSIDE], atol=1e-4)
    alone = mixed(PARAMS, pattern, tokens, level, log_p, 0.0)
    np.testing.assert_allclose(np.asarray(alone)[INSIDE], log_p[INSIDE], atol=1e-5)
