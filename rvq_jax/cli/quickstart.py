"""`rvq-jax quickstart`: the pattern study."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from rvq_jax.cli.terminal import command_line, say
from rvq_jax.codec.config import CodecConfig, tiny
from rvq_jax.study import StudyConfig
from rvq_jax.train.runs import CodecRun


@dataclass(frozen=True)
class StudyCodec(CodecRun):
    """Training the study's codec on random crops of audio."""

    codec: Annotated[CodecConfig, tyro.conf.arg(name="")] = field(default_factory=tiny)


@dataclass(frozen=True)
class Study(StudyConfig):
    """The study, as flags."""

    codec: StudyCodec = field(default_factory=lambda: StudyCodec(**vars(StudyConfig().codec)))


@dataclass(frozen=True)
class Quickstart:
    """The pattern study end to end: which interleaving pattern for this audio, at what cost?

    Builds a dataset, encodes it with the built-in codec (or one trained on it, --train-codec),
    trains one token model per pattern, scores, generates and writes report.html, results.json and
    results.md into the run folder, within 5 minutes on two cores. --seeds 0 1 2 is the full study.
    """

    data: Path | None = None
    """Folder of wav, flac, ogg or mp3 files, with an optional metadata.csv (columns file, caption,
    label, split). Default: the built-in corpus of synthesized music."""
    out: Path = Path("runs/quickstart")
    """Run folder. An interrupted study goes on from here."""
    config: Annotated[Study, tyro.conf.arg(name="")] = field(default_factory=Study)
    json: bool = False
    """Print results.json to standard output at the end."""

    def run(self) -> dict:
        from rvq_jax.study import study

        results = study(self.out, self.data, self.config, command_line())
        for row in sorted(results["patterns"], key=lambda row: row["bits_per_frame"]["mean"]):
            low, high = row["interval"]["low"], row["interval"]["high"]
            over = "" if low is None else f" ({low:.2f} to {high:.2f} over clips)"
            say(
                self.json,
                f"{row['pattern']:>16}  {row['steps']:5d} steps  "
                f"{row['bits_per_frame']['mean']:7.2f} bits per frame{over}  "
                f"real-time factor {row['real_time_factor']:.2f}",
            )
        say(self.json, f"report: {self.out / 'report.html'}")
        return results
