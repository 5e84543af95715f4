"""`rvq-jax train`: what a config file describes."""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from rvq_jax.cli.terminal import parse, say
from rvq_jax.errors import UserError
from rvq_jax.train.joining import Hosts, join

if TYPE_CHECKING:
    from rvq_jax.train.runs import Run


@dataclass(frozen=True)
class Train:
    """Trains what a config file describes: a codec on a dataset, or a token model on codes.

    On many hosts, run it on each of them with --hosts.coordinator; docs/pods.md has the commands.
    SIGTERM saves and exits with code 75: start it again, and it goes on. Meanwhile it is evaluated
    on what the data hold out: the dataset's valid and test clips, or heldout.npz beside the codes.

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
    heard. Default: the codec of the model in --init-from."""
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
    json: bool = False
    """Print a machine-readable result."""
    overrides: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> dict:
        from rvq_jax.train import folders, hosts

        join(self.hosts)
        default = load_config(self.config)
        run = parse(type(default), list(self.overrides), f"train {self.config}", default)
        names = "fsdp", "tensor", "codec", "text", "profile"
        options = {name: getattr(self, name) for name in names}
        model = folders.train(run, self.data, self.out, **options)
        if not hosts.first():
            return None
        say(self.json, f"run: {self.out}")
        return {"run": str(self.out), "model": None if model is None else str(self.out / "model")}


def load_config(path: Path) -> "Run":
    """What get_config() of a Python file returns; raises UserError if it has none."""
    from rvq_jax.train.runs import Run

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
