"""Kernels with weight norm and without: a codec of one is a codec of the other."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from small_codec_runs import DAC

from rvq_jax import files
from rvq_jax.codec.conv import Kernel
from rvq_jax.systems.codec import Codec


def test_a_kernel_that_is_split_is_the_same_kernel():
    """Also where an output has nothing but zeros, which have no direction."""
    kernel = Kernel((3, 4, 5), (0, 1), 12, "none", nnx.Rngs(0))
    kernel.v[...] = kernel.v[...].at[:, :, 2].set(0.0) * 3.0
    plain = np.asarray(kernel())
    kernel.split()
    np.testing.assert_allclose(kernel(), plain, rtol=3e-7)
    assert kernel.gain.shape == (1, 1, 5)

    def total(v, gain):
        return jnp.sum(v * gain * jax.lax.rsqrt(jnp.sum(v**2, (0, 1), keepdims=True)))

    found = jax.grad(total, (0, 1))(kernel.v[...], kernel.gain[...])
    assert all(np.isfinite(x).all() for x in found) and (found[1] != 0).all()
    kernel.prepare()
    np.testing.assert_allclose(kernel(), plain, rtol=3e-7)


def test_a_dac_is_saved_without_weight_norm(tmp_path):
    """As transformers has it, and as it computes."""
    codec = Codec.init(DAC, jax.random.key(0))
    codec.save(tmp_path / "dac")
    assert files.load_config(tmp_path / "dac")["model_type"] == "dac"
    again = Codec.load(tmp_path / "dac")
    assert again.config == DAC.prepared()
    for a, b in zip(
        jax.tree.leaves(again.prepared[1]), jax.tree.leaves(codec.prepared[1]), strict=True
    ):
        np.testing.assert_array_equal(a, b)
