"""Training a codec on random crops of audio."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from rvq_jax import config as configs
from rvq_jax.audio.augment import Augmentation
from rvq_jax.codec.config import CodecConfig, tiny
from rvq_jax.codec.dac import DACConfig
from rvq_jax.codec.discriminators import DiscriminatorsConfig
from rvq_jax.codec.filterbank import FilterbankConfig
from rvq_jax.codec.mimi import MimiConfig
from rvq_jax.data import builder, loader
from rvq_jax.data.features import open_features
from rvq_jax.data.stored import Records
from rvq_jax.errors import UserError
from rvq_jax.systems import discriminators as judges
from rvq_jax.systems.codec import Codec
from rvq_jax.train import hosts
from rvq_jax.train.heldout import check_records
from rvq_jax.train.loop import LoopConfig, fit, open_run
from rvq_jax.train.monitoring import NOTHING, Monitoring, Sample
from rvq_jax.train.runs.batches import batches_of, check_batch, heldout_batches, one_device
from rvq_jax.train.runs.codec_checks import begun_with, check
from rvq_jax.train.runs.run import Run
from rvq_jax.train.sampling import decoded
from rvq_jax.train.state import OptimizerConfig, Task, TrainState
from rvq_jax.train.tasks.adversarial import AdversarialConfig
from rvq_jax.train.tasks.codec import DISCRIMINATORS, Recipe, codec_task, mean_codec
from rvq_jax.train.tasks.codec_losses import CodecLossConfig


@dataclass(frozen=True)
class CodecRun(Run):
    """Training a codec of EnCodec's kind on random crops of audio."""

    codec: CodecConfig = field(default_factory=tiny)
    loss: CodecLossConfig = field(default_factory=CodecLossConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=2e-3, weight_decay=0.0)
    )
    batch: int = 12  # crops per update, over all devices
    seconds: float = 0.5  # of a crop
    augmentation: Augmentation = field(default_factory=Augmentation)
    features: str | None = None  # folder of those that loss.distillation is of
    # Folder of a codec, with discriminators or without: what the run begins with. codec is then
    # its own.
    init_from: str | None = None
    trained: Literal["all", "decoder"] = "all"  # decoder: codes stay what they are

    @property
    def samples(self) -> int:
        """Of a crop: whole frames."""
        hop = self.codec.hop
        return max(1, int(np.ceil(self.seconds * self.codec.rate / hop))) * hop

    @property
    def codebook_batches(self) -> int:
        """Enough vectors for k-means of every level on vectors of its own (see quantize.start)."""
        vectors = max(1, self.batch * (self.samples // self.codec.hop))
        return -(-4 * self.codec.levels * self.codec.codebook_size // vectors)

    def recipe(self) -> Recipe:
        """What an update is."""
        names = ("loss", "adversarial", "optimizer", "trained", "augmentation")
        return Recipe(self.codec, **{name: getattr(self, name) for name in names})

    def task(self) -> Task:
        """As of `Run`."""
        if self.init_from is not None or self.trained != "all":
            raise UserError(
                "a plan reads no codec: set init_from to None and trained to all, and give codec "
                "its sizes"
            )
        return codec_task(self.recipe(), self.codebook_batches)

    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """As of `Run`."""
        rows = self.batch, self.samples
        shapes = {
            "index": jax.ShapeDtypeStruct(rows[:1], "int32"),
            "audio": jax.ShapeDtypeStruct((*rows, self.codec.channels), "float32"),
            "mask": jax.ShapeDtypeStruct(rows, "bool"),
        }
        if self.loss.distillation:
            frames = self.samples // self.codec.hop
            dims = self.recipe().features
            shapes["features"] = jax.ShapeDtypeStruct((self.batch, frames, dims), "float32")
        return shapes

    def train(
        self,
        folder: Path,
        data: Path,
        mesh: Mesh,
        *,
        codec: Path | None = None,
        text: Path | None = None,
        monitoring: Monitoring = NOTHING,
    ) -> "TrainedCodec":
        """As of `Run`; data: a dataset of `rvq-jax data build`, whose valid and test clips are
        held out."""
        source, heldout = builder.open_split(data, "train"), None
        if self.loop.evaluate_every != 0:
            try:
                heldout = builder.open_split(data, "heldout")
            except UserError as error:
                hosts.warn(f"{error}: nothing is held out")
        return fit_codec(folder, source, self, mesh, heldout=heldout, monitoring=monitoring)


@dataclass(frozen=True)
class DACRun(CodecRun):
    """Training a codec of DAC's kind."""

    codec: DACConfig = field(default_factory=lambda: DACConfig(norm="weight_norm"))


@dataclass(frozen=True)
class MimiRun(CodecRun):
    """Training a codec of Mimi's kind."""

    codec: MimiConfig = field(default_factory=MimiConfig)


@dataclass(frozen=True)
class FilterbankRun(CodecRun):
    """Training a codec of learned filterbanks."""

    codec: FilterbankConfig = field(default_factory=FilterbankConfig)


class TrainedCodec(NamedTuple):
    """A codec, and the discriminators that it was trained against."""

    codec: Codec
    config: DiscriminatorsConfig | None
    discriminators: nnx.State | None

    def save(self, path: str | Path) -> None:
        """Writes the codec's folder, with the discriminators in a folder inside of it."""
        self.codec.save(path)
        if self.discriminators is not None:
            judges.save(self.config, self.discriminators, path)


def train_codec(
    folder: str | Path, source: Records, run: CodecRun, mesh: Mesh | None = None
) -> Codec:
    """Trains a codec, or goes on, as `fit_codec`.

    Args:
      folder: of the run.
      source: records of audio.
      run: its config.
      mesh: of devices; the first one alone by default.

    Returns:
      The codec, without the discriminators.
    """
    return fit_codec(folder, source, run, mesh).codec


def fit_codec(
    folder: str | Path,
    source: Records,
    run: CodecRun,
    mesh: Mesh | None = None,
    *,
    heldout=None,
    monitoring: Monitoring = NOTHING,
) -> TrainedCodec:
    """Trains a codec, or goes on.

    Args:
      folder: of the run.
      source: records of audio (`rvq_jax.data.builder.open_split`).
      run: its config.
      mesh: of devices; the first one alone by default.
      heldout: records that it is evaluated on meanwhile; none for None.
      monitoring: what is kept for people to look at.

    Returns:
      The codec, whose weights are the running means and whose codewords fit them (see
      `codec_task`), and its discriminators.

    Raises:
      UserError: a folder that holds a run of another config, a folder to begin with that does not
        fit, a corpus too small to start the codebooks, held-out records that are trained on; see
        also `fit`.
    """
    folder = Path(folder)
    base, judging = None, None
    if run.init_from is not None:
        base = Codec.load(run.init_from)
        run, base = begun_with(run, base)
        if run.adversarial.on:
            judging = judges.load(run.init_from, run.adversarial.discriminators)
    check(run, source)
    mesh = one_device() if mesh is None else mesh
    check_batch(run, mesh)
    dataset, cut = source.describe(), loader.cut_audio(run.samples)
    recipe, cut_features = run.recipe(), cut
    if run.features is not None:
        features = open_features(run.features, source, run.codec.rate, run.codec.hop)
        cut_features = loader.cut_audio(run.samples, features)
        recipe = dataclasses.replace(recipe, features=features.size)
    if heldout is not None:
        check_records(source, heldout)
        dataset["heldout"] = heldout.describe()
    open_run(folder, configs.to_dict(run))

    def hear(state: TrainState) -> list[Sample]:
        return decoded(trained(run, state).codec, heldout, monitoring.listened)

    task = codec_task(recipe, run.codebook_batches, base, judging, run.loop.seed)
    state = fit(
        folder,
        task,
        batches_of(source, cut_features, run, mesh, monitoring.workers),
        run.loop,
        run.optimizer,
        mesh=mesh,
        names=lambda index: [source[int(i)]["name"] for i in index],
        label="codec",
        dataset=dataset,
        heldout=heldout_batches(heldout, cut, run, mesh),
        monitoring=monitoring,
        sample=None if heldout is None else hear,
    )
    return trained(run, state)


def trained(run: CodecRun, state: TrainState) -> TrainedCodec:
    """What a run has made, of its state."""
    codec = mean_codec(run.codec, hosts.fetch(state.ema), hosts.fetch(state.aux))
    judging = state.params.get(DISCRIMINATORS)
    judging = None if judging is None else hosts.fetch(judging)
    return TrainedCodec(codec, run.adversarial.discriminators, judging)
