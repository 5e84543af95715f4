"""Codecs at work: audio to codes and back, what a file is, other projects' formats."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rvq_jax import builtin
from rvq_jax.cli.terminal import say
from rvq_jax.errors import UserError, clipped, printable

PIPE = "-"
In = tyro.conf.arg(metavar="IN")
Out = tyro.conf.arg(metavar="OUT")
WIDE = 200  # characters of a value that is shown


@dataclass(frozen=True)
class Encode:
    """Encodes audio to .rvq files: one, every one of a folder, or standard input.

    Audio of any rate and number of channels is brought to the codec's. The file keeps the exact
    length and says which codec's it is; any prefix of its levels can be decoded.

    rvq-jax encode song.flac --codec builtin

    rvq-jax encode song.flac song.rvq --codec codecs/encodec_24khz --kbps 6
    """

    source: Annotated[Path, tyro.conf.Positional, In]
    """Audio file (wav, flac, ogg, mp3 …), a folder of them, or - for standard input. A file of a
    folder that cannot be read is left out, and named at the end, with exit code 2."""
    target: Annotated[Path | None, tyro.conf.Positional, Out] = None
    """File to write (.rvq), a folder if IN is one, or - for standard output. Default: beside IN,
    where no file is replaced."""
    codec: str | None = None
    """Codec folder: of `rvq-jax train` or `import`, or of transformers (EnCodec, DAC, Mimi); or
    builtin, the one that comes with rvq_jax, 16 kHz, 0.5 to 4 kbps. It is the default once it is as
    good as Opus at 6 kbps."""
    levels: int | None = None
    """Levels to keep, the first ones; fewer are a smaller file. Default: all."""
    kbps: float | None = None
    """Or the bandwidth: as many levels as fit into it."""
    entropy: bool = True
    """Code by frequency, which is slower and smaller; --no-entropy packs bits only."""
    strict: bool = False
    """Of a folder: read every file first, and write nothing if one cannot be read."""
    json: bool = False
    """Print a machine-readable result."""

    def run(self) -> dict:
        from rvq_jax.offline import encode_file, encode_folder

        name = self.codec or builtin.default()
        target = _target(self, ".rvq")
        codec = _load(name)
        options = {"levels": self.levels, "kbps": self.kbps, "entropy": self.entropy}
        if self.source.is_dir():
            options |= {"strict": self.strict, "replace": self.target is not None}
            done = encode_folder.encode_folder(codec, self.source, target, **options)
            say(self.json, f"{len(done)} files: {target}", _place(target))
            return {"files": [str(path) for path in done]}
        coded = encode_file.encode_file(codec, self.source, target, **options)
        seconds = coded.samples / codec.config.rate
        raw = codec.kbps(coded.codes.shape[1])
        said = f"{seconds:.2f} s, {coded.codes.shape[1]} levels, {raw:.2f} kbps of codes"
        result = {
            "file": str(target),
            "seconds": seconds,
            "samples": coded.samples,
            "levels": coded.codes.shape[1],
            "frames": coded.codes.shape[2],
            "kbps_raw": raw,
        }
        if str(target) != PIPE:
            result["bytes"] = target.stat().st_size
            said += f", {8 * result['bytes'] / seconds / 1000:.2f} kbps stored"
        say(self.json, f"{_name(target)}: {said}", _place(target))
        return result


@dataclass(frozen=True)
class Decode:
    """Decodes .rvq files to audio of exactly the length that was encoded.

    Reads also EnCodec's .ecdc (without its language model) and descript's .dac files, with the
    codec that made them. IN and OUT may be folders, or - for standard input and output.

    rvq-jax decode song.rvq

    rvq-jax decode song.rvq song.wav --codec codecs/encodec_24khz --levels 2
    """

    source: Annotated[Path, tyro.conf.Positional, In]
    """File of codes (.rvq, .ecdc, .dac), a folder of them, or - for .rvq on standard input."""
    target: Annotated[Path | None, tyro.conf.Positional, Out] = None
    """Audio file to write (.wav, .flac, .ogg), a folder if IN is one, or - for wav on standard
    output. Default: beside IN, where no file is replaced."""
    codec: str = builtin.WORD
    """Codec folder: the codec that encoded. Default: the one that comes with rvq_jax."""
    levels: int | None = None
    """Levels to decode, the first ones. Default: all that are there."""
    format: Literal["wav", "flac", "ogg"] = "wav"
    """Of the files of a folder, and of a file where no OUT is named."""
    strict: bool = False
    """Of a folder: read every file first, and write nothing if one cannot be read."""
    json: bool = False
    """Print a machine-readable result."""

    def run(self) -> dict:
        from rvq_jax.offline import encode_file, encode_folder

        target = _target(self, f".{self.format}")
        codec = _load(self.codec)
        if self.source.is_dir():
            options = {"levels": self.levels, "suffix": f".{self.format}", "strict": self.strict}
            options["replace"] = self.target is not None
            done = encode_folder.decode_folder(codec, self.source, target, **options)
            say(self.json, f"{len(done)} files: {target}", _place(target))
            return {"files": [str(path) for path in done]}
        samples, rate = encode_file.decode_file(codec, self.source, target, levels=self.levels)
        say(self.json, f"{_name(target)}: {samples / rate:.2f} s at {rate} Hz", _place(target))
        return {"file": str(target), "samples": samples, "rate": rate}


@dataclass(frozen=True)
class Info:
    """Tells what a file or a folder holds.

    Of a file of codes: the codec, its rate, length, levels, frames, and kbps as stored and before
    entropy coding. Of a codec or a token model: its kind, sizes and parameters. Of a run: its
    updates, loss and checkpoints. Of datasets, code caches (.npz), checkpoints and audio too.
    """

    path: Annotated[str, tyro.conf.Positional] = builtin.WORD
    """Of codes, audio, a codec, a token model, a run, a checkpoint or a dataset. Default: the codec
    that comes with rvq_jax."""
    json: bool = False
    """Print a machine-readable result."""

    def run(self) -> dict:
        from rvq_jax.offline import describe_folders

        found = describe_folders.anything(builtin.folder(self.path))
        width = max(map(len, found))
        for name, value in found.items():
            # A value of a file stays on its line.
            text = (
                f"{value:.2f}" if isinstance(value, float) else printable(clipped(f"{value}", WIDE))
            )
            say(self.json, f"{name.replace('_', ' '):<{width}}  {text}")
        return found


@dataclass(frozen=True)
class Import:
    """Turns another project's checkpoint into a model folder; no code of the file runs.

    Codecs: EnCodec's .th, audiocraft's compression_state_dict.bin, descript's .pth (of any sizes),
    moshi's Mimi in .safetensors. Token models: audiocraft's state_dict.bin (MusicGen, AudioGen,
    MAGNeT), with --codec and --text. The folder is in transformers' format wherever one exists.

    rvq-jax import weights_44khz_16kbps.pth --out codecs/dac_44khz_16kbps
    """

    file: Annotated[Path, tyro.conf.Positional]
    """The checkpoint."""
    out: Path
    """Model folder to write."""
    kind: str | None = None
    """Of a codec: encodec_24khz, encodec_48khz, encodec_32khz, encodec_16khz, mimi or dac.
    Default: the one that its tensors fit."""
    codec: Path | None = None
    """Of a token model, its codec: a folder, or a file as this command takes."""
    text: Path | None = None
    """Of a token model, its text encoder: a folder of transformers' T5."""
    json: bool = False
    """Print a machine-readable result."""

    def run(self) -> dict:
        from rvq_jax import files
        from rvq_jax.convert import audiocraft
        from rvq_jax.systems import from_audiocraft, magnet, published_codecs

        files.check_folder(self.out)
        found = published_codecs.read(self.file)
        if audiocraft.is_token_model(found[0]):
            if self.kind is not None:
                raise UserError(f"{self.file} is a token model; leave --kind away")
            model = from_audiocraft.of_file(*found, self.file, self.codec, self.text)
            model.save(self.out)
            levels = model.config.levels
            if isinstance(model, magnet.MAGNeT):
                say(self.json, f"{magnet.KIND}, {levels} levels: {self.out}")
                return {"model": str(self.out), "levels": levels}
            say(self.json, f"musicgen, {levels} levels by {model.pattern}: {self.out}")
            return {"model": str(self.out), "pattern": model.pattern, "levels": levels}
        for flag in ("codec", "text"):
            if getattr(self, flag) is not None:
                raise UserError(f"{self.file} is no token model; leave --{flag} away")
        codec = published_codecs.of_file(*found, self.file, self.kind)
        codec.save(self.out)
        name = codec.name
        say(self.json, f"{name}, {codec.config.levels} levels: {self.out}")
        return {"codec": str(self.out), "name": name, "levels": codec.config.levels}


@dataclass(frozen=True)
class Export:
    """Writes a codec, or a MusicGen, for other tools to read.

    transformers: a folder that AutoModel and AutoProcessor load, of an EnCodec, DAC, Mimi or a
    MusicGen with a T5 and a codec of EnCodec's kind; one without an LSTM gets one that adds
    nothing. stablehlo: a codec's encoder and decoder as compiled programs that need no rvq_jax.
    """

    model: Annotated[str, tyro.conf.Positional]
    """Folder of a codec or a MusicGen."""
    out: Path
    """Folder to write."""
    format: Literal["transformers", "stablehlo"] = "transformers"
    """What to write."""
    seconds: float = 10.0
    """Of the audio that the programs of stablehlo take whole."""
    batch: int = 1
    """Items that they take at a time."""
    json: bool = False
    """Print a machine-readable result."""

    def run(self) -> dict:
        from rvq_jax import files
        from rvq_jax.systems import exporting
        from rvq_jax.systems.musicgen import MusicGen

        files.check_folder(self.out)
        if self.format == "stablehlo":
            from rvq_jax.offline import stablehlo

            stablehlo.write(_load(self.model), self.out, self.seconds, self.batch)
        elif _holds_musicgen(self.model):
            exporting.musicgen(MusicGen.load(self.model), self.model).save(self.out)
        else:
            exporting.codec(_load(self.model), self.model).save(self.out)
        say(self.json, f"{self.format}: {self.out}")
        return {"format": self.format, "out": str(self.out)}


def _load(path: str):
    from rvq_jax.systems.codec import Codec

    return Codec.load(path)


def _holds_musicgen(path: str) -> bool:
    from rvq_jax import files
    from rvq_jax.train.codes import MUSICGENS

    fields = files.load_config(files.model_folder(builtin.folder(path)))
    return bool({f"{fields.get(name)}" for name in ("model", "model_type")} & MUSICGENS)


def _target(command: Encode | Decode, suffix: str) -> Path:
    """Where the result goes: if no place is named beside its source, and then over no file."""
    source = command.source
    target = command.target or (source if source.is_dir() else source.with_suffix(suffix))
    target = Path(PIPE) if str(source) == PIPE and command.target is None else target
    if command.json and str(target) == PIPE:
        raise UserError("--json and - as OUT both need standard output; leave one away")
    if str(source) != PIPE and not source.exists():
        raise UserError(f"{source} is not there; check the name")
    if str(target) == PIPE and source.is_dir():
        raise UserError(f"{source} is a folder, which - cannot take; name a folder as OUT")
    if command.target is None and not source.is_dir() and os.path.lexists(target):
        raise UserError(f"{target} is there already; name OUT to replace it")
    return target


def _place(target: Path):
    """Where messages go: standard output may be taken by the result."""
    return sys.stderr if str(target) == PIPE else sys.stdout


def _name(target: Path) -> str:
    return "standard output" if str(target) == PIPE else f"{target}"
