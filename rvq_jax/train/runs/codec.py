"""Training a codec on random crops of audio."""

from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from rvq_jax import config as configs
from rvq_jax.codec.config import CodecConfig, tiny
from rvq_jax.data import builder, loader
from rvq_jax.errors import UserError
from rvq_jax.systems.codec import Codec
from rvq_jax.train import hosts
from rvq_jax.train.heldout import check_records
from rvq_jax.train.loop import LoopConfig, fit, open_run
from rvq_jax.train.runs.batches import batches_of, check_batch, heldout_batches, one_device
from rvq_jax.train.runs.run import Run
from rvq_jax.train.state import OptimizerConfig, Task
from rvq_jax.train.tasks.codec import CodecLossConfig, codec_task


@dataclass(frozen=True)
class CodecRun(Run):
    """Training a codec on random crops of audio."""

    codec: CodecConfig = field(default_factory=tiny)
    loss: CodecLossConfig = field(default_factory=CodecLossConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=2e-3, weight_decay=0.0)
    )
    batch: int = 12  # crops per update, over all devices
    seconds: float = 0.5  # of a crop

    @property
    def samples(self) -> int:
        """Of a crop: whole frames."""
        hop = self.codec.hop
        return max(1, int(np.ceil(self.seconds * self.codec.rate / hop))) * hop

    def task(self) -> Task:
        """As of `Run`."""
        # Enough vectors for k-means of every level on vectors of its own (see quantize.start).
        vectors = max(1, self.batch * (self.samples // self.codec.hop))
        codebook_batches = -(-4 * self.codec.levels * self.codec.codebook_size // vectors)
        return codec_task(self.codec, self.loss, codebook_batches)

    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """As of `Run`."""
        rows = self.batch, self.samples
        return {
            "index": jax.ShapeDtypeStruct(rows[:1], "int32"),
            "audio": jax.ShapeDtypeStruct((*rows, self.codec.channels), "float32"),
            "mask": jax.ShapeDtypeStruct(rows, "bool"),
        }

    def train(
        self,
        folder: Path,
        data: Path,
        mesh: Mesh,
        *,
        codec: Path | None = None,
        text: Path | None = None,
        profile: int | None = None,
    ) -> Codec:
        """As of `Run`; data: a dataset of `rvq-jax data build`, whose valid and test clips are
        held out."""
        source, heldout = builder.open_split(data, "train"), None
        if self.loop.evaluate_every != 0:
            try:
                heldout = builder.open_split(data, "heldout")
            except UserError as error:
                hosts.warn(f"{error}: nothing is held out")
        return train_codec(folder, source, self, mesh, heldout=heldout, profile=profile)


def train_codec(
    folder: str | Path,
    source,
    run: CodecRun,
    mesh: Mesh | None = None,
    label: str = "codec",
    *,
    heldout=None,
    profile: int | None = None,
) -> Codec:
    """Trains a codec, or goes on.

    Args:
      folder: of the run.
      source: records of audio (`rvq_jax.data.builder.open_split`).
      run: its config.
      mesh: of devices; the first one alone by default.
      label: of the progress bar.
      heldout: records that it is evaluated on meanwhile; none for None.
      profile: updates to trace; none for None.

    Returns:
      The codec, whose weights are the running means.

    Raises:
      UserError: a folder that holds a run of another config, a corpus too small to start the
        codebooks, held-out records that are trained on; see also `fit`.
    """
    folder = Path(folder)
    open_run(folder, configs.to_dict(run))
    if run.codec.channels < 1:
        raise UserError("codec.seanet.channels must be at least 1")
    mesh = one_device() if mesh is None else mesh
    check_batch(run, mesh)
    dataset, cut = source.describe(), loader.cut_audio(run.samples)
    if heldout is not None:
        check_records(source, heldout)
        dataset["heldout"] = heldout.describe()
    state = fit(
        folder,
        run.task(),
        batches_of(source, cut, run, mesh),
        run.loop,
        run.optimizer,
        mesh=mesh,
        names=lambda index: [source[int(i)]["name"] for i in index],
        label=label,
        dataset=dataset,
        heldout=heldout_batches(heldout, cut, run, mesh),
        profile=profile,
    )
    return Codec(run.codec, hosts.fetch(state.ema), hosts.fetch(state.aux.books))
