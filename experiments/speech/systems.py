"""The two systems that speak: their sizes, and how each is trained."""

import dataclasses
import math
from pathlib import Path

import jax
from flax import nnx

from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.systems.generators import Generator, load_generator
from rvq_jax.systems.semantic import SemanticModel
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import MaskedRun, SemanticRun, VALLERun
from rvq_jax.train.runs.batches import one_device
from rvq_jax.train.runs.run import Run
from rvq_jax.train.state import OptimizerConfig

VALLE, SOUNDSTORM, STAGE = "valle", "soundstorm", "semantic"
SYSTEMS = VALLE, SOUNDSTORM
LEVELS, SIZE = 4, 1024  # the first ones of the codec
FRAMES = 232  # of an utterance and its end: six digits
SEMANTIC, RATIO = 512, 2
RATES = {VALLE: 4e-3, STAGE: 8e-3, SOUNDSTORM: 8e-3}
UPDATES = {VALLE: 2000, STAGE: 700, SOUNDSTORM: 2000}
TEXT = {"caption_layers": 0, "caption_bytes": 36, "text_as": "prefix"}
SHAPE = {"dim": 128, "mlp_dim": 512}


def run_of(name: str, seed: int, updates: int | None = None) -> Run:
    """The training of a network; updates: as many as `UPDATES` says for None."""
    steps = UPDATES[name] if updates is None else updates
    shared = {
        "loop": LoopConfig(steps=steps, checkpoint_every=500, evaluate_every=500, seed=seed),
        "optimizer": OptimizerConfig(learning_rate=RATES[name], warmup=100, weight_decay=0.1),
        "batch": 16,
        "frames": FRAMES,
    }
    if name == VALLE:
        run = VALLERun(**shared)
        first = dataclasses.replace(run.first, **SHAPE, **TEXT, layers=4, codebook_size=SIZE)
        rest = dataclasses.replace(
            run.rest, **SHAPE, **TEXT, layers=2, levels=LEVELS, codebook_size=SIZE
        )
        return dataclasses.replace(run, first=first, rest=rest)
    if name == STAGE:
        lm = LMConfig(levels=1, codebook_size=SEMANTIC, **SHAPE, **TEXT, layers=4, end=True)
        return SemanticRun(**shared | {"frames": FRAMES // RATIO, "batch": 32}, speech=True, lm=lm)
    lm = MaskedLMConfig(
        levels=LEVELS,
        codebook_size=SIZE,
        **SHAPE | {"mlp_dim": 256},
        layers=2,
        semantic_size=SEMANTIC,
        semantic_ratio=RATIO,
    )
    return MaskedRun(**shared, lm=lm)


def trained(
    folder: Path, data: Path, name: str, run: Run, codec: Path, stage: Path | None = None
) -> Generator | SemanticModel:
    """Trains a network, or reads what was trained before.

    Args:
      folder: of the run, whose `model` is kept.
      data: the code cache.
      name: of the network.
      run: its training.
      codec: folder of the codec.
      stage: folder of the semantic model that a SoundStorm is kept with.

    Returns:
      The trained model.
    """

    place = folder / "model"
    if place.exists():
        return (SemanticModel.load if name == STAGE else load_generator)(place)
    if name == SOUNDSTORM:
        run = dataclasses.replace(run, semantic=str(stage))
    model = run.train(folder, data, one_device(), codec=None if name == STAGE else codec)
    model.save(place)
    return model


def parameters() -> dict[str, int]:
    """How many weights each network has."""
    found = {}
    for name in (VALLE, STAGE, SOUNDSTORM):
        run = run_of(name, 0)
        parts = [run.first, run.rest] if name == VALLE else [run.lm]
        shapes = [
            jax.eval_shape(lambda one=one: nnx.state(one.build(nnx.Rngs(0)), nnx.Param))
            for one in parts
        ]
        found[name] = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
    return found
