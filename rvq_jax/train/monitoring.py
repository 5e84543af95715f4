"""What is kept of a run while it trains, for people to look at."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rvq_jax import files
from rvq_jax.audio import io
from rvq_jax.errors import UserError
from rvq_jax.train.hosts import warn
from rvq_jax.train.trackers import Tracker
from rvq_jax.typing import Audio

SAMPLES = "samples"  # folder of a run
LABELS = "labels.json"  # in it: what each clip is, by its file's name
ORIGINAL = "original"  # folder of recordings, beside those of updates


@dataclass(frozen=True)
class Monitoring:
    """What is asked for beside the config; none of it changes what is trained."""

    profile: int | None = None  # updates to trace
    track: tuple[str, ...] = ()  # names of trackers, as `trackers.open_tracker` knows them
    listened: int = 0  # held-out clips decoded or generated at every evaluation
    workers: int = 0  # processes that make batches; 0: threads


NOTHING = Monitoring()


class Sample(NamedTuple):
    """A clip that a model decoded or generated."""

    label: str  # the recording's name, or the text that was given
    audio: Audio  # [S, C]
    rate: int
    original: Audio | None = None  # [S, C] of the recording that it should be


Sampler = Callable[[Any], Sequence[Sample]]  # of a run's state


def write_samples(
    folder: Path, step: int, samples: Sequence[Sample], trackers: Sequence[Tracker]
) -> None:
    """Keeps clips of an update in a run's folder, and shows them to trackers.

    Args:
      folder: of the run; gets samples/STEP/0.flac, … and samples/original/0.flac, ….
      step: of the update.
      samples: clips, in an order that is the same at every update.
      trackers: that are shown them too.
    """
    place = Path(folder) / SAMPLES
    try:
        for i, sample in enumerate(samples):
            io.write(place / f"{step:07d}" / f"{i}.flac", sample.audio, sample.rate)
            if sample.original is not None:
                io.write(place / ORIGINAL / f"{i}.flac", sample.original, sample.rate)
        files.write_json(place / LABELS, [sample.label for sample in samples])
    except (UserError, OSError) as error:
        warn(f"{error}; the run goes on without these clips")
    for tracker in trackers:
        for i, sample in enumerate(samples):
            with undisturbed(tracker):
                tracker.clip(step, f"{i}", sample)


@contextlib.contextmanager
def undisturbed(tracker: Tracker) -> Iterator[None]:
    """Inside, what goes wrong with a tracker is said once, and ends no run."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except Exception as error:
        if not tracker.failed:
            warn(f"{tracker.name}: {type(error).__name__}: {error}; the run goes on")
        tracker.failed = True
