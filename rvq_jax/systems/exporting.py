"""Models in a form that transformers reads; what has no place there is said by its field's name."""

import dataclasses

from rvq_jax.codec.config import CodecConfig
from rvq_jax.convert import folder
from rvq_jax.errors import UserError
from rvq_jax.systems import encodec
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.musicgen import folder as musicgen_folder


def codec(made: Codec, where: str) -> Codec:
    """A codec in transformers' form: one without an LSTM gets one that adds nothing.

    Args:
      made: the codec.
      where: its folder, for errors.

    Returns:
      A codec of the same codes and audio, which `save` writes in transformers' format.

    Raises:
      UserError: a field of its config that transformers' format has no place for.
    """
    found = _with_lstm(made)
    if reason := folder.beyond(found.config):
        raise UserError(
            f"{where}: {reason}; train one of those, or export it as --format stablehlo"
        )
    return found


def musicgen(made: MusicGen, where: str) -> MusicGen:
    """A MusicGen in transformers' form, its codec as `codec` gives it.

    Args:
      made: the model.
      where: its folder, for errors.

    Returns:
      A model that makes the same, which `save` writes in transformers' format.

    Raises:
      UserError: a field of its config, or of its codec's, that transformers' format has no place
        for.
    """
    found = made
    if made.codec is not None:
        found = dataclasses.replace(made, codec=_with_lstm(made.codec))
    reason = musicgen_folder.beyond(found.config, found.pattern, found.codec, found.text)
    if reason:
        raise UserError(f"{where}: {reason}; train one of those: this one only rvq_jax reads")
    return found


def _with_lstm(made: Codec) -> Codec:
    lacks = isinstance(made.config, CodecConfig) and not made.config.seanet.lstm_layers
    return encodec.with_lstm(made) if lacks else made
