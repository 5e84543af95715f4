"""A codec's gradients on a mesh are those of one device, however short the crop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_runs import one_device
from tiers import slow, wide

from rvq_jax import files
from rvq_jax.codec.autoencoder import graph
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.train import sharding

SEANET = SEANetConfig(filters=4, dim=8, ratios=(4, 8), lstm_layers=0)
CONFIG = CodecConfig(8_000, SEANET, levels=2, codebook_size=16)
MESHES = [(2, 2, 2), (1, 4, 2), (4, 2, 1)]


def gradients(mesh, params, audio: np.ndarray) -> dict:
    def loss(params, audio):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jnp.square(nnx.merge(graph(CONFIG), params).encoder(audio)).mean()

    placed = sharding.of_params(params, mesh)
    batch = sharding.place_batch({"audio": audio}, mesh)["audio"]
    found = jax.jit(jax.grad(loss), out_shardings=placed)(jax.device_put(params, placed), batch)
    return {name: np.asarray(x) for name, x in files.named(found).items()}


# The first is the one that XLA got wrong; the others had hardly an error before the barrier too.
SOME = [((2, 2, 2), 512), ((1, 4, 2), 256), ((4, 2, 1), 96)]
EVERY = [(shape, size) for shape in MESHES for size in (96, 256, 512, 2048)]


@pytest.mark.parametrize(("shape", "samples"), [slow(*x) if x in SOME else wide(*x) for x in EVERY])
def test_short_crops(shape, samples):
    """The smallest reproduction of what kernels that are split over fsdp, as the batch is, had to
    suffer: on a mesh of 2 × 2 × 2 the gradient to `first` of

        y = conv(x, first)                            # x [8, 16, 8] over (data, fsdp)
        conv(pad(y, three or more zeros in front), second)  # first [1, 8, 16], second [7, 16, 8]

    with kernels `P(None, "fsdp", "tensor")` and outputs so as well is wrong by its own size for 16
    and 22 steps, right for 8 and from 32 on, in XLA's partitioner of JAX 0.10.2 and 0.12.0. With
    kernels made whole over fsdp first (`rvq_jax.codec.conv.Kernel`) it is right everywhere.
    """
    params = nnx.state(CONFIG.build(nnx.Rngs(params=jax.random.key(0))), nnx.Param)
    audio = 0.1 * np.random.default_rng(0).normal(size=(8, samples, 1)).astype(np.float32)
    want = gradients(one_device(), params, audio)
    got = gradients(sharding.make_mesh(*shape), params, audio)
    for name, value in want.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(got[name], value, atol=1e-4 * scale, err_msg=name)
