"""Fine-tuning: it begins where the model stands, and adapters leave the model where it was."""

import dataclasses
import functools
import json

import command
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_codecs
from flax import nnx
from small_runs import CONFIG_FILE, bits_of, log_of, one_device
from small_t5 import TINY, encoder, tensors_of, write_tokenizer
from tiers import slow

from rvq_jax import patterns
from rvq_jax.data import loader
from rvq_jax.data.captions import CaptionStates
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.lm import forms
from rvq_jax.lm.lora import LoRAConfig
from rvq_jax.lm.model import LMConfig, TokenLM
from rvq_jax.study.models import bits_by_level
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.decoding.programs import score_codes
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.text_encoder import Tokenizer, load_tokenizer
from rvq_jax.train import runs, sharding
from rvq_jax.train.captions import caption_states
from rvq_jax.train.loop import LoopConfig, fit
from rvq_jax.train.runs import LMRun
from rvq_jax.train.runs.batches import heldout_batches
from rvq_jax.train.runs.musicgen import train_musicgen
from rvq_jax.train.state import OptimizerConfig, Program, make_program
from rvq_jax.train.tasks.lm import ConditionDropout, conditions_of, lm_task, mean_bits
from rvq_jax.train.tasks.lora import lora_task

K, N, FRAMES = 3, 16, 6
LM = LMConfig(
    levels=K,
    codebook_size=N,
    dim=16,
    layers=2,
    heads=2,
    mlp_dim=32,
    positions="sinusoidal",
    text_dim=TINY.dim,
    window=FRAMES,
)
MELODY = dataclasses.replace(LM, melody_bins=12, melody_frames=4)
WORDS = ["slow piano", "loud drum", ""]
# A token for each character, and the closing one.
TEXT = encoder(TINY, Tokenizer(lambda text: [2 + ord(c) % 30 for c in text] + [1], {}))
ADAPTED = LoRAConfig(rank=2, alpha=4.0)
RUN = LMRun(
    lm=LM,
    loop=LoopConfig(steps=40, log_every=1, checkpoint_every=10),
    optimizer=OptimizerConfig(learning_rate=2e-2, warmup=1),
    batch=8,
    frames=FRAMES,
    lora=ADAPTED,
)


def codes(count: int = 9) -> CodeSet:
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, N, (K, FRAMES + i % 3)).astype(np.int32) for i in range(count)]
    names = [f"song{i}" for i in range(count)]
    return CodeSet(rows, names, [WORDS[i % 3] for i in range(count)], names, 100.0, N)


def drawn(config: LMConfig) -> nnx.State:
    """Untrained parameters with lists of layers."""
    model = TokenLM(config, nnx.Rngs(params=jax.random.key(7)))
    return forms.unstack(config, nnx.state(model, nnx.Param))


BASE = drawn(LM)
PATTERN = patterns.padded_pattern("delay", K, FRAMES)


@functools.cache
def cut():
    states, mask = map(np.asarray, TEXT.encode(WORDS))
    return loader.cut_codes(
        FRAMES, 0, CaptionStates(WORDS, [x[m] for x, m in zip(states, mask, strict=True)], "")
    )


def batches():
    return loader.batches(codes(), cut(), RUN.batch, 0)


def task_of(dropout: ConditionDropout = RUN.condition_dropout):
    return lora_task(LM, RUN.lora, BASE, PATTERN, dropout)


def tuned(folder, program):
    """The final state of a run of adapters."""
    return fit(folder, task_of(), batches(), RUN.loop, RUN.optimizer, program=program)


@pytest.fixture(scope="module")
def program() -> Program:
    return make_program(task_of(), RUN.optimizer, RUN.loop.steps, one_device())


@pytest.fixture(scope="module")
def whole(program, tmp_path_factory):
    """A run of adapters from end to end: its state and its folder."""
    folder = tmp_path_factory.mktemp("lora")
    return tuned(folder, program), folder


# Adapters.


def test_frozen_weights_do_not_move(whole):
    """Not by a bit, while the adapters do; and nothing that is kept of training is as large as
    they are."""
    state, _ = whole
    assert bits_of(state.aux.base) == bits_of(forms.stack(LM, BASE))
    start = jax.eval_shape(task_of().init, jax.random.key(0))
    moved = jax.tree.map(lambda x: bool(np.any(np.asarray(x))), state.params)
    # b begins at nothing, so whatever it holds was learned.
    assert all(jax.tree.leaves(moved))
    adapters = sum(x.size for x in jax.tree.leaves(start))
    moments = [optax.tree.get(state.opt, name) for name in ("mu", "nu")]
    for tree in (state.params, state.ema, *moments):
        assert sum(x.size for x in jax.tree.leaves(tree)) == adapters
    assert adapters < sum(x.size for x in jax.tree.leaves(state.aux.base)) / 2


def test_adapters_learn_what_they_are_shown(whole):
    """Forty updates on nine clips."""
    losses = [line["loss"] for line in log_of(whole[1])]
    assert len(losses) == RUN.loop.steps
    assert np.mean(losses[-5:]) < 0.8 * losses[0]


def test_the_exported_model_is_the_one_that_was_trained(whole, tmp_path):
    """Weights with the adapters merged and layers apart score as the loss did."""
    state, _ = whole
    run = dataclasses.replace(RUN, init_from="somewhere")
    params = runs.train_lm(tmp_path, codes(), run, init_params=BASE, text=TEXT)
    batch = next(batches())
    loss, _ = jax.jit(task_of(ConditionDropout(0.0)).loss)(
        state.ema, state.aux, batch, jax.random.key(0)
    )
    bits = score_codes(LM, params, PATTERN, batch["codes"], conditions_of(batch), batch["mask"])
    np.testing.assert_allclose(bits.sum() / batch["mask"].sum() / K, loss, rtol=1e-5)
    before = score_codes(LM, BASE, PATTERN, batch["codes"], conditions_of(batch), batch["mask"])
    assert abs(float(bits.sum() - before.sum())) > 1.0


class PowerCut(Exception):
    """Stands for whatever ends a process."""


def test_a_stopped_run_of_adapters_ends_in_the_same_bits(whole, program, tmp_path):
    steps = iter(range(13))

    def step(state, batch):
        if next(steps, None) is None:
            raise PowerCut
        return program.step(state, batch)

    with pytest.raises(PowerCut):
        tuned(tmp_path, Program(program.init, step))
    assert bits_of(tuned(tmp_path, program)) == bits_of(whole[0])
    assert log_of(tmp_path) == log_of(whole[1])


def test_held_out_bits_are_those_of_all_windows():
    """Of a model that reads a frozen text encoder: each window counts once, no row of padding."""
    run, rows = dataclasses.replace(RUN, lm=LM), codes(5)
    double = [np.tile(x[:, :FRAMES], 1 + i % 2) for i, x in enumerate(rows.codes)]
    found = bits_by_level(run, BASE, dataclasses.replace(rows, codes=double), batch=4, text=TEXT)
    windows = np.stack([x[:, :FRAMES] for x in rows.codes])
    bits = MusicGen(LM, "delay", BASE, None, TEXT).score(windows, rows.captions)
    means = np.asarray(bits).mean(2)
    np.testing.assert_allclose(found, np.average(means, 0, [1, 2, 1, 2, 1]), rtol=1e-5)


# Its twin: test_train_sharding.py, of all weights.
@pytest.mark.slow
def test_a_mesh_changes_no_adapter(program):
    """Eight devices do what one does; base and adapters lie in pieces, where the table says."""
    task, mesh = task_of(), sharding.make_mesh(2, 2, 2)
    split = make_program(task, RUN.optimizer, RUN.loop.steps, mesh)
    ends, losses = [], []
    for mine, where in ((program, one_device()), (split, mesh)):
        state, data = mine.init(jax.random.key(0), task.aux), batches()
        for _ in range(4):
            state, metrics = mine.step(state, sharding.place_batch(next(data), where))
            losses.append(float(metrics["loss"]))
        ends.append(state)
    np.testing.assert_allclose(losses[:4], losses[4:], rtol=1e-4)
    one, eight = ends
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(eight.params), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=2e-3)
    for tree, share in ((eight.params, 0.8), (eight.aux.base, 0.6)):
        wanted, leaves = jax.tree.leaves(sharding.of_params(tree, mesh)), jax.tree.leaves(tree)
        for leaf, want in zip(leaves, wanted, strict=True):
            assert leaf.sharding.is_equivalent_to(want, leaf.ndim)
        here = sum(leaf.addressable_shards[0].data.size for leaf in leaves)
        assert here < share * sum(leaf.size for leaf in leaves)


# Where a run begins.


def test_full_fine_tuning_begins_with_the_weights_it_was_given():
    """Weights and running mean before any update, and so the loss of the first one."""
    task = lm_task(LM, PATTERN, ConditionDropout(0.0), BASE)
    program = make_program(task, RUN.optimizer, RUN.loop.steps, one_device())
    state = program.init(jax.random.key(0), task.aux, task.init_params)
    assert bits_of(state.params) == bits_of(state.ema) == bits_of(forms.stack(LM, BASE))
    batch = next(batches())
    loss, _ = jax.jit(task.loss)(state.params, state.aux, batch, jax.random.key(0))
    bits = score_codes(LM, BASE, PATTERN, batch["codes"], conditions_of(batch), batch["mask"])
    np.testing.assert_allclose(loss, bits.sum() / batch["mask"].sum() / K, rtol=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model in transformers' format with its codec and its text encoder."""
    place = tmp_path_factory.mktemp("start")
    write_tokenizer(place / "words")
    text = encoder(TINY, load_tokenizer(place / "words"))
    codec = Codec.init(small_codecs.CONFIGS["mono"], jax.random.key(0))
    MusicGen(LM, "delay", drawn(LM), codec, text).save(place / "model")
    return place / "model"


def check_tuned(place, start) -> None:
    """The model of a run has the sizes of the one it started from, its codec and its text encoder
    to the bit, in transformers' format again, and other scores; the run states what it was."""
    said = json.loads((place / "config.json").read_text())
    assert said["lm"] == dataclasses.asdict(dataclasses.replace(LM, remat=True))
    fields = json.loads((place / "model" / "config.json").read_text())
    assert fields["model_type"] == "musicgen"
    start, end = MusicGen.load(start), MusicGen.load(place / "model")
    assert (end.config, end.pattern) == (start.config, start.pattern)
    assert bits_of(end.codec.leaves) == bits_of(start.codec.leaves)
    assert bits_of(end.text.tensors) == bits_of(start.text.tensors) != []
    assert set(end.text.tensors) == set(tensors_of(TINY))
    batch = codes()[0]["codes"][None]
    assert not np.allclose(end.score(batch, WORDS[:1]), start.score(batch, WORDS[:1]))


SHORT = dataclasses.replace(RUN, lm=LMConfig(remat=True), loop=LoopConfig(steps=2, log_every=1))


# Its twin: all weights of a model that follows a melody, below.
@pytest.mark.slow
def test_all_weights_of_a_folder_are_fine_tuned(folder, tmp_path):
    run = dataclasses.replace(SHORT, init_from=str(folder), lora=LoRAConfig(rank=None))
    train_musicgen(tmp_path, codes(), run).save(tmp_path / "model")
    check_tuned(tmp_path, folder)


def held_out_bits(place, held: CodeSet, tmp_path) -> np.ndarray:
    """By level, what the saved model makes of the crops that a run of two parts is evaluated on."""
    model = MusicGen.load(place)
    states = caption_states(tmp_path / "again.npz", model.text, held.captions)
    run = dataclasses.replace(RUN, batch=16, optimizer=OptimizerConfig(accumulate=2))
    bits, frames = np.zeros(K), 0
    for batch in heldout_batches(held, loader.cut_codes(FRAMES, 0, states), run, one_device()):
        conditions, mask = conditions_of(batch), batch["mask"]
        found = score_codes(LM, model.params, PATTERN, batch["codes"], conditions, mask)
        bits += np.asarray(found, np.float64).sum((0, 2))
        frames += mask.sum()
    return bits / frames


# Its twins: a stopped run of adapters, above, and the same folder refused, below.
@pytest.mark.slow
def test_adapters_of_a_folder_are_trained_from_the_command_line(folder, tmp_path, capsys):
    """On all devices, in two parts, evaluated on the codes beside, to the numbers that the saved
    model has on one; the second time it is done already, and a run with other adapters is another
    run."""
    codes(16).save(tmp_path / "train.npz")
    held = dataclasses.replace(codes(), codes=[x[::-1] for x in codes().codes])
    held.save(tmp_path / "heldout.npz")
    (tmp_path / "tune.py").write_text(CONFIG_FILE.format(run=SHORT))
    words = ["train", tmp_path / "tune.py", "--data", tmp_path / "train.npz"]
    words += ["--out", tmp_path / "out", "--init-from", folder, "--batch", 16, "--fsdp", 2]
    words += ["--optimizer.accumulate", 2, "--loop.evaluate-every", 1, "--json"]
    for _ in range(2):
        code, out, lines = command.run(capsys, *words)
        assert (code, lines) == (0, [])
        assert json.loads(out)["model"] == str(tmp_path / "out" / "model")
    check_tuned(tmp_path / "out", folder)
    lines = [line["heldout"] for line in log_of(tmp_path / "out")]
    found = held_out_bits(tmp_path / "out" / "model", held, tmp_path)
    np.testing.assert_allclose(lines[1]["bits_by_level"], found, rtol=1e-5)
    assert len(lines) == 2 and lines[0] != lines[1]
    command.refuses(capsys, *words, "--lora.rank", 3, say=("lora.rank: 2 there, 3 here",))
    command.refuses(capsys, *words, "--lm.layers", 3, say=("lm.layers is 3, but 2",))


def test_a_model_that_follows_a_melody_is_trained(tmp_path):
    """On the pitch classes of each crop, of the cache; which must have them."""
    run = dataclasses.replace(SHORT, lm=MELODY, lora=LoRAConfig(rank=None))
    with pytest.raises(UserError, match="--melody 12"):
        train_musicgen(tmp_path, codes(), run, text=TEXT)
    melodies = [np.full(5, i, np.uint8) for i in range(9)]
    sung = {"melodies": melodies, "melody_bins": 12, "melody_rate": 50.0}
    model = train_musicgen(tmp_path, dataclasses.replace(codes(), **sung), run, text=TEXT)
    start = nnx.state(TokenLM(MELODY, nnx.Rngs(params=jax.random.key(0))), nnx.Param)
    moved = model.params["readers"]["melody"]["project"]["kernel"][...] / np.asarray(
        start["readers"]["melody"]["project"]["kernel"][...]
    )
    # Decay alone would scale every row alike.
    spread = moved.std(axis=1)
    assert (spread[:9] > 1e-4).all() and (spread[9:] < 1e-5).all()


@pytest.mark.parametrize(
    ("changes", "say"),
    [
        ({"lm": LMConfig(layers=3)}, "lm.layers is 3, but 2"),
        ({"lm": LMConfig(text_dim=768)}, "lm.text_dim is 768, but 12"),
        ({"pattern": "flatten"}, "pattern is flatten, but delay"),
        ({"init_from": None, "lora": ADAPTED}, "set init_from"),
        ({"init_from": None, "lm": LM, "lora": LoRAConfig(rank=None)}, "--text"),
        ({"init_from": "gone"}, "gone is not a model folder"),
        ({"frames": 9}, "longest record 8"),
        ({"batch": 7, "optimizer": OptimizerConfig(accumulate=2)}, "multiple of 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_told(folder, tmp_path, changes, say):
    run = dataclasses.replace(RUN, lm=LMConfig(), init_from=str(folder))
    with pytest.raises(UserError) as caught:
        train_musicgen(tmp_path / "out", codes(), dataclasses.replace(run, **changes))
    assert say in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_codes_of_another_codec_are_told(folder, tmp_path):
    strange = dataclasses.replace(codes(), codec="another")
    run = dataclasses.replace(RUN, lm=LMConfig(), init_from=str(folder))
    with pytest.raises(UserError, match="codes of another codec"):
        train_musicgen(tmp_path, strange, run)


# How a model of MusicGen's shape is computed.


@pytest.mark.parametrize("config", [slow(LM), slow(MELODY)], ids=["text", "melody"])
def test_recomputing_layers_changes_nothing_and_few_bits_little(config):
    """Layers recomputed in the backward pass give the loss and gradients of layers that are kept;
    activations in bfloat16 come within its rounding, and parameters' gradients stay float32."""
    params = forms.stack(config, drawn(config))
    batch, key = next(batches()), jax.random.key(1)
    if config.melody_bins:
        bins = np.random.default_rng(0).integers(0, 12, (RUN.batch, config.melody_frames))
        batch["melody"] = np.eye(12, dtype=np.float32)[bins]

    def look(**changes):
        mine = dataclasses.replace(config, **changes)

        def loss(params):
            model = forms.model(mine, params, stacked=True)
            return mean_bits(
                model, jax.tree.map(jnp.asarray, PATTERN), batch, key, ConditionDropout(0.3)
            )[0]

        return jax.jit(jax.value_and_grad(loss))(params)

    loss, grads = look()
    norm = optax.tree.norm(grads)
    assert norm > 0.1
    if config.melody_bins:
        again, same = look(remat=True)
        np.testing.assert_allclose(again, loss, rtol=1e-6)
        assert optax.tree.norm(jax.tree.map(jnp.subtract, same, grads)) < 1e-5 * norm
    few, close = look(dtype="bfloat16", remat=True)
    np.testing.assert_allclose(few, loss, rtol=1e-2)
    assert few != loss
    assert optax.tree.norm(jax.tree.map(jnp.subtract, close, grads)) < 0.05 * norm
    assert {x.dtype for x in jax.tree.leaves(close)} == {jnp.dtype("float32")}
