"""Whether a codec's run, its data and the codec that it begins with go together."""

import dataclasses

from rvq_jax import config as configs
from rvq_jax.codec.autoencoder import split_params
from rvq_jax.codec.dac import DACConfig
from rvq_jax.errors import UserError
from rvq_jax.systems.codec import Codec
from rvq_jax.train.tasks.codec_losses import output_weights


def begun_with(run, codec: Codec) -> tuple:
    """A run with the sizes of the codec that it begins with, and the codec as it is trained.

    Published DACs have their weight norm folded in: their kernels are split again, unless the run's
    codec has none.

    Raises UserError for a codec of another kind, and for a field that was set to something else.
    """
    config, asked = codec.config, run.codec
    kinds = isinstance(config, DACConfig), isinstance(asked, DACConfig)
    if all(kinds) and (config.norm, asked.norm) == ("none", "weight_norm"):
        params = split_params(config, codec.params)
        config = dataclasses.replace(config, norm="weight_norm")
        codec = Codec(config, params, codec.quantizer)
    if type(config) is not type(asked):
        kinds = [type(x).__name__.removesuffix("Config") for x in (config, run.codec)]
        raise UserError(
            f"{run.init_from} holds a {kinds[0]}, the config trains a {kinds[1]}; take a config "
            "of its kind"
        )
    default = type(run)().codec
    asked, unset, there = (configs.to_dict(x) for x in (run.codec, default, config))
    for line in configs.differences(there, asked):
        name = line.partition(":")[0]
        if _field(asked, name) not in (_field(unset, name), _field(there, name)):
            raise UserError(
                f"codec.{name} is {_field(asked, name)}, but {_field(there, name)} in "
                f"{run.init_from}; leave it out"
            )
    return dataclasses.replace(run, codec=config), codec


def _field(config: dict, name: str):
    for part in name.split("."):
        config = config[part]
    return config


def check(run, source) -> None:
    """Raises UserError for fields that do not go together, or data of another rate or channels."""
    if run.codec.channels < 1:
        raise UserError("codec.seanet.channels must be at least 1")
    if run.trained == "decoder" and run.init_from is None:
        raise UserError("trained is decoder, which wants a codec to begin with: give --init-from")
    rate, channels = getattr(source, "rate", None), source[0]["audio"].shape[1]
    if rate not in (None, run.codec.rate):
        raise UserError(
            f"the data have {rate} Hz, the codec {run.codec.rate}: make them with "
            f"`rvq-jax data build --rate {run.codec.rate}`, or set codec.rate"
        )
    if channels != run.codec.channels:
        raise UserError(
            f"the data have {channels} channels, the codec {run.codec.channels}: make them with "
            f"`rvq-jax data build --channels {run.codec.channels}`"
        )
    segment = run.codec.segment
    if segment is not None and run.samples > round(segment * run.codec.rate):
        raise UserError(
            f"seconds is {run.seconds:g}, but the codec codes segments of {segment:g} s apart: set "
            "seconds to at most that"
        )
    if (run.features is None) != (run.loss.distillation == 0):
        raise UserError(
            "features and loss.distillation go together: give a folder of features and a weight, "
            "or neither"
        )
    if run.features is not None and run.augmentation.mix:
        raise UserError(
            "features are of each clip, and augmentation.mix adds another to it: set it to 0"
        )
    if max(run.loss.prefixes, default=1) > run.codec.levels:
        raise UserError(
            f"loss.prefixes has {max(run.loss.prefixes)}, the codec {run.codec.levels} levels: "
            "leave longer ones out"
        )
    _check_losses(run)


def _check_losses(run) -> None:
    if not output_weights(run.loss, run.adversarial):
        raise UserError("all losses of the decoder's audio are 0: set loss.waveform or loss.mel")
    judging = run.adversarial.discriminators
    kinds = judging and (judging.stft, judging.periods, judging.bands, judging.scales)
    if judging is not None and not any(kinds):
        raise UserError(
            "adversarial.discriminators are of no kind: give one, or leave the discriminators out"
        )
    if judging is not None and not run.adversarial.on:
        raise UserError(
            "adversarial.weight and adversarial.features are both 0: set one, or leave the "
            "discriminators out"
        )
    if run.adversarial.on and run.loop.spike is not None:
        raise UserError(
            "loop.spike compares losses, and what discriminators say is of no scale: set it to None"
        )
    if run.adversarial.on and judging.rate != run.codec.rate:
        raise UserError(
            f"the discriminators judge audio of {judging.rate} Hz, the codec has {run.codec.rate}: "
            "set adversarial.discriminators.rate"
        )
    if run.adversarial.on and judging.stft and judging.stft.channels != run.codec.channels:
        raise UserError(
            f"the discriminators judge {judging.stft.channels} channels, the codec has "
            f"{run.codec.channels}: set adversarial.discriminators.stft.channels"
        )
