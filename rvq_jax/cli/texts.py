"""What commands that make audio of texts share: the texts, the files they become, the model."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from rvq_jax import opening
from rvq_jax.errors import UserError

PIPE = "-"
Precision = Literal["float32", "bfloat16", "int8"]  # as of `lm.precision`, which reads JAX
LONGEST = 16 << 20  # bytes of a file of texts


def read_texts(given: tuple[str, ...], file: Path | None, flag: str, what: str) -> list[str]:
    """The texts of a command.

    Args:
      given: those of its flag.
      file: of one on each line that is not empty, - for standard input; None for none.
      flag: its name, to which a file's adds an s.
      what: a text is called.

    Returns:
      One or more texts.

    Raises:
      UserError: there are none, or they are no text.
    """
    if file is None:
        if not given:
            raise UserError(f"there is no {what}; give --{flag} or --{flag}s")
        found = [text.strip() for text in given]
    else:
        if given:
            raise UserError(f"give --{flag} or --{flag}s, not both")
        found = [line.strip() for line in _lines(file) if line.strip()]
        if not found:
            raise UserError(f"{_named(file)} has no {what}s; write one on each line")
    for i, text in enumerate(found):
        # Bytes of the command line that are no text arrive as halves of surrogate pairs.
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise UserError(f"{flag} {i} is not UTF-8 text; write it again")
    return found


def place_files(
    out: Path, count: int, single: bool, extension: str, json: bool, what: str
) -> list[Path]:
    """The file of each text.

    Args:
      out: what --out names.
      count: of texts.
      single: out is the file of the one text; else a folder.
      extension: of files in a folder.
      json: standard output is needed for something else.
      what: texts are called.

    Returns:
      Files, 0.wav, 1.wav, … in a folder.

    Raises:
      UserError: one that cannot be there.
    """
    from rvq_jax.audio import io
    from rvq_jax.offline import encode_file

    if json and str(out) == PIPE:
        raise UserError("--json and - as --out both need standard output; leave one away")
    if single:
        encode_file.check_target(out, io.WRITTEN)
        return [out]
    if str(out) == PIPE or out.is_file() or out.suffix.lower() in io.WRITTEN:
        raise UserError(f"several {what} need a folder, and {out} is none; name one with --out")
    width = len(str(count - 1))
    targets = [out / f"{i:0{width}d}.{extension}" for i in range(count)]
    for target in targets:
        encode_file.check_target(target, io.WRITTEN)
    return targets


def mesh_of(devices: int | None, fsdp: int, tensor: int):
    """A mesh of so many devices, None for one; raises UserError where there are not so many."""
    count = fsdp * tensor if devices is None else devices
    if count == 1 and fsdp * tensor == 1:
        return None
    import jax

    from rvq_jax.meshes import make_mesh

    if len(jax.devices()) < count:
        there = len(jax.devices())
        raise UserError(f"{count} devices are asked for, there are {there}; take fewer --devices")
    return make_mesh(fsdp=fsdp, tensor=tensor, devices=jax.devices()[:count])


def load_model(path: Path, codec: str | None, precision: Precision = "float32", mesh=None):
    """A model of texts with its codec, or one without with that of a folder.

    Args:
      path: of the model.
      codec: folder of a codec.
      precision: as of `MusicGen.load`.
      mesh: as of `MusicGen.load`.

    Returns:
      The model.

    Raises:
      UserError: what is not there, or does not fit.
    """
    from rvq_jax.systems.generators import load_generator
    from rvq_jax.train.codes import load_codec

    model = load_generator(path, precision=precision, mesh=mesh)
    if codec is not None and model.codec is not None:
        raise UserError(f"{path} has its codec: leave --codec away")
    if codec is not None:
        model = dataclasses.replace(model, codec=load_codec(codec))
        have, config = model.codec.config, model.config
        if have.codebook_size != config.codebook_size or config.levels % have.levels:
            raise UserError(
                f"{codec} has {have.levels} levels of {have.codebook_size} codes, {path} "
                f"{config.levels} of {config.codebook_size}: name the codec of the codes that it "
                "was trained on"
            )
    if model.codec is None:
        raise UserError(f"{path} holds a token model alone, with no codec: name it with --codec")
    return model


def longest(model, seconds: float) -> float:
    """So many seconds, or the model's window if that is shorter."""
    if model.config.window is None:
        return seconds
    return min(seconds, model.config.window / model.codec.config.frame_rate)


@contextlib.contextmanager
def refusals(model: Path) -> Iterator[None]:
    """Says what does not fit a model, or memory, in one line: UserError."""
    import jax

    try:
        yield
    except ValueError as error:
        raise UserError(f"{model}: {error}") from error
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError("out of memory; take fewer --seconds or a smaller --batch") from error


def _lines(path: Path) -> list[str]:
    from rvq_jax.offline import encode_file

    try:
        if str(path) == PIPE:
            data = encode_file.read_pipe(LONGEST)
        else:
            data = opening.read_bytes(path, LONGEST)
        # Lines end as in a text editor: splitlines() also splits at what a text can contain.
        return re.split("\r?\n", data.decode("utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path} is not there; check the name") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{_named(path)} is not UTF-8 text ({error}); convert it") from error


def _named(path: Path) -> str:
    return "standard input" if str(path) == PIPE else f"{path}"
