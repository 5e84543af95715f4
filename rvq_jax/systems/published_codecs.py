"""The files in which other projects published their codecs, as codecs of ours.

EnCodec's .th, audiocraft's compression_state_dict.bin, descript's .pth, moshi's safetensors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvq_jax import config as configs
from rvq_jax import limits
from rvq_jax.codec.dac import DACConfig
from rvq_jax.codec.mimi import MimiConfig
from rvq_jax.convert import folder, names, tensors, torch_file
from rvq_jax.errors import UserError, shown
from rvq_jax.systems import codec as codecs
from rvq_jax.systems import dac, encodec
from rvq_jax.systems.codec import Codec, Config

Tensors = dict[str, np.ndarray]


# By what --kind calls them: the new names of their tensors, and the published sizes.
KINDS: dict[str, tuple[Callable[[Tensors], Tensors], tuple[Callable[[], Config], ...]]] = {
    "encodec_24khz": (names.encodec, (encodec.encodec_24khz,)),
    "encodec_48khz": (names.encodec, (encodec.encodec_48khz,)),
    "encodec_32khz": (names.encodec, (encodec.encodec_32khz,)),
    "encodec_16khz": (names.encodec, (encodec.encodec_16khz,)),
    "mimi": (names.mimi, (MimiConfig,)),
    "dac": (
        names.dac,
        (dac.dac_44khz, dac.dac_24khz, dac.dac_16khz, dac.dac_44khz_16kbps),
    ),
}


@dataclass(frozen=True)
class Descript:
    """The sizes of a DAC in descript's words, with its defaults."""

    encoder_rates: tuple[int, ...]
    encoder_dim: int = 64
    latent_dim: int | None = None
    decoder_dim: int = 1536
    decoder_rates: tuple[int, ...] | None = None
    n_codebooks: int = 9
    codebook_size: int = 1024
    codebook_dim: int = 8
    sample_rate: int = 44_100


def load(path: str | Path, kind: str | None = None) -> Codec:
    """The codec of a published file; none of the file's code runs. See `of_file`."""
    return of_file(*read(path), path, kind)


def of_file(found: Tensors, beside: dict, path: str | Path, kind: str | None = None) -> Codec:
    """The codec of a file's tensors and of what lies beside them.

    A DAC's sizes are those that the file states, if it states them.

    Args:
      found: arrays by name.
      beside: all else in the file.
      path: where they are from, for errors.
      kind: one of `KINDS`; by default the one that the tensors fit.

    Returns:
      The codec.

    Raises:
      UserError: tensors that fit no kind, or not the given one.
    """
    if kind is not None and kind not in KINDS:
        raise UserError(f"--kind {shown(kind)} is not known; known: {', '.join(KINDS)}")
    stated = _stated(beside, path)
    if stated is not None and kind in (None, "dac"):
        return of_tensors(stated, names.dac(found), path)
    problems = {}
    for name in [kind] if kind else KINDS:
        renamed, sizes = KINDS[name][0](found), KINDS[name][1]
        for config in (make() for make in sizes):
            try:
                return of_tensors(config, renamed, path)
            except UserError as error:
                problems.setdefault(name, error)
    if kind:
        raise problems[kind]
    raise UserError(
        f"{path} fits no codec that is known ({', '.join(KINDS)}); say which it is with --kind to "
        "see what does not fit"
    )


def read(path: str | Path) -> tuple[Tensors, dict]:
    """The tensors of a published file by name, and what it holds beside them.

    Raises UserError if it is not there or cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not there; give a file of weights")
    if path.suffix == ".safetensors":
        return tensors.read(path), {}
    return torch_file.read_state(path)


def of_tensors(config: Config, found: Tensors, path: str | Path) -> Codec:
    """A codec of a config from tensors under transformers' names; UserError if they do not fit."""
    leaves = folder.from_tensors(config, found, path, codecs.leaf_shapes)
    return Codec.of_leaves(config, leaves)


def _stated(beside: dict, path: str | Path) -> DACConfig | None:
    """The sizes in the metadata of a file of descript's."""
    metadata = beside.get("metadata")
    said = metadata.get("kwargs") if isinstance(metadata, dict) else None
    if not isinstance(said, dict) or "encoder_rates" not in said:
        return None
    # Descript's names, and fields that only say how it was trained.
    said = {name: said[name] for name in limits.kinds(Descript) if name in said}
    where = f"{path}: metadata"
    f = configs.from_dict(Descript, said, where)
    ratios = f.encoder_rates
    config = configs.make(
        DACConfig,
        where,
        rate=f.sample_rate,
        ratios=ratios,
        filters=f.encoder_dim,
        decoder_filters=f.decoder_dim,
        dim=f.latent_dim or f.encoder_dim * 2 ** len(ratios),
        levels=f.n_codebooks,
        codebook_size=f.codebook_size,
        code_dim=f.codebook_dim,
    )
    limits.laid_out(lambda: codecs.leaf_shapes(config), where)
    mirrored = f.decoder_rates in (None, ratios[::-1])
    if not mirrored:
        raise UserError(f"{path}: decoder_rates must be encoder_rates reversed to be imported")
    return config
