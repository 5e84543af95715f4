"""`rvq-jax train`: what a config file describes."""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from rvq_jax.cli.terminal import parse, say
from rvq_jax.errors import UserError
from rvq_jax.train.joining import Hosts, join

if TYPE_CHECKING:
    from rvq_jax.train.runs import Run


@dataclass(frozen=True)
class Train:
    """Trains what a config file describes: a codec on a dataset, or a token model on codes.

    On many hosts, run it on each of them with --hosts.coordinator; docs/how_to/pods.md has
    the commands.
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
    """Where the log and the clips are shown while it trains, beside metrics.jsonl: tensorboard (its
    files are in the run's folder), wandb, trackio."""
    listened: int = 0
    """Held-out clips that are decoded or generated at every evaluation, and kept in the run's
    samples folder; `rvq-jax compare` plays them."""
    workers: int = 0
    """Processes of this host that make batches, where the log's data_wait says that updates wait
    for data; 0 for threads. The run is the same to the bit, and goes on with any other number."""
    json: bool = False
    """Print a machine-readable result."""
    overrides: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> dict:
        from rvq_jax.train import folders, hosts
        from rvq_jax.train.monitoring import Monitoring

        join(self.hosts)
        default = load_config(self.config)
        run = parse(type(default), list(self.overrides), f"train {self.config}", default)
        check_sizes([(run, self.overrides)], self.data)
        options = {name: getattr(self, name) for name in ("fsdp", "tensor", "codec", "text")}
        options["monitoring"] = Monitoring(self.profile, self.track, self.listened, self.workers)
        folders.train(run, self.data, self.out, **options)
        if not hosts.first():
            return None
        say(self.json, f"run: {self.out}")
        return {"run": str(self.out), "model": str(self.out / "model")}


def load_config(path: Path) -> "Run":
    """What get_config() of a Python file returns; raises UserError if it has none."""
    from rvq_jax.train.runs import Run

    if not Path(path).is_file():
        raise UserError(f"config {path} is not there; configs/ of a clone has examples")
    spec = importlib.util.spec_from_file_location(f"config {Path(path).stem}", path)
    module = importlib.util.module_from_spec(spec)
    # Where tyro looks for the comments of a Run that the file itself defines.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except (Exception, SystemExit) as error:
        raise UserError(f"config {path}: {type(error).__name__}: {error}") from error
    if not isinstance(config, Run):
        raise UserError(f"config {path}: get_config() must return a Run, as CodecRun or LMRun is")
    return config


def check_sizes(given: Sequence[tuple["Run", Sequence[str]]], data: Path) -> None:
    """Raises UserError for sizes that someone asked for by a flag and the codes do not have.

    Args:
      given: runs, each as its flags made it, and the flags.
      data: of their codes.
    """
    asked = {(i, *found) for i, (_, words) in enumerate(given) for found in _sizes(words)}
    if not asked:
        return
    from rvq_jax.data.codes import CodeSet
    from rvq_jax.train.runs import SemanticRun
    from rvq_jax.train.runs.semantic import semantic_set

    codes = CodeSet.load(data)
    for i, part, size in sorted(asked):
        run = given[i][0]
        own = semantic_set(codes) if isinstance(run, SemanticRun) else codes
        have = {"levels": len(own.codes[0]), "codebook_size": own.codebook_size}[size]
        stated = getattr(getattr(run, part), size)
        if stated != have:
            flag = f"--{part}.{size.replace('_', '-')}"
            raise UserError(f"{flag} is {stated}, the codes have {have}: leave it away")


def _sizes(words: Sequence[str]) -> list[tuple[str, str]]:
    """Parts and fields of flags that give a token model's sizes."""
    flags = [word.partition("=")[0].replace("-", "_") for word in words if word.startswith("--")]
    pairs = [flag.removeprefix("__").rpartition(".")[::2] for flag in flags]
    # VALL-E's first stage has one level, whatever the codes have.
    known = {(part, "codebook_size") for part in ("lm", "first", "rest")}
    return [pair for pair in pairs if pair in known | {("lm", "levels"), ("rest", "levels")}]
