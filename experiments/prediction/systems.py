"""The systems that are compared: their sizes, and how each is trained."""

import dataclasses
import math
from pathlib import Path

import jax
from flax import nnx

from rvq_jax.lm.depth import DepthConfig
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.study.quickstart import SIX
from rvq_jax.systems.generators import Generator, load_generator
from rvq_jax.systems.semantic import SemanticModel
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import LMRun, MaskedRun, SemanticRun
from rvq_jax.train.runs.batches import one_device
from rvq_jax.train.runs.run import Run
from rvq_jax.train.state import OptimizerConfig

LEVELS, SIZE = 4, 1024
FRAMES = 60  # of a crop: 1.2 s
SEMANTIC, RATIO = 512, 2
RATES = 3e-3, 9e-3, 2.7e-2
DEPTH, MAGNET, SOUNDSTORM, STAGE = "depth", "magnet", "soundstorm", "semantic"
NETWORKS = (*SIX, DEPTH, MAGNET, STAGE, SOUNDSTORM)  # in an order that each finds what it needs

# 1.8 million weights of every system: a depth transformer's are taken from the feed-forwards over
# frames, the semantic model's from SoundStorm's.
SHAPE = {"dim": 128, "layers": 2, "mlp_dim": 512}
CODES = {"levels": LEVELS, "codebook_size": SIZE}
MODELS = {name: LMConfig(**CODES, **SHAPE) for name in SIX} | {
    DEPTH: LMConfig(**CODES, **SHAPE | {"mlp_dim": 384}, depth=DepthConfig(dim=64, mlp_dim=192)),
    MAGNET: MaskedLMConfig(
        **CODES, **SHAPE, block="transformer", masking="spans", span=3, context=5, text=True
    ),
    SOUNDSTORM: MaskedLMConfig(
        **CODES, **SHAPE | {"mlp_dim": 192}, semantic_size=SEMANTIC, semantic_ratio=RATIO
    ),
    STAGE: LMConfig(levels=1, codebook_size=SEMANTIC, dim=64, layers=2, mlp_dim=128, end=True),
}


def run_of(name: str, rate: float, seed: int, updates: int) -> Run:
    """The training of a network: all alike but for what it is."""
    shared = {
        "lm": MODELS[name],
        "loop": LoopConfig(steps=updates, checkpoint_every=300, evaluate_every=0, seed=seed),
        "optimizer": OptimizerConfig(learning_rate=rate, weight_decay=0.5),
        "frames": FRAMES,
    }
    if name in (MAGNET, SOUNDSTORM):
        return MaskedRun(**shared)
    if name == STAGE:
        return SemanticRun(**shared | {"frames": FRAMES // RATIO})
    return LMRun(**shared, pattern="parallel" if name == DEPTH else name)


def trained(
    folder: Path, data: Path, codec: Path, name: str, run: Run, stage: Path | None = None
) -> Generator | SemanticModel:
    """Trains a network, or reads what was trained before.

    Args:
      folder: of the run, whose `model` is kept.
      data: the code cache.
      codec: folder of the codec.
      name: of the network.
      run: its training.
      stage: folder of the semantic model that a SoundStorm is kept with.

    Returns:
      The trained model.
    """
    place = folder / "model"
    load = SemanticModel.load if name == STAGE else load_generator
    if place.exists():
        return load(place)
    if name == SOUNDSTORM:
        run = dataclasses.replace(run, semantic=str(stage))
    model = run.train(folder, data, one_device(), codec=None if name == STAGE else codec)
    model.save(place)
    return model


def parameters(name: str) -> int:
    """How many weights a network has."""
    build = MODELS[name].build
    params = jax.eval_shape(lambda: nnx.state(build(nnx.Rngs(0)), nnx.Param))
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))
