"""The programs that a plan compiles: a run's own training step, and its decoding."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from rvq_jax import patterns
from rvq_jax.axes import RULES
from rvq_jax.errors import UserError
from rvq_jax.lm import forms
from rvq_jax.lm.conditions import Condition
from rvq_jax.lm.sampling import Sampling
from rvq_jax.systems.decoding import programs
from rvq_jax.train import runs
from rvq_jax.train.runs import CodecRun, LMRun
from rvq_jax.train.state import Task, TrainState, abstract_state, make_program
from rvq_jax.train.tasks.codec import codec_task
from rvq_jax.train.tasks.lm import PREFIX, lm_task

TEXT = 64  # tokens that captions are padded to where a frozen encoder reads them
PROMPTS = 8  # generated at a time by `rvq-jax generate`
GUIDANCE, TOP_K = 3.0, 250  # as it does by default


class Step(NamedTuple):
    """A training step and the shapes it takes."""

    task: Task
    run: CodecRun | LMRun
    mesh: Mesh
    state: TrainState
    batch: dict

    def lower(self):
        """The step, traced for its mesh and ready to compile."""
        program = make_program(self.task, self.run.optimizer, self.run.loop.steps, self.mesh)
        return program.step.lower(self.state, self.batch)


def step(run: CodecRun | LMRun, mesh: Mesh) -> Step:
    """The training step of a run, of shapes alone; raises UserError for a batch that the mesh
    cannot share out, or for a run that starts from a model."""
    runs.check_batch(run, mesh)
    made = task(run)
    split = NamedSharding(mesh, PartitionSpec(RULES["batch"]))
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split), shapes(run)
    )
    state = abstract_state(made, run.optimizer, run.loop.steps, mesh)
    return Step(made, run, mesh, state, batch)


def task(run: CodecRun | LMRun) -> Task:
    """What `rvq_jax.train.runs` trains for a run."""
    if isinstance(run, CodecRun):
        return codec_task(run.codec, run.loss)
    if run.init_from is not None or run.lora.rank is not None:
        raise UserError(
            "plan reads no model: leave out init_from and lora.rank, and give lm its sizes"
        )
    return lm_task(run.lm, _pattern(run), run.condition_dropout)


def shapes(run: CodecRun | LMRun) -> dict:
    """A batch of a run, as the loader makes it."""
    B = run.batch

    def array(*shape, dtype="float32"):
        return jax.ShapeDtypeStruct((B, *shape), dtype)

    index = {"index": array(dtype="int32")}
    if isinstance(run, CodecRun):
        samples = runs.samples_of(run)
        return index | {
            "audio": array(samples, run.codec.channels),
            "mask": array(samples, dtype="bool"),
        }
    lm = run.lm
    batch = index | {
        "codes": array(lm.levels, run.frames, dtype="int32"),
        "mask": array(run.frames, dtype="bool"),
    }
    given = lm.condition_shapes(run.frames, TEXT)
    text = given.pop("text")
    if len(text) == 1:
        batch["text"] = array(*text, dtype="int32")
    else:
        batch |= {"states": array(*text), "text_mask": array(TEXT, dtype="bool")}
    if "melody" in given:
        batch["melody"] = array(*given.pop("melody"))
    batch |= {f"{PREFIX}{name}": array(*shape) for name, shape in given.items()}
    return batch


class Decoding(NamedTuple):
    """The program of `rvq-jax generate` on one chip, and the shapes it takes."""

    run: LMRun
    arguments: tuple
    steps: int

    def lower(self):
        """From the first step to the last, ready to compile."""
        sampling = Sampling(1.0, TOP_K, 0.0)
        *arguments, lengths = self.arguments
        return programs.generate_codes.lower(
            self.run.lm, *arguments, lengths, guidance=GUIDANCE, sampling=sampling
        )


def decoding(run: LMRun, device: Any) -> Decoding:
    """All steps of as many frames as the run's crops, of shapes alone, for one chip.

    The model is whole on it, in float32 as trained parameters are.
    """
    place = SingleDeviceSharding(device)

    def array(*shape, dtype="float32"):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    lm, B = run.lm, PROMPTS
    params = jax.tree.map(lambda x: array(*x.shape, dtype=x.dtype), forms.abstract(lm))
    pattern = _pattern(run)
    pattern = jax.tree.map(lambda x: array(*np.shape(x), dtype="int32"), pattern)
    conditions = {}
    for name, shape in lm.condition_shapes(run.frames, TEXT).items():
        states = array(B, *shape, dtype="int32" if len(shape) == 1 else "float32")
        mask, kept = array(B, shape[0], dtype="bool"), array(B, dtype="bool")
        conditions[name] = Condition(states, mask, kept)
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=place)
    forced = array(B, lm.levels, run.frames, dtype="int32")
    lengths = array(B, dtype="int32")
    used = patterns.named(patterns.canonical(run.pattern), lm.levels, run.frames).steps
    return Decoding(run, (params, pattern, conditions, key, forced, lengths), used)


def _pattern(run: LMRun):
    return patterns.padded_pattern(run.pattern, run.lm.levels, run.frames)
