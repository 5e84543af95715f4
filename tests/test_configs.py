"""Every file in configs/ describes a model that can be built, and says what it is for."""

import ast
from pathlib import Path

import jax
import pytest
from tiers import slow, wide

from rvq_jax import files, patterns
from rvq_jax.cli.train import load_config
from rvq_jax.lm import forms
from rvq_jax.systems.codec import leaf_shapes
from rvq_jax.train.runs import CodecRun, MaskedRun, VALLERun
from rvq_jax.train.tasks.lm import lm_task

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
# Millions of parameters of the published token models, without the projection of T5's states.
PUBLISHED = {"musicgen_small": 419.6, "musicgen_medium": 1837.6, "musicgen_large": 3255.4}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_builds_and_says_what_it_is_for(path):
    """Its shapes alone: nothing is computed."""
    said = ast.get_docstring(ast.parse(path.read_text()))
    assert [word for word in ("Command:", "Time:", "Expect:") if word not in said] == []
    assert path.name in said
    run = load_config(path)
    if isinstance(run, CodecRun):
        assert leaf_shapes(run.codec)
        judges = run.adversarial.discriminators
        assert judges is None or judges.rate == run.codec.rate
        return
    if isinstance(run, VALLERun):
        for part in (run.first, run.rest):
            assert jax.tree.leaves(forms.abstract(part, stacked=True))
        return
    assert jax.tree.leaves(forms.abstract(run.lm, stacked=True))
    if isinstance(run, MaskedRun):
        return
    assert patterns.padded_pattern(run.pattern, run.lm.levels, run.frames).steps >= run.frames
    assert run.lora.rank is None or run.init_from is None


@pytest.mark.parametrize("name", PUBLISHED)
def test_musicgens_have_the_published_numbers_of_parameters(name):
    path = next(path for path in CONFIGS if path.stem == name)
    shapes = files.named(forms.abstract(load_config(path).lm))
    counted = [x.size for name, x in shapes.items() if not name.startswith("readers/")]
    assert round(sum(counted) / 1e6, 1) == PUBLISHED[name]


def test_a_published_config_trains_as_it_is_written():
    """Loss and gradients of the small one for 192 crops of 30 s, in shapes: bfloat16, layers
    recomputed, states of a frozen text encoder."""
    run = load_config(next(path for path in CONFIGS if path.stem == "musicgen_small"))
    task = lm_task(run.lm, patterns.padded_pattern("delay", 4, run.frames), run.condition_dropout)

    def array(shape, dtype):
        return jax.ShapeDtypeStruct((run.batch, *shape), dtype)

    batch = {
        "codes": array((4, 1500), "int32"),
        "mask": array((1500,), "bool"),
        "states": array((48, 768), "float32"),
        "text_mask": array((48,), "bool"),
        "index": array((), "int32"),
    }
    params, key = forms.abstract(run.lm, stacked=True), jax.random.key(0)
    look = jax.value_and_grad(task.loss, has_aux=True)
    (loss, (_, metrics)), grads = jax.eval_shape(look, params, task.aux, batch, key)
    assert loss.dtype == "float32" and metrics["bits_by_level"].shape == (4,)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), grads) == jax.tree.map(
        lambda x: (x.shape, x.dtype), params
    )


CODECS = ("encodec_24khz", "encodec_32khz", "dac_44khz", "mimi_24khz")


# Its twins: the same recipes for a laptop, in `train/test_codec_run`.
@pytest.mark.parametrize("name", [wide("dac_44khz"), slow("mimi_24khz")])
def test_a_published_codec_trains_as_it_is_written(name):
    """Loss and gradients of codec and discriminators at the published batch, in shapes."""
    run = load_config(next(path for path in CONFIGS if path.stem == name))
    task, key = run.task(), jax.random.key(0)
    params = jax.eval_shape(task.init, key)
    look = jax.value_and_grad(task.loss, has_aux=True)
    (loss, (_, found)), grads = jax.eval_shape(look, params, task.aux, run.batch_shapes(), key)
    assert loss.dtype == "float32" and loss.shape == ()
    assert found["adversarial"].shape == found["features"].shape == ()
    assert jax.tree.map(lambda x: (x.shape, x.dtype), grads) == jax.tree.map(
        lambda x: (x.shape, x.dtype), params
    )


def test_siblings_train_what_their_elder_does():
    """Of each published recipe a small one and one for an evening: kind, rate, losses and how the
    discriminators are heard and trained, but for their sizes."""
    for name in CODECS:
        runs = [
            load_config(next(path for path in CONFIGS if path.stem == f"{name}{kind}"))
            for kind in ("", "_evening", "_tiny")
        ]
        same = []
        for run in runs:
            loss, judged = vars(run.loss), run.adversarial
            names = ("waveform", "mel", "mel_kind", "balanced", "quantizer_dropout", "unquantized")
            of_loss = [loss[n] for n in names]
            judged = {**vars(judged), "discriminators": None}
            same.append((type(run), run.codec.rate, of_loss, run.optimizer, judged))
            same[-1] += (run.augmentation,)
        assert same[0] == same[1] == same[2], name
