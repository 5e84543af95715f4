"""What training, plan, the command line and exports ask of a kind of run."""

import abc
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
from jax.sharding import Mesh

from rvq_jax.lm.attention import Form
from rvq_jax.lm.precision import Precision
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.monitoring import NOTHING, Monitoring
from rvq_jax.train.runs.shapes import PROMPTS
from rvq_jax.train.state import OptimizerConfig, Task
from rvq_jax.typing import Remat


class Savable(Protocol):
    """What a run ends with."""

    def save(self, path: str | Path) -> None:
        """Writes a folder, whole or not at all."""


class Decoding(NamedTuple):
    """A program that a trained model will run on one chip, and the shapes it takes."""

    lowered: Any  # jax.stages.Lowered
    params: Any  # shapes of the parameters on the chip
    rows: int  # examples at a time
    steps: int  # that its loop runs
    frames: int  # of each example
    cache: int = 0  # bytes of keys and values of all steps and branches of guidance


class Run(abc.ABC):
    """A frozen dataclass of a run's config, and what depends on its kind.

    Subclasses have these fields beside their own.
    """

    loop: LoopConfig
    optimizer: OptimizerConfig
    batch: int  # examples per update, over all devices

    @abc.abstractmethod
    def task(self) -> Task:
        """What the loop trains, from random parameters.

        Raises UserError for a run that begins with those of a folder.
        """

    @abc.abstractmethod
    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a batch, as the loader makes it."""

    @abc.abstractmethod
    def train(
        self,
        folder: Path,
        data: Path,
        mesh: Mesh,
        *,
        codec: Path | None = None,
        text: Path | None = None,
        monitoring: Monitoring = NOTHING,
    ) -> Savable:
        """Trains from files, or goes on.

        Args:
          folder: of the run.
          data: the dataset or code cache.
          mesh: of devices.
          codec: folder of a codec to keep beside the model, for kinds that take one.
          text: folder of a frozen text encoder, for kinds that take one.
          monitoring: what is kept of the run for people to look at.

        Returns:
          The model.

        Raises:
          UserError: what does not fit.
        """

    def splits_over(self, tensor: int) -> bool:
        """Whether the model divides over so many devices of the mesh axis tensor."""
        return tensor == 1

    @property
    def remat(self) -> Remat | None:
        """What the backward pass recomputes; None for a kind that has no choice."""
        return None

    def computed(self, remat: Remat, attention: Form | None = None) -> "Run":
        """The same run with another choice of what is recomputed, and of attention if given."""
        return self

    def decoding(
        self, device, precision: Precision = "float32", prompts: int = PROMPTS
    ) -> Decoding | None:
        """Generation of crops on one device, of shapes alone.

        Args:
          device: that all is on.
          precision: of the parameters and the cache, as of `MusicGen.load`.
          prompts: crops at a time.

        Returns:
          The program; None for a kind without any.
        """
        return None
