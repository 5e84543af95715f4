"""What a run from files takes from its codes: their sizes, and the codec that made them."""

import dataclasses
from pathlib import Path

from rvq_jax import builtin
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.lm.masked_lm import MaskedLMConfig
from rvq_jax.lm.model import LMConfig
from rvq_jax.systems.codec import Codec
from rvq_jax.train.codes import load_codec
from rvq_jax.train.hosts import warn


def sized_as_codes(
    lm: LMConfig | MaskedLMConfig, codes: CodeSet, name: str = "lm", levels: bool = True
) -> LMConfig | MaskedLMConfig:
    """A token model's config with the codes' levels and codebook size; says what it changes.

    Args:
      lm: the config.
      codes: that it is to be trained on.
      name: of the config, for people.
      levels: whether it has all of their levels, and not a number of its own.

    Returns:
      The config.

    Raises:
      UserError: a config that cannot be of those sizes.
    """
    have = {"codebook_size": codes.codebook_size}
    have |= {"levels": len(codes.codes[0])} if levels else {}
    other = {field: size for field, size in have.items() if getattr(lm, field) != size}
    if not other:
        return lm
    said = ", ".join(f"{name}.{field} is {size}" for field, size in sorted(other.items()))
    try:
        made = dataclasses.replace(lm, **other)
    except ValueError as error:
        raise UserError(f"the codes' {said}: {error}") from None
    warn(f"{said}, as of the codes")
    return made


def codec_of(path: str | Path | None, codes: CodeSet) -> Codec | None:
    """The codec to keep beside a token model.

    Args:
      path: of its folder; None for the built-in one if the codes are its.
      codes: that the model is trained on.

    Returns:
      The codec; None where nobody knows which.

    Raises:
      UserError: a folder that holds none.
    """
    if path is not None:
        return load_codec(path)
    return load_codec(builtin.WORD) if codes.codec == builtin.FINGERPRINT else None
