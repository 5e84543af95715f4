"""The running mean of a codec: of its weights, and of codewords that fit it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_codec_runs import KEY, LOSS, RATES, RUNS, batches_of, changed, run_of, updated
from small_runs import one_device, one_window
from tiers import slow, wide

from rvq_jax import quantize
from rvq_jax.codec.autoencoder import latents
from rvq_jax.systems.codec import Codec
from rvq_jax.train import loop as loops
from rvq_jax.train import sharding
from rvq_jax.train.state import make_program
from rvq_jax.train.tasks.adversarial import AdversarialConfig
from rvq_jax.train.tasks.codec import CODEC, codec_task, mean_codec


@pytest.fixture(autouse=True)
def short():
    with one_window():
        yield


def lags(decay: float) -> float:
    """Updates by which a running mean is late."""
    return sum(i * decay**i for i in range(20_000)) * (1 - decay)


@pytest.mark.slow
def test_the_running_mean_is_of_weights_and_codewords_alike():
    """By its definition, with the horizon that grows, and so that codewords, which lag by
    themselves, lag as the weights do; nothing of the discriminators is in it."""
    # A mean that is soon as long as it will be, and codebooks that lag less.
    weights = dataclasses.replace(RUNS["encodec"].loss, decay=0.1)
    tuning, kept = dataclasses.replace(RATES, ema=0.2), 5 / 41
    run = run_of(loss=weights, optimizer=tuning)
    states = updated(run, 3)
    task = codec_task(run.recipe(), 1, Codec.init(run.codec, KEY))
    averaged = [task.averaged(x.params, x.aux) for x in states]
    want = jax.tree.map(np.asarray, averaged[0])
    assert want.keys() == {"encoder", "decoder", "quantizer", "codewords"}
    assert want["codewords"].keys() == {"vectors"} and want["quantizer"] == {}
    assert lags(run.loss.decay) + lags(kept) == pytest.approx(lags(run.optimizer.ema))
    for step, state in enumerate(states[1:]):
        longest = (1 + step) / (10 + step)
        for name, new in averaged[step + 1].items():
            k = min(kept if name == "codewords" else run.optimizer.ema, longest)
            want[name] = jax.tree.map(lambda a, b, k=k: k * a + (1 - k) * b, want[name], new)
        for a, b in zip(jax.tree.leaves(state.ema), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_the_running_mean_begins_anew_where_codebooks_start():
    """Of what was before it has nothing: no codeword of it was ever used."""
    run = RUNS["encodec"]
    task, batches = codec_task(run.recipe(), 1), batches_of(run)
    program = make_program(task, run.optimizer, 9, one_device())
    state = program.init(KEY, task.aux, None)
    for _ in range(2):  # the first has a rate of zero
        state, _ = program.step(state, sharding.place_batch(next(batches), one_device()))
    assert changed(state.ema["decoder"], state.params[CODEC]["decoder"])
    kept = jax.tree.map(np.asarray, state.aux.books)
    state = loops._init_codebooks(task, state, batches, one_device())
    assert changed(kept, state.aux.books) and bool(state.aux.started)
    assert not changed(state.ema, task.averaged(state.params, state.aux))


# Its twin: what the mean is, above.
@pytest.mark.parametrize("decay", [wide(0.9), slow(0.97)])
def test_codewords_fit_the_mean_encoder(decay):
    """Better than means over as many updates as the weights' do, which are too late."""
    tuning = dataclasses.replace(RATES, ema=0.97)
    weights = dataclasses.replace(LOSS, decay=decay)
    run = run_of(loss=weights, optimizer=tuning, adversarial=AdversarialConfig(), batch=8)
    audio = next(batches_of(dataclasses.replace(run, batch=32), begin=50))["audio"]
    task, batches = codec_task(run.recipe(), 8), batches_of(run)
    program = make_program(task, run.optimizer, 9, one_device())
    state = program.init(KEY, task.aux, None)
    places = jax.tree.map(lambda x: x.sharding, state.ema)
    errors, old = {"fit": 0.0, "means": 0.0}, None
    for step in range(160):
        if step == 40:
            state = loops._init_codebooks(task, state, batches, one_device())
            old = np.asarray(state.aux.books["vectors"])
        state, _ = program.step(state, sharding.place_batch(next(batches), one_device()))
        newest = np.asarray(state.aux.books["vectors"])
        old = newest if old is None else 0.97 * old + 0.03 * newest
        if step >= 120 and step % 8 == 0:
            codec = mean_codec(run.codec, jax.tree.map(jnp.copy, state.ema), state.aux)
            x = latents(run.codec, codec.params, audio)
            fit = codec.quantizer.vectors
            for name, vectors in {"fit": fit, "means": old}.items():
                books = dataclasses.replace(codec.quantizer, vectors=vectors)
                errors[name] += float(jnp.square(x - quantize.quantize(books, x).latents).mean())
    assert jax.tree.map(lambda x: x.sharding, state.ema) == places
    assert errors["fit"] < errors["means"], errors
