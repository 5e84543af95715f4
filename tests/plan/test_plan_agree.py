"""FLOPs of a step counted from its program in JAX's terms and from what XLA makes of it."""

import dataclasses
from pathlib import Path

import pytest
from small_plans import BIG
from small_runs import one_device
from tiers import slow, wide

from rvq_jax.cli.train import load_config
from rvq_jax.plan import programs
from rvq_jax.plan.compiled import cost
from rvq_jax.plan.model_flops import model_flops, of_jaxpr
from rvq_jax.train.state import make_program

pytestmark = pytest.mark.usefixtures("compiled_anew")

CONFIGS = Path(__file__).parents[2] / "configs"
# Without the one that begins with a model's folder, which no plan reads.
ALL = sorted({path.stem for path in CONFIGS.glob("*.py")} - {"musicgen_finetune_lora"})
# Token models of any size compile in seconds; against discriminators a codec takes a minute.
CODECS = [name for name in ALL if name.split("_")[0] in ("dac", "encodec", "mimi")]
# Of a token model of two sizes the published one is here; of codecs one without discriminators.
TWINS = {f"{name.removesuffix('_published')}_tiny" for name in ALL if name.endswith("_published")}
BY_HAND = {*CODECS, *TWINS, "codec_tiny", "builtin_codec"}


def counted(run) -> tuple[float, float]:
    """Before and after the compiler."""
    step = programs.step(run, one_device())
    program = make_program(step.task, run.optimizer, run.loop.steps, step.mesh)
    traced = program.step.trace(step.state, step.batch)
    found = cost(traced.lower().compile().as_text())
    assert found.unknown == () and found.uncounted == 0
    return of_jaxpr(traced.jaxpr.jaxpr), found.flops


@pytest.mark.parametrize("remat", ["attention", slow("nothing"), slow("everything")])
def test_a_token_models_step_is_what_it_was_written_as(remat):
    """To the last product, whatever is recomputed; and never less than the model needs."""
    run = BIG.computed(remat)
    written, executed = counted(run)
    assert executed == written >= model_flops(run)


@pytest.mark.parametrize("name", [wide(x) if x in BY_HAND else slow(x) for x in ALL])
def test_every_config_is_counted_alike(name):
    run = load_config(CONFIGS / f"{name}.py")
    run = dataclasses.replace(run, batch=2 * run.optimizer.accumulate)
    written, executed = counted(run)
    assert executed == pytest.approx(written, rel=0.02)
