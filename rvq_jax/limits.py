"""What a field of a config may be, of ours, of another project's and of the command line.

One table by name. Types are those of the dataclass; here are the bounds of numbers and the lengths
of tuples, and of a few sizes that follow from several fields. All is looked at before anything is
computed with it, so that a model's shapes are known in a second whatever its config says.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable
from typing import Literal, NamedTuple

from rvq_jax.errors import READING, UserError, shown


class Bound(NamedTuple):
    """Numbers from `low` to `high`; of a tuple each, and how many."""

    low: float
    high: float
    length: tuple[int, int] = (1, 64)
    above: bool = False  # low itself is too low


PARAMETERS = 1 << 35  # of one model: ten times MusicGen-large
HALF = 2**31 - 1
COUNT, NATURAL = Bound(1, HALF), Bound(0, HALF)
SHARE, POSITIVE = Bound(0, 1), Bound(0, 1e6, above=True)
WEIGHT = Bound(0, 1e6)
WIDTH = Bound(1, 1 << 17)  # features
DEPTH = Bound(1, 128)  # layers of which each takes time to lay out
KERNEL = Bound(1, 1024)
LEVELS = Bound(1, 256)
RATE = Bound(1, 768_000)
CODES = Bound(2, 1 << 20)
STRIDES = Bound(1, 1024, length=(1, 10))
KBPS = Bound(0, 1e5, length=(0, 64), above=True)
SECONDS = Bound(0, 86_400, above=True)
ITERATIONS = Bound(1, 10_000, length=(0, 256))
SEED = Bound(0, 2**32 - 1, length=(1, 1000))

# By the field's name, or by Class.field where a name means something else elsewhere.
BOUNDS = {
    # Codecs.
    "rate": RATE,
    "channels": Bound(1, 64),
    "dim": WIDTH,
    "filters": WIDTH,
    "decoder_filters": WIDTH,
    "code_dim": WIDTH,
    "ratios": STRIDES,
    "stride": Bound(1, 1024),
    "hop": Bound(1, 1 << 14),
    "FilterbankConfig.dilations": Bound(1, 1024, length=(0, 64)),
    "kernel": KERNEL,
    "last_kernel": KERNEL,
    "residual_kernel": KERNEL,
    "residual_layers": Bound(0, 8),
    "dilation_base": Bound(1, 8),
    "compress": WIDTH,
    "lstm_layers": Bound(0, 16),
    "levels": LEVELS,
    "semantic": LEVELS,
    "codebook_size": CODES,
    "segment": Bound(0, 600, above=True),
    "overlap": Bound(0, 0.9),
    "bandwidths": KBPS,
    # Discriminators.
    "windows": Bound(2, 1 << 16, length=(1, 16)),
    "dilations": Bound(1, 1024, length=(0, 16)),
    "slope": SHARE,
    "periods": Bound(1, 1 << 16, length=(1, 32)),
    "cuts": Bound(0, 1, length=(0, 64)),
    "divisors": Bound(1, 1024, length=(1, 16)),
    "groups": WIDTH,
    # Transformers of codecs, of tokens and of captions.
    "layers": DEPTH,
    "caption_layers": Bound(0, DEPTH.high),
    "heads": Bound(1, 1024),
    "kv_heads": Bound(1, 1024),
    "head_dim": Bound(1, 4096),
    "mlp_dim": WIDTH,
    "context": Bound(1, 1 << 20),
    "rope_theta": Bound(1, 1e12),
    "layer_scale": WEIGHT,
    "eps": SHARE,
    "caption_bytes": Bound(1, 1 << 16),
    "text_dim": WIDTH,
    "melody_bins": Bound(1, 1024),
    "melody_frames": Bound(1, 1 << 16),
    "window": Bound(1, 1 << 20),
    "conv_kernel": KERNEL,
    "span": Bound(1, 1 << 10),
    "semantic_size": CODES,
    "semantic_ratio": Bound(1, 1 << 10),
    "vocab": CODES,
    "buckets": Bound(4, 4096),
    "distance": Bound(2, 1 << 20),
    # Training.
    "batch": Bound(1, 1 << 20),
    "seconds": SECONDS,
    "frames": Bound(1, 1 << 20),
    "steps": COUNT,
    "seed": SEED,
    "log_every": COUNT,
    "checkpoint_every": COUNT,
    "evaluate_every": NATURAL,
    "keep": Bound(1, 10_000),
    "skips": COUNT,
    "spike": Bound(1, 1e6, above=True),
    "learning_rate": Bound(0, 1000),
    "warmup": NATURAL,
    "cooldown": NATURAL,
    "gamma": Bound(0, 1, above=True),
    "b1": Bound(0, 0.999_999),
    "b2": Bound(0, 0.999_999_99),
    "weight_decay": WEIGHT,
    "clip": POSITIVE,
    "ema": SHARE,
    "accumulate": Bound(1, 1 << 20),
    "every": COUNT,
    "start": NATURAL,
    "probability": Bound(0, 1, above=True),
    "decayed": Bound(0, 0, length=(0, 64)),
    "waveform": WEIGHT,
    "mel": WEIGHT,
    "stft": WEIGHT,
    "si_sdr": WEIGHT,
    "commitment": WEIGHT,
    "codebook": WEIGHT,
    "distillation": WEIGHT,
    "prefixes": Bound(1, 256, length=(0, 256)),
    "unquantized": SHARE,
    "weight": WEIGHT,
    "AdversarialConfig.features": WEIGHT,
    "autoencoder_warmup": NATURAL,
    "quantizer_dropout": SHARE,
    "decay": SHARE,
    "expiry": SHARE,
    "all": SHARE,
    "ConditionDropout.text": SHARE,
    "melody": SHARE,
    "others": SHARE,
    "loudness_db": Bound(-70, 0),
    "gain_db": Bound(-60, 60, length=(2, 2)),
    "mix": SHARE,
    "phase": SHARE,
    "rank": Bound(1, 1 << 16),
    "alpha": WEIGHT,
    "seeds": SEED,
    "clips": Bound(1, 10_000),
    # Commands.
    "kbps": KBPS,
    "piece": SECONDS,
    "Data.melody": Bound(1, 1024),
    "semantic_rate": Bound(0, 1e5, above=True),
    "listened": Bound(0, 1000),
    "devices": Bound(1, 1024),
    "share": Bound(0, 1 << 20, length=(2, 2)),
    "fsdp": Bound(1, 1 << 20),
    "tensor": Bound(1, 1 << 20),
    "workers": Bound(0, 256),
    "profile": Bound(1, 10_000),
    "processes": Bound(1, 1 << 20),
    "process": Bound(0, 1 << 20),
    "wait": Bound(1, 86_400),
    "heartbeat": Bound(1, 86_400),
    "guidance_scale": WEIGHT,
    "text_guidance_scale": WEIGHT,
    "temperature": WEIGHT,
    "top_k": NATURAL,
    "top_p": SHARE,
    "repetition": SHARE,
    "Study.seconds": Bound(0.1, 600),
    "Generate.stride": SECONDS,
    "iterations": ITERATIONS,
    "Decoding.guidance_scale": Bound(0, 1e6, length=(2, 2)),
    "port": Bound(0, 65_535),
    "Limits.prompt": Bound(1, 10**6),
    "Limits.seconds": Bound(0.1, 3600),
    "Limits.body": Bound(64, 10**7),
    "Limits.waiting": Bound(0, 999),
    "Limits.audio": Bound(1, 10**8),
    "Limits.takes": Bound(1, 64),
    # Other projects' names of the same, and what they have beside.
    "sampling_rate": RATE,
    "sample_rate": RATE,
    "audio_channels": Bound(1, 64),
    "hidden_size": WIDTH,
    "num_filters": WIDTH,
    "encoder_hidden_size": WIDTH,
    "decoder_hidden_size": WIDTH,
    "encoder_dim": WIDTH,
    "decoder_dim": WIDTH,
    "latent_dim": WIDTH,
    "codebook_dim": WIDTH,
    "vector_quantization_hidden_dimension": WIDTH,
    "upsample_groups": WIDTH,
    "upsampling_ratios": STRIDES,
    "downsampling_ratios": STRIDES,
    "encoder_rates": STRIDES,
    "decoder_rates": STRIDES,
    "hop_length": Bound(1, 1 << 20),
    "kernel_size": KERNEL,
    "last_kernel_size": KERNEL,
    "residual_kernel_size": KERNEL,
    "num_residual_layers": Bound(0, 8),
    "dilation_growth_rate": Bound(1, 8),
    "num_lstm_layers": Bound(0, 16),
    "trim_right_ratio": SHARE,
    "num_quantizers": LEVELS,
    "num_semantic_quantizers": LEVELS,
    "n_codebooks": LEVELS,
    "num_codebooks": LEVELS,
    "chunk_length_s": Bound(0, 600),
    "target_bandwidths": Bound(0, 1e5, length=(1, 64), above=True),
    "frame_rate": Bound(0, 768_000, above=True),
    "_frame_rate": Bound(0, 768_000, above=True),
    "num_hidden_layers": DEPTH,
    "num_layers": DEPTH,
    "num_attention_heads": Bound(1, 1024),
    "num_key_value_heads": Bound(1, 1024),
    "num_heads": Bound(1, 1024),
    "intermediate_size": WIDTH,
    "ffn_dim": WIDTH,
    "d_model": WIDTH,
    "d_ff": WIDTH,
    "d_kv": Bound(1, 4096),
    "norm_eps": SHARE,
    "layer_norm_epsilon": SHARE,
    "sliding_window": Bound(1, 1 << 20),
    "layer_scale_initial_scale": WEIGHT,
    "vocab_size": CODES,
    "relative_attention_num_buckets": Bound(4, 4096),
    "relative_attention_max_distance": Bound(2, 1 << 20),
    "pad_token_id": NATURAL,
    "bos_token_id": NATURAL,
    "num_chroma": Bound(1, 1024),
    "chroma_length": Bound(1, 1 << 16),
    "max_length": Bound(1, 1 << 20),
    "segment_duration": SECONDS,
    "subcodes_context": Bound(-1, 1 << 20),
    "span_len": Bound(1, 1 << 10),
    "decoding_steps": ITERATIONS,
    "temp": WEIGHT,
    "max_cfg_coef": WEIGHT,
    "min_cfg_coef": WEIGHT,
}
# What follows from several fields: properties of a config, checked once the fields are.
DERIVED = {
    "hop": Bound(1, 1 << 20),
    "widest": WIDTH,
    "samples": Bound(1, 1 << 30),
}


def bound(cls: type, name: str) -> Bound | None:
    """The bound of a field of a class: of the class itself, or of one that it comes from."""
    own = (BOUNDS.get(f"{base.__name__}.{name}") for base in cls.__mro__)
    return next((found for found in own if found is not None), BOUNDS.get(name))


@functools.cache
def kinds(cls: type) -> dict[str, object]:
    """The type of each field of a dataclass."""
    hints = typing.get_type_hints(cls)
    return {item.name: hints[item.name] for item in dataclasses.fields(cls)}


def check_field(cls: type, name: str, value, where: str) -> None:
    """Raises UserError unless a value can be the field `name` of the dataclass `cls`."""
    kind = kinds(cls)[name]
    limits = bound(cls, name)
    if not _fits(value, kind, limits):
        raise UserError(f"{where}: {name} must be {words(kind, limits)}, got {shown(value)}")


def check(config, where: str, spell: Callable[[tuple[str, ...]], str] = ".".join) -> None:
    """Raises UserError for a field of a dataclass, or of one inside it, that is out of bounds.

    Args:
      config: any dataclass: a config, a run, a command.
      where: it comes from, for the message.
      spell: a field as a person knows it, from the names that lead to it.
    """
    for path, owner, value in _leaves(config, ()):
        kind, limits = kinds(type(owner))[path[-1]], bound(type(owner), path[-1])
        if not _fits(value, kind, limits):
            raise UserError(
                f"{where}: {spell(path)} must be {words(kind, limits)}, got {shown(value)}"
            )
    check_derived(config, where)


def check_derived(config, where: str) -> None:
    """Raises UserError for sizes that follow from the fields of a config, and are too large."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            check_derived(value, where)
    for name, limits in DERIVED.items():
        if hasattr(type(config), name):
            value = getattr(config, name)
            if not limits.low <= value <= limits.high:
                raise UserError(
                    f"{where}: its fields make {name} {shown(value)}, which must be in "
                    f"{limits.low}..{limits.high}"
                )


def laid_out(make: Callable[[], dict], where: str) -> dict:
    """The shapes of a model by name, as `make` gives them.

    Raises UserError for a config that describes no model, or one that is too large.
    """
    try:
        shapes = make()
    except READING as error:
        raise UserError(f"{where} describes no model: {error}") from None
    count = sum(math.prod(leaf.shape) for leaf in shapes.values())
    if count > PARAMETERS:
        raise UserError(f"{where} describes {count:.1e} parameters, more than {PARAMETERS:.1e}")
    return shapes


def words(kind, limits: Bound | None) -> str:
    """What a field of this type and bound may be."""
    if isinstance(kind, types.UnionType):
        return " or ".join(words(each, limits) for each in typing.get_args(kind))
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        inner = words(typing.get_args(kind)[0], limits).removeprefix("a ")
        least, most = limits.length if limits else (0, math.inf)
        return f"a list of {least} to {most}, each a {inner}" if limits else f"a list, each {inner}"
    if kind in (int, float) and limits:
        number = "a whole number" if kind is int else "a number"
        if limits.above:
            return f"{number} more than {limits.low:,g} and at most {_plain(limits.high)}"
        return f"{number} in {_plain(limits.low)}..{_plain(limits.high)}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    names |= {type(None): "none"}
    return names.get(kind, "an object" if dataclasses.is_dataclass(kind) else f"a {kind}")


def _plain(number: float) -> str:
    return f"{int(number)}" if number == int(number) else f"{number:g}"


def _leaves(config, path: tuple[str, ...]):
    """Every field, with the names that lead to it and the dataclass that it is of."""
    for item in dataclasses.fields(config):
        value, here = getattr(config, item.name), (*path, item.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _leaves(value, here)
        else:
            yield here, config, value


def _fits(value, kind, limits: Bound | None) -> bool:
    """Whether a value, of JSON or of a dataclass, can be a field of this type and bound."""
    if isinstance(kind, types.UnionType):
        return any(_fits(value, each, limits) for each in typing.get_args(kind))
    if kind in (int, float):
        plain = isinstance(value, int if kind is int else int | float)
        return plain and not isinstance(value, bool) and _inside(value, limits)
    if typing.get_origin(kind) is Literal:
        return isinstance(value, str | int) and value in typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        least, most = limits.length if limits else (0, math.inf)
        inner = typing.get_args(kind)[0]
        return (
            isinstance(value, list | tuple)
            and least <= len(value) <= most
            and all(_fits(item, inner, limits) for item in value)
        )
    if kind in (str, bool, type(None)):
        return isinstance(value, kind)
    # Other types, such as paths, only the command line has, which makes them itself.
    return not dataclasses.is_dataclass(kind) or isinstance(value, kind)


def _inside(value: float, limits: Bound | None) -> bool:
    """NaN lies in no bounds."""
    if limits is None:
        return isinstance(value, int) or math.isfinite(value)
    return limits.low <= value <= limits.high and not (limits.above and value == limits.low)
