"""From audio to token models: the study, datasets, training, generation."""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from rvq_jax.cli.terminal import command_line, parse, say
from rvq_jax.errors import UserError
from rvq_jax.study import StudyConfig
from rvq_jax.train.runs import CodecRun, LMRun


@dataclass(frozen=True)
class Quickstart:
    """The pattern study end to end: which interleaving pattern for this audio, at what cost?

    Builds a dataset, trains a small codec, encodes, trains one token model per pattern, scores,
    generates and writes report.html, results.json and results.md into the run folder.
    """

    data: Path | None = None
    """Folder of wav, flac, ogg or mp3 files, with an optional metadata.csv (columns file, caption,
    label, split). Default: the built-in corpus of synthesized music."""
    out: Path = Path("runs/quickstart")
    """Run folder. An interrupted study goes on from here."""
    config: Annotated[StudyConfig, tyro.conf.arg(name="")] = field(default_factory=StudyConfig)
    json: bool = False
    """Print results.json to standard output at the end."""

    def run(self) -> dict:
        from rvq_jax.study import study

        results = study(self.out, self.data, self.config, command_line())
        for row in sorted(results["patterns"], key=lambda row: row["bits_per_frame"]["mean"]):
            bits = row["bits_per_frame"]
            say(
                self.json,
                f"{row['pattern']:>16}  {row['steps']:5d} steps  "
                f"{bits['mean']:7.2f} ± {bits['std']:.2f} bits per frame  "
                f"real-time factor {row['real_time_factor']:.2f}",
            )
        say(self.json, f"report: {self.out / 'report.html'}")
        return results


@dataclass(frozen=True)
class Data:
    """Builds a dataset: audio files (+ metadata.csv) → ArrayRecord, resampled and mixed."""

    folder: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of audio; none for the built-in corpus."""
    out: Path = Path("runs/dataset")
    """Where the dataset goes."""
    rate: int = 16_000
    """Samples per second of the dataset; files of other rates are resampled."""
    channels: int = 1
    """Channels of the dataset; files of other counts are mixed."""
    json: bool = False
    """Print a machine-readable result."""

    def run(self) -> dict:
        from rvq_jax.data import builder

        path = builder.build(self.folder, self.out, self.rate, self.channels)
        say(self.json, f"dataset: {path}")
        return {"dataset": str(path)}


@dataclass(frozen=True)
class Train:
    """Trains what a config file describes: a codec on a dataset, or a token model on codes.

    Fields of the config follow as flags, for example --loop.steps 1000; --help after the config
    lists them. A run that was interrupted goes on where it was.
    """

    config: Annotated[Path, tyro.conf.Positional]
    """Python file with get_config(), as in configs/."""
    data: Path
    """A dataset that `rvq-jax data build` made (codec), or a code cache .npz (token model)."""
    out: Path
    """Run folder."""
    codec: Path | None = None
    """Codec folder to save beside a token model, so that `rvq-jax generate` can be heard."""
    json: bool = False
    """Print a machine-readable result."""
    overrides: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> dict:
        from rvq_jax.data import builder
        from rvq_jax.data.codes import CodeSet
        from rvq_jax.systems.codec import Codec
        from rvq_jax.systems.musicgen import MusicGen
        from rvq_jax.train import runs, sharding

        default = load_config(self.config)
        run = parse(type(default), list(self.overrides), f"train {self.config}", default)
        mesh = sharding.make_mesh()
        if isinstance(run, CodecRun):
            source = builder.open_split(self.data, "train")
            model = runs.train_codec(self.out, source, run, mesh)
        else:
            codec = None if self.codec is None else Codec.load(self.codec)
            params = runs.train_lm(self.out, CodeSet.load(self.data), run, mesh)
            model = codec and MusicGen(run.lm, run.pattern, params, codec)
        if model is not None:
            model.save(self.out / "model")
        say(self.json, f"run: {self.out}")
        return {"run": str(self.out), "model": model and str(self.out / "model")}


@dataclass(frozen=True)
class Generate:
    """Generates audio for a caption with a trained model."""

    model: Path
    """Model folder."""
    prompt: str
    """Caption, such as "a slow warm pad in D minor, 80 bpm"."""
    out: Path
    """Audio file to write (.wav, .flac, .ogg)."""
    seconds: float = 2.5
    """Length. Models are best at the length they were trained at."""
    guidance: float = 3.0
    """Weight of classifier-free guidance, 1 for none."""
    temperature: float = 1.0
    """Of sampling; 0 takes the most likely code."""
    top_k: int = 250
    """Most likely codes to draw from; 0 for all."""
    seed: int = 0
    """Of the random draw: the same seed gives the same audio."""
    json: bool = False
    """Print a machine-readable result."""

    def run(self) -> dict:
        import jax
        import numpy as np

        from rvq_jax.audio import io
        from rvq_jax.systems.musicgen import MusicGen

        model = MusicGen.load(self.model)
        audio = model.generate(
            [self.prompt],
            self.seconds,
            jax.random.key(self.seed),
            guidance=self.guidance,
            temperature=self.temperature,
            top_k=self.top_k,
        )
        io.write(self.out, np.asarray(audio[0]), model.codec.config.rate)
        say(self.json, f"audio: {self.out}")
        return {"audio": str(self.out), "seconds": audio.shape[1] / model.codec.config.rate}


def load_config(path: Path) -> CodecRun | LMRun:
    """What get_config() of a Python file returns; raises UserError if it has none."""
    if not Path(path).is_file():
        raise UserError(f"config {path} is not there; configs/ has examples")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except Exception as error:
        raise UserError(f"config {path}: {type(error).__name__}: {error}") from error
    if not isinstance(config, CodecRun | LMRun):
        raise UserError(f"config {path}: get_config() must return a CodecRun or an LMRun")
    return config
