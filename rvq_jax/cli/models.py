"""From audio to token models: the study, datasets, training."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rvq_jax import files
from rvq_jax.cli.terminal import command_line, parse, say
from rvq_jax.codec.config import CodecConfig, tiny
from rvq_jax.errors import UserError
from rvq_jax.study import StudyConfig
from rvq_jax.train.hosts import Hosts
from rvq_jax.train.runs import CodecRun, Run


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


@dataclass(frozen=True)
class Data:
    """Builds a dataset: audio files (+ metadata.csv) → ArrayRecord, resampled and mixed.

    With --codes it is also encoded, once: token models train on train.npz, and are evaluated on
    heldout.npz, the valid and test clips.
    """

    folder: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of audio; none for the built-in corpus. A file of it that cannot be used is left out,
    and named at the end, with exit code 2."""
    out: Path = Path("runs/dataset")
    """Where the dataset goes."""
    rate: int | None = None
    """Samples per second of the dataset; files of other rates are resampled. Default: 16000, or
    the codec's."""
    channels: int | None = None
    """Channels of the dataset; files of other counts are mixed. Default: 1, or the codec's. Two
    with a codec of one are encoded apart, as stereo MusicGen has them."""
    piece: float = 10.0
    """Seconds; longer files are stored in pieces of this length, and so are codes: no crop that
    is trained on can be longer."""
    codes: str | None = None
    """Folder of a codec, or of a MusicGen for its codec, to encode the dataset with; builtin for
    the codec that comes with rvq_jax."""
    melody: int | None = None
    """Pitch classes to keep the melody in beside the codes, 12 for MusicGen-melody. Default: none
    is kept."""
    semantic: str | None = None
    """Semantic tokens to keep beside the codes, for SoundStorm: kmeans for clusters of log-mel
    frames, fitted on train; or a folder of `<record name>.npy` with a semantic.json of their size
    and frame_rate. Default: none are kept."""
    semantic_size: int = 512
    """How many of kmeans there are."""
    semantic_rate: float = 25.0
    """How many of kmeans a second has; the codec's frame rate is a multiple of it."""
    strict: bool = False
    """Look at every file first, and write nothing if one cannot be used."""
    json: bool = False
    """Print a machine-readable result."""

    def run(self) -> dict:
        from rvq_jax.data import builder
        from rvq_jax.train import codes

        files.check_folder(self.out, ours=("*", "*/"))
        if self.codes is None and self.semantic is not None:
            raise UserError("semantic tokens are kept beside codes; give a codec with --codes")
        codec = None if self.codes is None else codes.load_codec(self.codes)
        rate, channels = self.rate or 16_000, self.channels or 1
        if codec is not None:
            rate, channels = codes.sound_of(codec, self.rate, self.channels)
        settings = {"piece": self.piece, "strict": self.strict}
        path = builder.build(self.folder, self.out, rate, channels, **settings)
        result: dict = {"dataset": str(path)}
        say(self.json, f"dataset: {path}")
        semantic = None if self.semantic is None else self._semantic(path, codec)
        for split in ("train", "heldout") if codec is not None else ():
            cache = path / f"{split}.npz"
            records = builder.open_split(path, split)
            made = codes.cached_codes(cache, codec, records, split, self.melody, semantic)
            minutes = sum(x.shape[1] for x in made.codes) / made.frame_rate / 60
            result[split] = {"codes": str(cache), "records": len(made), "minutes": minutes}
            say(self.json, f"codes: {cache}, {len(made)} records, {minutes:.1f} minutes")
        if self.folder is not None and (left := builder.left_out(path)):
            raise left
        return result

    def _semantic(self, path: Path, codec):
        """What gives semantic tokens; k-means is fitted if it was not."""
        from rvq_jax.data import builder
        from rvq_jax.data.semantic import open_tokens
        from rvq_jax.systems.semantic_tokenizer import cached_tokenizer
        from rvq_jax.train import codes

        if self.semantic != "kmeans":
            return open_tokens(self.semantic)
        codes.frames_of_token(codec, self.semantic_rate)
        size, rate = self.semantic_size, self.semantic_rate
        tokenizer = cached_tokenizer(
            path / "semantic.npz", builder.open_split(path, "train"), size, rate
        )
        say(self.json, f"semantic tokens: {size} of log-mel frames, {rate:g} a second")
        return tokenizer


@dataclass(frozen=True)
class Train:
    """Trains what a config file describes: a codec on a dataset, or a token model on codes.

    On many hosts, run it on each of them with --hosts.coordinator; docs/pods.md has the commands.
    SIGTERM saves and exits with code 75, Ctrl-C with 130: start it again, and it goes on. Meanwhile
    it is evaluated on what the data hold out: the dataset's valid and test clips, or heldout.npz
    beside the codes.

    Fields of the config follow as flags, for example --loop.steps 1000, or --init-from FOLDER to
    fine-tune a model; --help after the config lists them. A run that was interrupted goes on where
    it was; one at a constant rate (--optimizer.schedule) can also be given more --loop.steps.
    """

    config: Annotated[Path, tyro.conf.Positional]
    """Python file with get_config(), as in configs/."""
    data: Path
    """A dataset that `rvq-jax data build` made (codec), or a code cache .npz (token model)."""
    out: Path
    """Run folder."""
    codec: str | None = None
    """Codec folder, or builtin, to save beside a token model, so that `rvq-jax generate` can be
    heard. Default: the codec of the model in --init-from, or the built-in one if the codes are
    its."""
    text: Path | None = None
    """Folder of the frozen text encoder (T5) of a model with lm.text-dim. Default: that of the
    model in --init-from."""
    fsdp: int = 1
    """Devices that each parameter is split over; they share the batch too."""
    tensor: int = 1
    """Devices that heads, feed-forwards and vocabulary are split over."""
    hosts: Hosts = field(default_factory=Hosts)
    profile: int | None = None
    """Updates to trace into the run's profile folder, once all is compiled."""
    track: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Where the log and the samples are shown while it trains, beside metrics.jsonl: tensorboard
    (its files are in the run's folder), wandb, trackio."""
    listened: int = 0
    """Held-out clips that are decoded or generated at every evaluation, and kept in the run's
    samples folder; `rvq-jax compare` plays them."""
    json: bool = False
    """Print a machine-readable result."""
    overrides: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> dict:
        from rvq_jax.train import hosts, sharding
        from rvq_jax.train.monitoring import Monitoring

        hosts.join(self.hosts)
        default = load_config(self.config)
        run = parse(type(default), list(self.overrides), f"train {self.config}", default)
        check_sizes(run, self.overrides, self.data)
        if hosts.first():
            files.check_folder(self.out / "model")
        mesh = sharding.make_mesh(fsdp=self.fsdp, tensor=self.tensor)
        given = {"codec": self.codec, "text": self.text}
        monitoring = Monitoring(self.profile, self.track, self.listened)
        model = run.train(self.out, self.data, mesh, monitoring=monitoring, **given)
        if hosts.first():
            model.save(self.out / "model")
        hosts.together("saved")
        if not hosts.first():
            return None
        say(self.json, f"run: {self.out}")
        return {"run": str(self.out), "model": str(self.out / "model")}


def load_config(path: Path) -> Run:
    """What get_config() of a Python file returns; raises UserError if it has none."""
    if not Path(path).is_file():
        raise UserError(f"config {path} is not there; configs/ has examples")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except (Exception, SystemExit) as error:
        raise UserError(f"config {path}: {type(error).__name__}: {error}") from error
    if not isinstance(config, Run):
        raise UserError(f"config {path}: get_config() must return a Run, as CodecRun or LMRun is")
    return config


def check_sizes(run: Run, words: Sequence[str], data: Path) -> None:
    """Raises UserError for sizes that someone asked for by a flag and the codes do not have.

    Args:
      run: as the flags made it.
      words: the flags.
      data: of its codes.
    """
    from rvq_jax.data.codes import CodeSet
    from rvq_jax.train.runs import SemanticRun
    from rvq_jax.train.runs.semantic import semantic_set

    flags = [word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")]
    for flag in flags:
        part, _, field = flag.removeprefix("--").rpartition(".")
        if part not in ("lm", "first", "rest") or field not in ("levels", "codebook-size"):
            continue
        codes, field = CodeSet.load(data), field.replace("-", "_")
        codes = semantic_set(codes) if isinstance(run, SemanticRun) else codes
        have = {"levels": len(codes.codes[0]), "codebook_size": codes.codebook_size}[field]
        asked = getattr(getattr(run, part), field)
        if asked != have and (part, field) != ("first", "levels"):
            raise UserError(f"{flag} is {asked}, the codes have {have}: leave it away")
