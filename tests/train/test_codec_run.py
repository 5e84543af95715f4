"""Codecs of every kind, trained against discriminators: what a step is, and what is kept of it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_codec_runs import (
    JUDGES,
    KEY,
    LOSS,
    RATE,
    RATES,
    RUNS,
    batches_of,
    changed,
    run_of,
    sounds,
    updated,
)
from small_runs import bits_of, ending, log_of, one_device, one_window
from tiers import slow, tried, wide

from rvq_jax import metrics, quantize
from rvq_jax.codec import balancer, discriminators, losses
from rvq_jax.codec.adversarial import discriminator_loss, feature_matching, generator_loss
from rvq_jax.codec.autoencoder import graph
from rvq_jax.data import loader
from rvq_jax.quantize.moved import settled
from rvq_jax.systems import discriminators as judges
from rvq_jax.systems.codec import Codec
from rvq_jax.train import sharding
from rvq_jax.train.runs import batches
from rvq_jax.train.runs import codec as codec_runs
from rvq_jax.train.runs.codec import fit_codec
from rvq_jax.train.runs.codec_checks import begun_with
from rvq_jax.train.tasks.codec import CODEC, DISCRIMINATORS, codec_task, mean_codec

# In the slow tier each test has DAC or Mimi, or both.
EVERY = ("encodec", "stereo", "dac", "mimi")


def kinds(*of_slow: str) -> list:
    """EnCodec's in the fast tier, these in the slow one, the others by hand."""
    return tried(["encodec"], ["encodec", *of_slow]) + [
        wide(kind) for kind in EVERY[1:] if kind not in of_slow
    ]


@pytest.fixture(autouse=True)
def short():
    with one_window():
        yield


def begun(run, seed: int = 0):
    """A task that begins with a codec, whose codebooks have started, its params and a batch."""
    codec = Codec.init(run.codec, jax.random.key(seed))
    task = codec_task(run.recipe(), 1, codec)
    return codec, task, jax.tree.map(jnp.copy, task.init_params), next(batches_of(run))


# One update.


@pytest.mark.parametrize("balanced", [True, slow(False)])
def test_a_step_has_the_gradients_of_its_losses(balanced):
    """Of the codec: of their weighted sum with the discriminators held still, or what the balancer
    makes of each at the decoder's output. Of the discriminators: of their own loss on audio that
    is given. Twice, for the balancer has a state."""
    weights = dataclasses.replace(LOSS, quantizer_dropout=0.0, balanced=balanced, si_sdr=0.1)
    run = run_of(loss=weights)
    codec, task, params, batch = begun(run)
    books, config = settled(codec.quantizer), run.codec
    batch["mask"][:] = True
    audio = jnp.asarray(batch["audio"])

    def look(params, audio):
        return nnx.merge(discriminators.graph(JUDGES.discriminators), params)(audio)

    def decoded(params):
        model = nnx.merge(graph(config), nnx.State({n: params[n] for n in ("encoder", "decoder")}))
        x = model.encoder(audio)
        out = quantize.quantize(books, x, key=KEY, train=True, learning=quantize.EMA())
        spread = jax.lax.stop_gradient(x.var(axis=(0, 1)).mean())
        return model.decoder(out.latents), 0.1 * out.commitment.mean() / (spread + 1e-6)

    every = {
        "waveform": (10.0, lambda x, _: losses.l1(audio, x)),
        "mel": (0.6, lambda x, _: losses.multi_scale_mel(audio, x, RATE)),
        "si_sdr": (0.1, lambda x, _: losses.si_sdr_loss(audio, x)),
        "adversarial": (3.0, lambda x, judges: generator_loss(look(judges, x))),
        "features": (3.0, lambda x, judges: feature_matching(look(judges, audio), look(judges, x))),
    }

    @jax.jit
    def wanted(params, state):
        judges = params[DISCRIMINATORS]

        def summed(params):
            made, commitment = decoded(params)
            return commitment + sum(w * loss(made, judges) for w, loss in every.values())

        def own(judges):
            made = jax.lax.stop_gradient(decoded(params[CODEC])[0])
            return discriminator_loss(look(judges, audio), look(judges, made))

        (made, _), pull = jax.vjp(decoded, params[CODEC])
        apart = {name: jax.grad(loss)(made, judges) for name, (_, loss) in every.items()}
        scaled, state = balancer.balance(state, apart, {name: w for name, (w, _) in every.items()})
        of_codec = pull((scaled, jnp.ones(())))[0] if balanced else jax.grad(summed)(params[CODEC])
        return summed(params[CODEC]), of_codec, jax.grad(own)(judges), state

    aux, state = task.aux, balancer.init(every)
    step = jax.jit(jax.value_and_grad(task.loss, has_aux=True))
    for _ in range(2):
        (total, (aux, _)), grads = step(params, aux._replace(books=task.aux.books), batch, KEY)
        value, of_codec, of_judges, state = wanted(params, state)
        np.testing.assert_allclose(total, value, rtol=1e-4)
        pairs = (grads[CODEC], of_codec), (grads[DISCRIMINATORS], of_judges)
        for got, want in pairs:
            assert jax.tree.structure(got) == jax.tree.structure(want)
            largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(want))
            assert largest > 0
            for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * largest)
        params = jax.tree.map(lambda x, slope: x - 0.01 * slope, params, grads)
    if balanced:
        for a, b in zip(jax.tree.leaves(aux.balancer), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4)


@pytest.mark.parametrize("balanced", [wide(False), slow(True)])
def test_before_they_start_discriminators_are_as_if_they_were_not(balanced):
    """They stand still, and the codec is updated as without them; from then on both move."""
    weights = dataclasses.replace(LOSS, balanced=balanced)
    tuning = dataclasses.replace(JUDGES.optimizer, start=2, warmup=0)
    judged = run_of(loss=weights, adversarial=dataclasses.replace(JUDGES, optimizer=tuning))
    alone = dataclasses.replace(
        judged, adversarial=dataclasses.replace(JUDGES, discriminators=None)
    )
    with_them, without = updated(judged, 3), updated(alone, 3)
    still = [bits_of(state.params[DISCRIMINATORS]) for state in with_them]
    assert still[0] == still[1] == still[2] != still[3]
    for step in (1, 2):
        pair = with_them[step].params[CODEC], without[step].params[CODEC]
        for a, b in zip(*map(jax.tree.leaves, pair), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    last = [bits_of(x[3].params[CODEC]) for x in (with_them, without)]
    assert last[0] != last[1]
    if balanced:
        norms = [state.aux.balancer.totals["adversarial"] for state in with_them]
        assert norms[2] == 0 < norms[3]


@pytest.mark.slow
def test_silence_teaches_nothing_and_breaks_nothing():
    """Neither loss nor gradients are without a number; the balancer has no norm to divide by."""
    run = RUNS["encodec"]
    _, task, params, batch = begun(run)
    silent = dict(batch, audio=np.zeros_like(batch["audio"]))
    step = jax.jit(jax.value_and_grad(task.loss, has_aux=True))
    (value, (aux, _)), grads = step(params, task.aux, silent, KEY)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((value, aux, grads)))


# A run.


def held_of(run):
    # A group norm sees the padding of shorter ones, which lengths would leave out.
    return sounds(run.codec.channels, count=5, begin=47)


def train(run, folder, **options):
    loop = dataclasses.replace(run.loop, evaluate_every=3)
    run = dataclasses.replace(run, loop=loop)
    source = sounds(run.codec.channels)
    return fit_codec(folder, source, run, heldout=held_of(run), **options)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Runs of each kind: their config, folder, and what they end with, saved beside."""

    @functools.cache
    def of(kind: str):
        run, folder = RUNS[kind], tmp_path_factory.mktemp(kind)
        with one_window():
            model = train(run, folder)
        model.save(folder / "model")
        return run, folder, model

    return of


def scores(codec: Codec, run) -> dict:
    """By the codec's own encode and decode, in numpy from there: of what a run is evaluated on."""
    batches = codec_runs.heldout_batches(
        held_of(run), loader.cut_audio(run.samples), run, one_device()
    )
    totals, weight = {"waveform": 0.0, "si_sdr": 0.0}, 0.0
    for batch in batches:
        audio, mask_BS = batch["audio"], batch["mask"]
        made = np.asarray(codec.decode(codec.encode(audio)))
        made = np.where(mask_BS[..., None], made, 0.0)
        totals["waveform"] += np.abs(audio - made).mean((1, 2)).sum()
        mono, share_B = (audio.mean(-1), made.mean(-1)), mask_BS.mean(1)
        totals["si_sdr"] += (share_B * np.asarray(metrics.si_sdr(*mono, mask_BS))).sum()
        weight += share_B.sum()
    return {name: x / weight for name, x in totals.items()}


@pytest.mark.parametrize("kind", kinds("mimi"))
def test_a_saved_codec_is_what_was_evaluated(kind, done):
    """Weights and codewords are running means of the same updates."""
    run, folder, _ = done(kind)
    codec, last = Codec.load(folder / "model"), log_of(folder)[-1]
    for name, value in scores(codec, run).items():
        np.testing.assert_allclose(last["heldout"][name], value, rtol=1e-3, err_msg=name)
    assert last["skipped"] == 0 and last["gradient_norm_discriminators"] > 0
    assert judges.load(folder / "model", run.adversarial.discriminators) is not None


def test_without_any_distance_the_held_out_loss_is_of_mel():
    """As by Mimi's recipe, which discriminators alone teach."""
    weights = dataclasses.replace(LOSS, waveform=0.0, mel=0.0)
    _, task, params, batch = begun(run_of(loss=weights))
    found, _ = jax.jit(task.evaluate)(task.averaged(params, task.aux), task.aux, batch)
    assert found["loss"] == found["mel_distance"] > 0


@pytest.mark.parametrize("kind", kinds("dac", "mimi"))
def test_what_learns_by_gradient_moves_so_and_the_rest_by_means(kind):
    """Codewords and maps of DAC by gradient, and nothing else of its quantizer; maps around Mimi's
    codebooks by gradient, codewords by means."""
    before, _, after = updated(RUNS[kind], 2)
    moved = before.params[CODEC]["quantizer"]
    wanted = {"dac": {"down", "down_bias", "up", "up_bias", "inner/vectors"}}
    wanted["mimi"] = {f"{part}/{way}" for part in ("first", "rest") for way in ("down", "up")}
    assert moved.keys() == wanted.get(kind, set())
    for name in moved:
        assert changed(moved[name], after.params[CODEC]["quantizer"][name]), name
    for name, books in before.aux.books.items():
        assert changed(books, after.aux.books[name]) == (kind != "dac"), name
    for part in ("encoder", "decoder"):
        assert changed(before.params[CODEC][part], after.params[CODEC][part])


@pytest.mark.parametrize("kind", kinds("dac"))
def test_a_few_updates_bring_tones_nearer(kind):
    """By what is evaluated, the running mean, on the tones that it learns."""
    run = RUNS[kind]
    states = updated(run, 20)
    task = codec_task(run.recipe(), 1, Codec.init(run.codec, KEY))
    batch, look = next(batches_of(run)), jax.jit(task.evaluate)
    first, last = (look(x.ema, x.aux, batch)[0]["loss"] for x in (states[0], states[-1]))
    assert last < 0.98 * first


# From a folder.


def first_codec(run, codec) -> tuple[Codec, Codec]:
    """What a run evaluates before its first update, and after it."""
    run, codec = begun_with(run, codec)
    before, after = updated(run, 1, codec)
    return [mean_codec(run.codec, jax.tree.map(jnp.copy, x.ema), x.aux) for x in (before, after)]


@pytest.mark.parametrize("kind", kinds("dac"))
def test_a_run_from_a_codec_begins_with_its_codes(kind):
    """Also where weight norm was folded in; and codewords that nobody counted are not replaced as
    dead ones at the first update: those that were not chosen stay."""
    run, audio = RUNS[kind], np.stack([x["audio"][:400] for x in sounds(RUNS[kind].codec.channels)])
    codec = Codec.init(run.codec, KEY)
    if kind == "dac":
        codec = Codec(*codec.prepared)
    found, after = first_codec(run, codec)
    np.testing.assert_array_equal(found.encode(audio).codes, codec.encode(audio).codes)
    if kind == "encodec":
        moved_K = (found.quantizer.vectors != after.quantizer.vectors).any(-1).sum(-1)
        assert (moved_K > 0).all() and (moved_K < 16).all()


@pytest.mark.slow
def test_training_the_decoder_alone_leaves_codes_what_they_were(tmp_path):
    """To the last bit, in the folder that is saved; and the decoder moves."""
    base = Codec.init(RUNS["encodec"].codec, KEY)
    base.save(tmp_path / "base")
    run = run_of(init_from=str(tmp_path / "base"), trained="decoder")
    fit_codec(tmp_path / "run", sounds(), run).save(tmp_path / "model")
    base, codec = (Codec.load(tmp_path / name) for name in ("base", "model"))
    assert not changed(base.params["encoder"], codec.params["encoder"])
    assert not changed(base.quantizer.vectors, codec.quantizer.vectors)
    assert changed(base.params["decoder"], codec.params["decoder"])


# Interruptions and meshes.


def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path, monkeypatch, done):
    """Codec, discriminators, moments and the balancer; stopped after its codebooks started."""
    run, folder, model = done("encodec")

    def stopping(*given):
        return ending(batches.batches_of(*given), 4, KeyboardInterrupt)

    with monkeypatch.context() as patch:
        patch.setattr(codec_runs, "batches_of", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(run, tmp_path)
    again = train(run, tmp_path)
    assert not changed(again.codec.leaves, model.codec.leaves)
    assert not changed(again.discriminators, model.discriminators)
    assert log_of(tmp_path) == log_of(folder)


# Its twin: `train_sharding`, of a codec's quantizer.
@pytest.mark.slow
def test_a_mesh_changes_no_number():
    """Codec, discriminators and balancer; at a rate at which rounding stays small."""
    tuning = dataclasses.replace(RATES, learning_rate=1e-4)
    judged = dataclasses.replace(JUDGES, optimizer=tuning)
    run = dataclasses.replace(RUNS["encodec"], optimizer=tuning, adversarial=judged, batch=8)
    done = []
    for mesh in (one_device(), sharding.make_mesh(2, 2, 2)):
        done.append(updated(run, 3, mesh=mesh)[-1])
    for a, b in zip(*(jax.tree.leaves((x.params, x.ema, x.aux)) for x in done), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
