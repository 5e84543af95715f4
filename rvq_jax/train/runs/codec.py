"""Training a codec on random crops of audio."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from rvq_jax import config as configs
from rvq_jax.codec.config import CodecConfig, tiny
from rvq_jax.data import loader
from rvq_jax.errors import UserError
from rvq_jax.systems.codec import Codec
from rvq_jax.train import hosts
from rvq_jax.train.loop import LoopConfig, fit, open_run
from rvq_jax.train.runs.batches import batches_of, check_batch, one_device
from rvq_jax.train.state import OptimizerConfig
from rvq_jax.train.tasks.codec import CodecLossConfig, codec_task


@dataclass(frozen=True)
class CodecRun:
    """Training a codec on random crops of audio."""

    codec: CodecConfig = field(default_factory=tiny)
    loss: CodecLossConfig = field(default_factory=CodecLossConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=2e-3, weight_decay=0.0)
    )
    batch: int = 12  # crops per update, over all devices
    seconds: float = 0.5  # of a crop


def train_codec(
    folder: str | Path,
    source,
    run: CodecRun,
    mesh: Mesh | None = None,
    label: str = "codec",
    *,
    profile: int | None = None,
) -> Codec:
    """The codec of a run in `folder`, trained or resumed; its weights are the running means.

    source: records of audio (`rvq_jax.data.builder.open_split`). profile: updates to trace. Raises
    UserError if the folder holds a run of another config, or the corpus is too small to start the
    codebooks; see also `fit`.
    """
    folder = Path(folder)
    open_run(folder, configs.to_dict(run))
    samples = samples_of(run)
    if run.codec.channels < 1:
        raise UserError("codec.seanet.channels must be at least 1")
    mesh = one_device() if mesh is None else mesh
    check_batch(run, mesh)
    # Enough vectors for k-means of every level on vectors of its own (see quantize.start).
    vectors = run.batch * (samples // run.codec.hop)
    codebook_batches = -(-4 * run.codec.levels * run.codec.codebook_size // vectors)
    task = codec_task(run.codec, run.loss, codebook_batches)
    state = fit(
        folder,
        task,
        batches_of(source, loader.cut_audio(samples), run, mesh),
        run.loop,
        run.optimizer,
        mesh=mesh,
        names=lambda index: [source[int(i)]["name"] for i in index],
        label=label,
        dataset=source.describe(),
        profile=profile,
    )
    return Codec(run.codec, hosts.fetch(state.ema), hosts.fetch(state.aux.books))


def samples_of(run: CodecRun) -> int:
    """Samples of a crop: whole frames."""
    hop = run.codec.hop
    return max(1, int(np.ceil(run.seconds * run.codec.rate / hop))) * hop
