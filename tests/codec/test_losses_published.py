"""Each loss and the balancer give what the published packages gave.

tests/parity/make_loss_fixtures.py wrote their arrays, with their versions.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import tried

from rvq_jax.codec import balancer, losses

PUBLISHED = np.load(Path(__file__).parents[1] / "fixtures" / "losses" / "published.npz")
ORIGINAL, ESTIMATE = (np.moveaxis(PUBLISHED[name], 1, -1) for name in ("original", "estimate"))
SMALL = ((512,), (50,), (240,))
LOSSES = {
    "l1": losses.l1,
    "si_sdr_loss": losses.si_sdr_loss,
    "encodec_mel_small": lambda *pair: losses.encodec_mel(*pair, 24_000, (64,)),
    "dac_mel_small": lambda *pair: losses.dac_mel(*pair, 44_100, (2048,), (320,)),
    "dac_stft_small": lambda *pair: losses.dac_stft(*pair, (512,)),
    "multi_resolution_stft_small": lambda *pair: losses.multi_resolution_stft(*pair, *SMALL),
}
PAPER = (32, 64, 128, 256, 512, 1024, 2048)
WHOLE = {
    "encodec_mel": lambda *pair: losses.encodec_mel(*pair, 24_000),
    "encodec_mel_paper": lambda *pair: losses.encodec_mel(*pair, 24_000, PAPER),
    "dac_mel": lambda *pair: losses.dac_mel(*pair, 44_100),
    "dac_stft": losses.dac_stft,
    "multi_resolution_stft": losses.multi_resolution_stft,
}
WEIGHTS = {"adversarial": 4.0, "features": 1.5, "waveform": 0.1}
GRADIENTS = {name: np.moveaxis(PUBLISHED[f"balancer_{name}"], 2, -1) for name in WEIGHTS}


@pytest.mark.parametrize("name", tried(LOSSES, [*LOSSES, *WHOLE]))
def test_a_loss_and_its_gradient_are_the_published_ones(name):
    """In double precision, as they were made: what is left is the same function or another."""
    function = jax.value_and_grad((LOSSES | WHOLE)[name], argnums=1)
    with jax.enable_x64():
        pair = (jnp.asarray(x, jnp.float64) for x in (ORIGINAL, ESTIMATE))
        value, gradient = jax.jit(function)(*pair)
    np.testing.assert_allclose(value, PUBLISHED[name], rtol=1e-4)
    want, got = PUBLISHED[f"{name}_gradient"], np.moveaxis(gradient, -1, 1)[..., ::8]
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max())


@pytest.mark.parametrize(
    "name, options", [("item", {}), ("batch", {"decay": 0.9, "norm": 2.0, "per_item": False})]
)
def test_the_balancer_steps_as_the_published_one(name, options):
    state = balancer.init(WEIGHTS)
    for step, want in enumerate(PUBLISHED[f"balancer_{name}"]):
        gradients = {loss: jnp.asarray(x[step]) for loss, x in GRADIENTS.items()}
        got, state = balancer.balance(state, gradients, WEIGHTS, **options)
        np.testing.assert_allclose(np.moveaxis(got, -1, 1), want, rtol=1e-4, atol=1e-7)
