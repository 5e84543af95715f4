"""What the backward pass recomputes changes no gradient, and has the same name in old folders."""

import dataclasses
import typing

import jax
import numpy as np
import pytest
from small_plans import BIG, LM

from rvq_jax import config as configs
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.train.loop import open_run
from rvq_jax.typing import Remat


@pytest.mark.parametrize("kind", [LMConfig, MaskedLMConfig])
def test_a_config_that_says_true_or_false_is_read(kind):
    for old, new in ((True, "everything"), (False, "nothing"), ("attention", "attention")):
        assert kind(remat=old).remat == new
        read = configs.from_dict(kind, {"remat": old}, "a folder")
        assert read.remat == new and configs.to_dict(read)["remat"] == new


def test_a_run_of_before_goes_on(tmp_path):
    """Its folder says true, and nothing of attention."""
    now = configs.to_dict(dataclasses.replace(BIG, lm=dataclasses.replace(LM, remat="everything")))
    lm = {name: x for name, x in now["lm"].items() if name != "attention"} | {"remat": True}
    open_run(tmp_path, now | {"lm": lm})
    open_run(tmp_path, now)


def test_gradients_do_not_depend_on_what_is_recomputed():
    run = dataclasses.replace(BIG, batch=2, frames=6)
    task = run.task()
    params, key = task.init(jax.random.key(0)), jax.random.key(1)
    batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), run.batch_shapes())

    def gradients(remat):
        loss = run.computed(remat).task().loss
        return jax.jit(jax.grad(lambda p: loss(p, task.aux, batch, key)[0]))(params)

    nothing, *others = map(gradients, typing.get_args(Remat))
    for other in others:
        for a, b in zip(jax.tree.leaves(nothing), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
