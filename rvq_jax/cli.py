"""`rvq-jax …`: one function per command; tyro turns their dataclasses into help and flags."""

import contextlib
import dataclasses
import difflib
import importlib.util
import io
import json
import re
import shlex
import sys
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

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

        results = study(self.out, self.data, self.config, _command())
        for row in sorted(results["patterns"], key=lambda row: row["bits_per_frame"]["mean"]):
            bits = row["bits_per_frame"]
            _say(
                self.json,
                f"{row['pattern']:>16}  {row['steps']:5d} steps  "
                f"{bits['mean']:7.2f} ± {bits['std']:.2f} bits per frame  "
                f"real-time factor {row['real_time_factor']:.2f}",
            )
        _say(self.json, f"report: {self.out / 'report.html'}")
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
        _say(self.json, f"dataset: {path}")
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
        run = _parse(type(default), list(self.overrides), f"train {self.config}", default)
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
        _say(self.json, f"run: {self.out}")
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
        _say(self.json, f"audio: {self.out}")
        return {"audio": str(self.out), "seconds": audio.shape[1] / model.codec.config.rate}


COMMANDS = {"quickstart": Quickstart, "data build": Data, "train": Train, "generate": Generate}


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


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns 0 if it did what was asked, 2 for a mistake told in one line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(_overview())
            return 0
        words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
        name, rest = " ".join(arguments[:words]), arguments[words:]
        if name not in COMMANDS:
            raise UserError(f"unknown command {name!r}; {_nearest(name, COMMANDS)}")
        if name == "train" and rest and not rest[0].startswith("-") and {"-h", "--help"} & {*rest}:
            default = load_config(rest[0])
            _parse(type(default), ["--help"], f"{name} {rest[0]}", default)
        command = _parse(COMMANDS[name], rest, name)
        result = command.run()
        if command.json:
            print(json.dumps(result))
        return 0
    except UserError as error:
        print(f"rvq-jax: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rvq-jax: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parse(cls, arguments: list[str], name: str, default=tyro.MISSING_NONPROP):
    """A command's dataclass from its arguments; for `train`, the config's fields go along."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            parsed, unknown = tyro.cli(
                cls,
                args=arguments,
                default=default,
                prog=f"rvq-jax {name}",
                return_unknown_args=True,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        # A flag mistyped can leave its value where a folder should be: tell of the flag first.
        words = [word.split("=")[0] for word in arguments if word.startswith("--")]
        known = {flag.replace("_", "-") for flag in _flags(cls)}
        known |= {flag.replace("--", "--no-", 1) for flag in known}
        strange = [word for word in words if word.replace("_", "-") not in known]
        if strange and cls is not Train:
            raise _unknown(strange[0], cls) from None
        raise UserError(f"{name}: {_unboxed(box.getvalue())}") from None
    if cls is Train:
        return dataclasses.replace(parsed, overrides=tuple(unknown))
    for word in unknown:
        raise _unknown(word.split("=")[0], cls)
    return parsed


def _unknown(flag: str, cls) -> UserError:
    return UserError(f"unknown field {flag!r}; {_nearest(flag, _flags(cls))}")


def _unboxed(box: str) -> str:
    """What tyro says in a box of many lines, as one: the part above its help."""
    lines = [line.strip("│╭╮╰╯─ ") for line in box.splitlines()]
    text = " ".join(line for line in lines if line.strip("- "))
    return re.split(r" (?:Argument helptext|For full helptext)", text)[0]


def _flags(cls, prefix: str = "--") -> list[str]:
    """Every flag of a dataclass, nested fields joined by dots, as tyro spells them."""
    flags = []
    types = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        inner = types[item.name]
        if dataclasses.is_dataclass(inner):
            # The study's fields are given without a prefix of their own.
            own = "" if inner is StudyConfig else f"{item.name.replace('_', '-')}."
            flags += _flags(inner, prefix + own)
        else:
            flags.append(prefix + item.name.replace("_", "-"))
    return flags


def _nearest(word: str, known) -> str:
    near = difflib.get_close_matches(word.replace("_", "-"), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        f"  {name:<{width}}  {cls.__doc__.strip().splitlines()[0]}"
        for name, cls in COMMANDS.items()
    ]
    return "\n".join(
        [
            "usage: rvq-jax COMMAND [--help] …",
            "",
            *lines,
            "",
            "rvq-jax COMMAND --help teaches more.",
        ]
    )


def _say(quiet: bool, line: str) -> None:
    if not quiet:
        print(line)


def _command() -> str:
    return shlex.join(["rvq-jax", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
