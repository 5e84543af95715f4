"""Several networks in one run: an optimizer each, and gradients of one simultaneous step.

The second user of two seams: a generator whose codebooks learn by running means, and a critic that
is updated every other step; a kind of run of its own, which training, plan and the command line
take as they take the library's.
"""

import dataclasses
import functools
import json

import command
import jax
import numpy as np
import optax
import pytest
from small_networks import RUN
from small_runs import bits_of, ending, log_of, one_device

from rvq_jax.cli.terminal import parse
from rvq_jax.cli.train import load_config
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.plan import plan
from rvq_jax.systems.codec import Codec
from rvq_jax.train import sharding
from rvq_jax.train.loop import LoopConfig, fit
from rvq_jax.train.state import make_program

KEY = jax.random.key(0)


@functools.cache
def program_of(run):
    return make_program(run.task(), run.optimizer, run.loop.steps, one_device())


def started(run):
    program = program_of(run)
    return program, program.init(KEY, run.task().aux), iter(run.batches(one_device()))


def changed(before, after) -> bool:
    return bits_of(before) != bits_of(after)


def test_a_network_moves_at_its_own_interval_and_nothing_of_it_between():
    """Neither weights, moments nor counters; the other network moves at every update. The first
    of each has a rate of zero."""
    program, state, batches = started(RUN)
    weights, moments = [], []
    for _ in range(4):
        before = jax.tree.map(np.asarray, (state.params, state.opt.inner_states))
        state, metrics = program.step(state, sharding.place_batch(next(batches), one_device()))
        after = state.params, state.opt.inner_states
        weights.append([changed(before[0][n], after[0][n]) for n in ("generator", "critic")])
        generator = [x["generator"].inner_state for x in (before[1], after[1])]
        # All but the count of calls, by which the interval is known.
        critic = [x["critic"].inner_state.inner_state for x in (before[1], after[1])]
        moments.append([changed(*generator), changed(*critic)])
        assert metrics["gradient_norm_critic"] > 0 and metrics["gradient_norm_generator"] > 0
    assert weights == [[False, False], [True, False], [True, True], [True, False]]
    assert moments == [[True, True], [True, False], [True, True], [True, False]]


def test_both_networks_move_by_gradients_at_the_same_point():
    """The third update, which both take part in, is that of two optimizers on their own, each with
    its own betas, clipping and rate, by gradients at the parameters before it."""
    program, state, batches = started(RUN)
    for _ in range(3):
        batch = sharding.place_batch(next(batches), one_device())
        before = jax.tree.map(np.asarray, state._replace(key=None))
        state, _ = program.step(state, batch)
    gradient = jax.jit(jax.grad(RUN.task().loss, has_aux=True))
    key = jax.random.fold_in(KEY, 2)
    grads, _ = gradient(before.params, before.aux, batch, key)
    for name, config in {"generator": RUN.optimizer, "critic": RUN.critic}.items():
        own_steps = RUN.loop.steps // config.every
        schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, 1, own_steps)
        adamw = optax.adamw(schedule, config.b1, config.b2, weight_decay=config.weight_decay)
        tx = optax.chain(optax.clip_by_global_norm(config.clip), adamw)
        kept = before.opt.inner_states[name].inner_state
        kept = kept if config.every == 1 else kept.inner_state
        # Of trees by network, the network's own.
        kept = jax.tree.map(
            lambda x, name=name: x[name] if isinstance(x, dict) else x,
            kept,
            is_leaf=lambda x: isinstance(x, dict),
        )
        updates, _ = jax.jit(tx.update)(grads[name], kept, before.params[name])
        want = optax.apply_updates(before.params[name], updates)
        assert changed(before.params[name], want)
        for a, b in zip(jax.tree.leaves(state.params[name]), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6)


def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path):
    """Evaluated on held-out data meanwhile, its generator alone."""
    run, mesh = RUN, one_device()
    loop = dataclasses.replace(run.loop, evaluate_every=3)
    train = functools.partial(fit, program=program_of(run), heldout=[next(run.batches(mesh))])
    whole = train(tmp_path / "whole", run.task(), run.batches(mesh), loop, run.optimizer)
    stopped = ending(run.batches(mesh), 3, KeyboardInterrupt)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", run.task(), stopped, loop, run.optimizer)
    again = train(tmp_path / "cut", run.task(), run.batches(mesh), loop, run.optimizer)
    assert bits_of(again) == bits_of(whole)
    log = log_of(tmp_path / "cut")
    assert log == log_of(tmp_path / "whole")
    assert [line["step"] for line in log if "heldout" in line] == [3, 6]


# Its twin in the slow tier: a codec against discriminators, in test_codec_run.py.
@pytest.mark.wide
def test_a_mesh_changes_no_number(tmp_path):
    """Codebooks, moments and both networks; at a rate at which rounding stays small."""
    slow = dataclasses.replace(RUN.optimizer, learning_rate=1e-4)
    critic = dataclasses.replace(RUN.critic, learning_rate=1e-4)
    loop = LoopConfig(steps=4, log_every=1, checkpoint_every=9)
    seanet = SEANetConfig(filters=4, dim=8, ratios=(4, 8), lstm_layers=0)
    codec = CodecConfig(8_000, seanet, levels=2, codebook_size=16)
    run = dataclasses.replace(RUN, codec=codec, optimizer=slow, critic=critic, loop=loop)
    done = []
    for i, mesh in enumerate((one_device(), sharding.make_mesh(2, 2, 2))):
        task, batches = run.task(), run.batches(mesh)
        done.append(fit(tmp_path / f"{i}", task, batches, loop, run.optimizer, mesh=mesh))
    for a, b in zip(*(jax.tree.leaves((x.params, x.aux)) for x in done), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    # Moments lie where the weights do.
    spread = [x for x in jax.tree.leaves(done[1].opt) if not x.sharding.is_fully_replicated]
    assert spread


CONFIG = """
from small_networks import RUN

def get_config():
    return RUN
"""


# Its twins: the same run trained, above, and the plans of the kinds that there are.
@pytest.mark.slow
def test_a_kind_of_run_that_nobody_met_is_planned():
    found = plan(RUN, "cpu:2", largest=False)
    assert found["mesh"]["tensor"] == 1 and "decode" not in found
    shapes = jax.tree.leaves(jax.eval_shape(RUN.task().init, KEY))
    sizes = [x.size * x.dtype.itemsize for x in shapes]
    # Two moments of each, in halves where an axis divides.
    assert found["bytes_per_chip"]["optimizer"] >= sum(sizes)


@pytest.mark.slow
def test_the_command_line_trains_a_kind_of_run_it_never_met(capsys, tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    words = ["train", tmp_path / "config.py", "--data", tmp_path, "--out", tmp_path / "out"]
    code, out, lines = command.run(capsys, *words, "--loop.steps", 3, "--critic.every", 3, "--json")
    assert (code, lines) == (0, [])
    assert log_of(tmp_path / "out")[-1]["step"] == 3
    assert Codec.load(json.loads(out)["model"]).config == RUN.codec


def test_a_config_of_a_kind_of_run_that_nobody_met_is_read(tmp_path):
    """And its fields are flags, as with `rvq-jax train`."""
    (tmp_path / "config.py").write_text(CONFIG)
    run = load_config(tmp_path / "config.py")
    changed = parse(type(run), ["--critic.every", "3"], "train", run)
    assert run == RUN and changed.critic.every == 3
