"""Training from files into a run folder, as the command and as calls from Python."""

from pathlib import Path

from rvq_jax import files
from rvq_jax.data import builder
from rvq_jax.errors import UserError
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.train import hosts, sharding, trackers
from rvq_jax.train.codes import cached_codes, load_codec, sound_of
from rvq_jax.train.monitoring import NOTHING, Monitoring
from rvq_jax.train.runs import CodecRun, LMRun, Run
from rvq_jax.train.runs.run import Savable

PIECE = 10.0  # seconds of a record at most, as of `rvq-jax data build`


def train(
    run: Run,
    data: str | Path,
    out: str | Path,
    *,
    fsdp: int = 1,
    tensor: int = 1,
    codec: str | Path | None = None,
    text: str | Path | None = None,
    monitoring: Monitoring = NOTHING,
) -> Savable:
    """Trains what a config describes, or goes on, and writes the model into `out / "model"`.

    Args:
      run: the config.
      data: a dataset, or a code cache .npz.
      out: run folder.
      fsdp: devices that each parameter is split over.
      tensor: devices that heads, feed-forwards and vocabulary are split over.
      codec: folder of a codec to keep beside a token model.
      text: folder of a frozen text encoder.
      monitoring: what is kept of the run for people to look at.

    Returns:
      The model.

    Raises:
      UserError: what does not fit, or a place that cannot be written to.
    """
    out = Path(out)
    trackers.check(monitoring.track)
    if hosts.first():
        files.check_folder(out / "model")
    mesh = sharding.make_mesh(fsdp=fsdp, tensor=tensor)
    model = run.train(out, Path(data), mesh, codec=codec, text=text, monitoring=monitoring)
    if hosts.first():
        model.save(out / "model")
    hosts.together("saved")
    return model


def train_codec(audio: str | Path | None, out: str | Path, config: CodecRun | None = None) -> Codec:
    """Trains a codec, or goes on, as `rvq-jax train` does; its folder is `out / "model"`.

    Args:
      audio: folder of audio files, of which the dataset is made in `out / "dataset"`; or a dataset
        of `rvq-jax data build`; None for the built-in corpus.
      out: run folder.
      config: what is trained and how; `CodecRun()` for None.

    Returns:
      The codec.

    Raises:
      UserError: audio or a config that do not fit, or a run folder of another config.
    """
    run = CodecRun() if config is None else config
    dataset = _dataset(audio, out, run.codec.rate, run.codec.channels)
    return train(run, dataset, out).codec


def train_lm(
    codes: str | Path | None,
    out: str | Path,
    config: LMRun | None = None,
    *,
    codec: str | Path | None = None,
    text: str | Path | None = None,
) -> MusicGen:
    """Trains a token model, or goes on, as `rvq-jax train` does; its folder is `out / "model"`.

    Args:
      codes: code cache .npz of `rvq-jax data build`; or what `codec` shall encode first: a folder
        of audio, a dataset, or None for the built-in corpus.
      out: run folder.
      config: what is trained and how; `LMRun()` for None.
      codec: folder of the codec, or "builtin", which is kept beside the model. None: the built-in
        one if the codes are its, else none, and the model cannot be heard.
      text: folder of the frozen text encoder (T5) of a model with `lm.text_dim`.

    Returns:
      The model.

    Raises:
      UserError: codes or a config that do not fit, or a run folder of another config.
    """
    run = LMRun() if config is None else config
    if codes is None or Path(codes).is_dir():
        if codec is None:
            raise UserError(f"{codes or 'the built-in corpus'} is no code cache: name a codec")
        made = load_codec(codec)
        dataset = _dataset(codes, out, *sound_of(made, None, None))
        for split in ("heldout", "train"):
            codes = dataset / f"{split}.npz"
            cached_codes(codes, made, builder.open_split(dataset, split), split)
    return train(run, codes, out, codec=codec, text=text)


def _dataset(audio: str | Path | None, out: str | Path, rate: int, channels: int) -> Path:
    """The dataset that is given, or made of a folder of audio in the run's."""
    if audio is not None and (Path(audio) / builder.SOURCE).is_file():
        return Path(audio)
    return builder.build(audio, Path(out) / "dataset", rate, channels, piece=PIECE)
